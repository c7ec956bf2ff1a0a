"""The EHR's look, as far as it can do no harm: colours, sizes and font names of `smart_style_url`, and nothing else.

SMART App Launch 2.2, Styling. The document is another server's: a value that is not one of these shapes is left out,
because a style sheet can read and send what a page shows. Text that could not be read is left out as well: colours are
taken together, and only where text stands out from its ground (WCAG 2.2, 1.4.3).
"""

from __future__ import annotations

import re
from typing import Any

from smart_app.style import CONTRAST, contrast

COLOURS = (
    "color_background",
    "color_error",
    "color_highlight",
    "color_modal_backdrop",
    "color_success",
    "color_text",
)
SIZES = ("dim_border_radius", "dim_font_size", "dim_spacing_size")
FONTS = ("font_family_body", "font_family_heading")
_COLOUR = re.compile(r"#(?:[0-9a-f]{3}|[0-9a-f]{6})", re.IGNORECASE)
_SIZE = re.compile(r"([0-9]{1,2}(?:\.[0-9]{1,3})?)(px|rem|em)")
_PIXELS = {"px": 1.0, "rem": 16.0, "em": 16.0}
_RANGES = {"dim_border_radius": (0.0, 24.0), "dim_font_size": (14.0, 24.0), "dim_spacing_size": (4.0, 40.0)}
_FAMILY = r"[A-Za-z][A-Za-z0-9 \-]{0,40}"
_FONT = re.compile(f"(?:{_FAMILY}|'{_FAMILY}'|\"{_FAMILY}\")")
_MOST_FONTS = 8


def filtered(document: Any) -> dict[str, str]:
    """Name -> value, of what is taken of a style document; `smart_app.style` makes a style sheet of it."""
    if not isinstance(document, dict):
        return {}
    taken: dict[str, str] = {}
    for names, read in ((COLOURS, _colour), (SIZES, _size), (FONTS, _fonts)):
        for name in names:
            value = document.get(name)
            if isinstance(value, str) and (said := read(name, value.strip())) is not None:
                taken[name] = said
    text, ground = taken.get("color_text"), taken.get("color_background")
    if text is not None and ground is not None and contrast(text, ground) < CONTRAST:
        taken = {name: value for name, value in taken.items() if not name.startswith("color_")}
    return taken


def _colour(_: str, value: str) -> str | None:
    return value.lower() if _COLOUR.fullmatch(value) else None


def _size(name: str, value: str) -> str | None:
    found = _SIZE.fullmatch(value)
    low, high = _RANGES[name]
    return value if found and low <= float(found[1]) * _PIXELS[found[2]] <= high else None


def _fonts(_: str, value: str) -> str | None:
    fonts = [each.strip() for each in value.split(",")]
    return ", ".join(fonts) if len(fonts) <= _MOST_FONTS and all(map(_FONT.fullmatch, fonts)) else None
