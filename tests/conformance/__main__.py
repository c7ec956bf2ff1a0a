"""Write docs/conformance.md."""

from __future__ import annotations

from tests.conformance.matrix import PAGE, page

if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
