"""What the pages say, in one place: one file per group of pages, each with `TEXTS` (key -> English text).

A template says `{{ t("case.changed") }}`; `{name}` in a text is filled by `t("key", name=value)`. Another language is
another set of these files. Tests hold keys and templates against each other, and this list against the folder.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from models.errors import Misconfigured
from smart_app.texts import act, board, case, frame, launch, queue, similar, staff, then, timeline

FILES = (act, board, case, frame, launch, queue, similar, staff, then, timeline)


@cache
def english() -> Mapping[str, str]:
    """Every text by its key. Errors: Misconfigured, where two files have the same key."""
    texts: dict[str, str] = {}
    for file in FILES:
        if twice := texts.keys() & file.TEXTS.keys():
            raise Misconfigured("two texts have one key", where=", ".join(sorted(twice)))
        texts.update(file.TEXTS)
    return texts


def t(key: str, /, **values: Any) -> str:
    """The text of a key. Errors: KeyError, where there is none: a page never shows a key."""
    text = english()[key]
    return text.format(**values) if values else text
