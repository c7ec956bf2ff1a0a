"""`python -m tests.spec`: tell every story again, and write the manual's pages."""

from __future__ import annotations

import tempfile
from pathlib import Path

from tests.spec.pages import MANUAL, pages


def main() -> None:
    MANUAL.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        for name, tell in pages().items():
            place = Path(folder) / name
            place.mkdir()
            (MANUAL / f"{name}.md").write_text(tell(place), encoding="utf-8")


if __name__ == "__main__":
    main()
