"""An EHR's own look (SMART App Launch 2.2, Styling), as far as our pages stay readable with it.

Its properties come filtered (`Case.style`). Taken are fonts, the corner radius, the ground and the accent; colours only
where text on them keeps a contrast of 4.5 to 1 (WCAG 2.2, 1.4.3). What an EHR calls error or success keeps our colours:
a warning must look the same everywhere.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

CONTRAST = 4.5
INK, PAPER = "#16222e", "#ffffff"
_HEX = re.compile(r"#([0-9a-fA-F]{3}|[0-9a-fA-F]{6})", re.ASCII)
_LENGTH = re.compile(r"\d{1,2}(?:\.\d{1,2})?(?:px|rem|em)", re.ASCII)
_FONT = re.compile(r"[A-Za-z0-9 ,'\"-]{1,200}", re.ASCII)


def sheet(style: Mapping[str, str]) -> str:
    """Custom properties for the style sheet; empty where nothing of it can be taken."""
    told = {name.lstrip("-").replace("-", "_"): value.strip() for name, value in style.items()}
    found = {}
    for name, ours in (("font_family_body", "--font"), ("font_family_heading", "--font-head")):
        if _FONT.fullmatch(told.get(name, "")):
            found[ours] = f"{told[name]}, system-ui, sans-serif"
    if _LENGTH.fullmatch(told.get("dim_border_radius", "")):
        found["--radius"] = told["dim_border_radius"]
    ground = told.get("color_background", "")
    if _HEX.fullmatch(ground) and contrast(ground, INK) >= CONTRAST and contrast(ground, "#4c5b69") >= CONTRAST:
        found["--ground"] = ground
    accent = told.get("color_highlight", "")
    if _HEX.fullmatch(accent) and contrast(accent, PAPER) >= CONTRAST and contrast(accent, "#e9f1f7") >= CONTRAST:
        found["--accent"] = accent
    return ":root { " + " ".join(f"{name}: {value};" for name, value in found.items()) + " }\n" if found else ""


def contrast(one: str, other: str) -> float:
    """Of two colours in hex (WCAG 2.2, contrast ratio)."""
    low, high = sorted((_luminance(one), _luminance(other)))
    return (high + 0.05) / (low + 0.05)


def _luminance(colour: str) -> float:
    digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
    red, green, blue = (int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4))

    def linear(channel: float) -> float:
        return channel / 12.92 if channel <= 0.04045 else float(((channel + 0.055) / 1.055) ** 2.4)

    return 0.2126 * linear(red) + 0.7152 * linear(green) + 0.0722 * linear(blue)
