"""What the pages say, in one place: one file per group of pages, each with `TEXTS` (key -> English text).

A template says `{{ t("case.changed") }}`; `{name}` in a text is filled by `t("key", name=value)`. Another language is
another set of these files. A test holds keys and templates against each other.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from functools import cache
from typing import Any

from models.errors import Misconfigured


@cache
def english() -> Mapping[str, str]:
    """Every text by its key. Errors: Misconfigured, where two files have the same key."""
    texts: dict[str, str] = {}
    for found in pkgutil.iter_modules(__path__):
        added: Mapping[str, str] = importlib.import_module(f"{__name__}.{found.name}").TEXTS
        if twice := texts.keys() & added.keys():
            raise Misconfigured("two texts have one key", where=", ".join(sorted(twice)))
        texts.update(added)
    return texts


def t(key: str, /, **values: Any) -> str:
    """The text of a key. Errors: KeyError, where there is none: a page never shows a key."""
    text = english()[key]
    return text.format(**values) if values else text
