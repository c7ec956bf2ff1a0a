"""One new file is one new thing: find the modules of a package that declare a name."""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType


def discover(package: ModuleType, attribute: str) -> dict[str, ModuleType]:
    """Modules of `package` that define `attribute`, keyed by its value, in the order of their file names."""
    found: dict[str, ModuleType] = {}
    for info in sorted(pkgutil.iter_modules(package.__path__), key=lambda module: module.name):
        module = importlib.import_module(f"{package.__name__}.{info.name}")
        name = getattr(module, attribute, None)
        if name is not None:
            if name in found:
                raise ValueError(f"{module.__name__} and {found[name].__name__} both declare {attribute} = {name!r}")
            found[name] = module
    return found
