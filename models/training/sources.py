"""What an artifact was made from: the training files that its release reaches, and the libraries behind them.

Both are read from the import statements, so that nobody has to keep a list; data files that a release reads are named
by it. A change in the training of one model leaves the manifests of the others alone.
"""

from __future__ import annotations

import ast
import hashlib
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from importlib import metadata
from pathlib import Path

ROOM = Path(__file__).parent
HOUSE = ROOM.parent.parent
WRITES = "models.training.release"
"""Writes every artifact: part of the sources of each."""


def sources(*modules: str, data: Iterable[Path] = ()) -> dict[str, str]:
    """File (from `models/training/`) -> SHA-256, for the modules and everything of the training that they reach.

    `data` are further files of that folder that were read (coefficients, licences).
    """
    reached = reach((*modules, WRITES))
    files = {_file(module) for module in reached if module.startswith("models.training")}
    named = sorted({file.relative_to(ROOM).as_posix(): file for file in (*files, *data)}.items())
    return {name: hashlib.sha256(file.read_bytes()).hexdigest() for name, file in named}


def libraries(*modules: str) -> tuple[str, ...]:
    """Distributions that the modules import, directly or through other modules of the house."""
    known = metadata.packages_distributions()
    tops = {name for module in reach((*modules, WRITES)) for name in _imports(module)}
    outside = {name.partition(".")[0] for name in tops} - set(sys.stdlib_module_names) - {"models"}
    return tuple(sorted(known[name][0].lower() for name in outside))


def reach(modules: Iterable[str]) -> frozenset[str]:
    """The modules of the house that these import, and so on, with these."""
    found: set[str] = set()
    waiting = list(modules)
    while waiting:
        module = waiting.pop()
        if module not in found:
            found.add(module)
            waiting += [name for name in _imports(module) if name.startswith("models") and _is_module(name)]
    return frozenset(found)


@cache
def _imports(module: str) -> frozenset[str]:
    """Every module that this one imports, wherever the statement stands."""
    return frozenset(_named(ast.parse(_file(module).read_bytes())))


def _named(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
            yield from (name for alias in node.names if _is_module(name := f"{node.module}.{alias.name}"))


def _is_module(name: str) -> bool:
    path = HOUSE.joinpath(*name.split("."))
    return name.startswith("models") and (path.with_suffix(".py").is_file() or (path / "__init__.py").is_file())


def _file(module: str) -> Path:
    path = HOUSE.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
