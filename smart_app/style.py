"""The EHR's look, as far as it can do no harm: colours, sizes and font names of `smart_style_url`, and nothing else.

SMART App Launch 2.2, Styling. The document is another server's: a value that is not one of these shapes is left out,
because a style sheet can read and send what a page shows. Text that could not be read is left out as well: colours are
taken together, and only where text stands out from its ground (WCAG 2.2, 1.4.3).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

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
CONTRAST = 4.5
_COLOUR = re.compile(r"#(?:[0-9a-f]{3}|[0-9a-f]{6})", re.IGNORECASE)
_SIZE = re.compile(r"([0-9]{1,2}(?:\.[0-9]{1,3})?)(px|rem|em)")
_PIXELS = {"px": 1.0, "rem": 16.0, "em": 16.0}
_RANGES = {"dim_border_radius": (0.0, 24.0), "dim_font_size": (14.0, 24.0), "dim_spacing_size": (4.0, 40.0)}
_FAMILY = r"[A-Za-z][A-Za-z0-9 \-]{0,40}"
_FONT = re.compile(f"(?:{_FAMILY}|'{_FAMILY}'|\"{_FAMILY}\")")
_MOST_FONTS = 8


def filtered(document: Any) -> dict[str, str]:
    """Name of a custom property, without its dashes -> value, of what is taken of a style document."""
    if not isinstance(document, dict):
        return {}
    taken: dict[str, str] = {}
    for names, read in ((COLOURS, _colour), (SIZES, _size), (FONTS, _fonts)):
        for name in names:
            value = document.get(name)
            if isinstance(value, str) and (said := read(name, value.strip())) is not None:
                taken[f"smart-{name.replace('_', '-')}"] = said
    text, ground = taken.get("smart-color-text"), taken.get("smart-color-background")
    if text is None or ground is None or contrast(text, ground) < CONTRAST:
        taken = {name: value for name, value in taken.items() if not name.startswith("smart-color-")}
    return taken


def sheet(style: Mapping[str, str]) -> str:
    """A style sheet of custom properties; what uses them is `app.css`."""
    return ":root {\n" + "".join(f"  --{name}: {value};\n" for name, value in sorted(style.items())) + "}\n"


def _colour(_: str, value: str) -> str | None:
    return value.lower() if _COLOUR.fullmatch(value) else None


def _size(name: str, value: str) -> str | None:
    found = _SIZE.fullmatch(value)
    low, high = _RANGES[name]
    return value if found and low <= float(found[1]) * _PIXELS[found[2]] <= high else None


def _fonts(_: str, value: str) -> str | None:
    fonts = [each.strip() for each in value.split(",")]
    return ", ".join(fonts) if len(fonts) <= _MOST_FONTS and all(map(_FONT.fullmatch, fonts)) else None


def contrast(one: str, other: str) -> float:
    """Of two colours as `#rgb` or `#rrggbb`: 1 to 21 (WCAG 2.2, contrast ratio)."""
    light, dark = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def _luminance(colour: str) -> float:
    digits = colour[1:]
    if len(digits) == 3:
        digits = "".join(each * 2 for each in digits)
    parts = [int(digits[start : start + 2], 16) / 255 for start in (0, 2, 4)]
    red, green, blue = (each / 12.92 if each <= 0.04045 else ((each + 0.055) / 1.055) ** 2.4 for each in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
