"""The manual's pages, each told by the real thing: nothing on them is written by hand but the situations."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from tests.peers import ROOT
from tests.spec import card, delivery, exit_codes

MANUAL = ROOT / "docs" / "manual"
_NOTE = "*Written by `python -m tests.spec` from what the program does; a test compares. Do not edit.*"


def pages() -> dict[str, Callable[[Path], str]]:
    """File name -> what tells the page, given an empty folder."""
    return {module.NAME: _page(module.TITLE, module.HEADER, module.told) for module in (card, delivery, exit_codes)}


def _page(
    title: str, header: tuple[str, ...], told: Callable[[Path], Iterable[tuple[str, ...]]]
) -> Callable[[Path], str]:
    def tell(folder: Path) -> str:
        rows = [header, tuple("---" for _ in header), *told(folder)]
        lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
        return "\n".join([f"# {title}", "", _NOTE, "", *lines, ""])

    return tell
