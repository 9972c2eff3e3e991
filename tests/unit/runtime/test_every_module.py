"""Every module imports in one process: types that exist only for a checker, and metrics' names, would break it."""

import importlib
import pkgutil
from types import ModuleType

import pytest

import connectors
import contracts
import nightshift
import processes
import services

PACKAGES: tuple[ModuleType, ...] = (contracts, connectors, processes, services, nightshift)
NAMES = [
    module.name
    for package in PACKAGES
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
    if not module.name.endswith("__main__")
]


@pytest.mark.parametrize("name", NAMES)
def test_it_imports_beside_all_others(name: str) -> None:
    importlib.import_module(name)
