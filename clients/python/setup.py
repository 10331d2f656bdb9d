"""Makes what is generated from the contract when the package is built; none of it is committed."""

import shutil
import sys
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py
from setuptools.command.sdist import sdist

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from generator import contract_folder, generate  # noqa: E402


class BuildWithContract(build_py):
    """Generates into the package that is built; of an editable installation, into the sources."""

    def run(self) -> None:
        if self.editable_mode:
            generate(contract_folder(HERE), HERE / "src" / "policy_sidecar" / "_gen")
        super().run()
        if not self.editable_mode:
            generate(contract_folder(HERE), Path(self.build_lib) / "policy_sidecar" / "_gen")


class SdistWithContract(sdist):
    """Brings the contract, and what makes code of it, along."""

    def make_release_tree(self, base_dir: str, files: list[str]) -> None:
        super().make_release_tree(base_dir, files)
        shutil.copytree(contract_folder(HERE), Path(base_dir) / "proto", dirs_exist_ok=True)
        shutil.copytree(HERE / "generator", Path(base_dir) / "generator", dirs_exist_ok=True)


setup(cmdclass={"build_py": BuildWithContract, "sdist": SdistWithContract})
