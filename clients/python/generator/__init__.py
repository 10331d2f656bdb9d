"""Makes the private package `policy_sidecar._gen` of the contract's descriptors and comments."""

from pathlib import Path

from .contract import Contract, read_contract
from .enums import enums_module, reasons_module
from .facts import facts_module
from .services import operations_module, services_module
from .types import types_module


def contract_folder(here: Path) -> Path:
    """The folder of the contract: beside the project in a source archive, two above it in a checkout."""
    own = here / "proto"
    return own if own.is_dir() else here.parent.parent / "proto"


def generate(protos: Path, target: Path) -> None:
    """Writes the package anew."""
    contract = read_contract(protos)
    target.mkdir(parents=True, exist_ok=True)
    for name, text in {
        "__init__.py": '"""Made from the contract when the package was built."""\n',
        "enums.py": enums_module(contract),
        "reasons.py": reasons_module(contract),
        "facts.py": facts_module(contract),
        "types.py": types_module(contract),
        "services.py": services_module(contract, asynchronous=False),
        "aio_services.py": services_module(contract, asynchronous=True),
        "operations.py": operations_module(contract),
    }.items():
        (target / name).write_text(text, encoding="utf-8")
    (target / "contract.binpb").write_bytes(contract.bare)


__all__ = ["Contract", "contract_folder", "generate"]
