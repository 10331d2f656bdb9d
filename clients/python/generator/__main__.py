"""`python -m generator`: generates into the sources, for work on the client itself."""

from pathlib import Path

from . import contract_folder, generate

here = Path(__file__).parent.parent
generate(contract_folder(here), here / "src" / "policy_sidecar" / "_gen")
