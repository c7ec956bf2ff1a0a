"""Hook requests: a patient, a tumour and twelve observations, mCODE-shaped; each another patient with other values.

Made from a fixture, so that the bodies have the shape of the tests' own. Every value has a fixed width, so that all
requests have the same length, and a request is its literals and its values joined: tens of microseconds of a client.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

FIXTURE = Path(__file__).resolve().parents[1] / "fixtures" / "hooks" / "aisha-t.patient-view.json"
SERVICE = "/cds-services/breast-cancer-prognosis"
_LEFT_OUT = ("height", "pt", "her2-fish")
"""Of the fixture's fifteen observations; twelve stay."""

_YES_NO = ("LA6576-8|Positive", "LA6577-6|Negative")
_GRADES = ("LA27823-6|Nottingham grade 1", "LA27824-4|Nottingham grade 2", "LA27825-1|Nottingham grade 3")
_DRAWN: dict[str, Callable[[random.Random], str]] = {
    "~instance~": lambda draw: _uuid(draw),
    "~birth~": lambda draw: f"{draw.randint(1950, 1985)}-{draw.randint(1, 12):02}-{draw.randint(1, 28):02}",
    "~mrn~": lambda draw: f"{draw.randint(0, 10**9 - 1):09}",
    "~weight~": lambda draw: f"{draw.randint(500, 999) / 10:.1f}",
    "~size~": lambda draw: f"{draw.randint(10, 69) / 10:.1f}",
    "~grade~": lambda draw: draw.choice(_GRADES),
    "~nodes~": lambda draw: f"{draw.randint(0, 9)}",
    "~er~": lambda draw: draw.choice(_YES_NO),
    "~pr~": lambda draw: draw.choice(_YES_NO),
    "~her2~": lambda draw: draw.choice(_YES_NO),
    "~ki67~": lambda draw: f"{draw.randint(10, 89)}",
}


def _uuid(draw: random.Random) -> str:
    digits = f"{draw.getrandbits(128):032x}"
    return "-".join((digits[:8], digits[8:12], "4" + digits[13:16], "8" + digits[17:20], digits[20:]))


class Bodies:
    """An endless supply. `seed` tells one run's patients from another's."""

    def __init__(self, seed: int) -> None:
        self._draw = random.Random(seed)
        text = _template()
        self._pieces: list[str] = []
        """Literals at even places, names of values at odd ones."""
        for chunk in text.split("~"):
            self._pieces.append(chunk if len(self._pieces) % 2 == 0 else f"~{chunk}~")

    def one(self) -> bytes:
        values = {name: draw(self._draw) for name, draw in _DRAWN.items()}
        for name in ("~grade~", "~er~", "~pr~", "~her2~"):
            code, display = values[name].split("|")
            values[f"{name[:-1]}-code~"], values[f"{name[:-1]}-display~"] = code, display
        values["~patient~"] = f"p{self._draw.getrandbits(64):016x}"
        pieces = self._pieces
        return "".join([values[p] if n % 2 else p for n, p in enumerate(pieces)]).encode()

    def __iter__(self) -> Iterator[bytes]:
        while True:
            yield self.one()


def _template() -> str:
    body: dict[str, Any] = json.loads(FIXTURE.read_bytes())
    body["hookInstance"] = "~instance~"
    prefetch = body["prefetch"]
    body["prefetch"] = {key: prefetch[key] for key in ("patient", "conditions", "observations")}
    prefetch["patient"]["birthDate"] = "~birth~"
    prefetch["patient"]["identifier"][0]["value"] = "~mrn~"
    entries = [
        entry
        for entry in prefetch["observations"]["entry"]
        if not entry["resource"]["id"].endswith(tuple(f"-{name}" for name in _LEFT_OUT))
    ]
    assert len(entries) == 12, "the fixture has other observations than this benchmark expects"
    prefetch["observations"].update(entry=entries, total=12)
    observed = {entry["resource"]["id"].removeprefix("aisha-t-"): entry["resource"] for entry in entries}
    observed["weight"]["valueQuantity"]["value"] = "~#weight~"
    observed["tumor-size"]["component"][0]["valueQuantity"]["value"] = "~#size~"
    observed["nodes-positive"]["valueQuantity"]["value"] = "~#nodes~"
    observed["ki67"]["valueQuantity"]["value"] = "~#ki67~"
    observed["her2-ihc"]["code"]["coding"][0] = {
        "system": "http://loinc.org",
        "code": "48676-1",
        "display": "HER2 [Interpretation] in Tissue",
    }
    for key, name in (("grade", "grade"), ("er", "er"), ("pr", "pr"), ("her2-ihc", "her2")):
        coding = observed[key]["valueCodeableConcept"]["coding"][0]
        coding.update(code=f"~{name}-code~", display=f"~{name}-display~")
    text = json.dumps(body, separators=(",", ":")).replace("aisha-t", "~patient~")
    for name in ("weight", "size", "nodes", "ki67"):
        text = text.replace(f'"~#{name}~"', f"~{name}~")
    return text


def survival(answer: bytes) -> bool:
    """Whether an answer is one card with survival numbers, not an abstention."""
    cards = json.loads(answer)["cards"]
    return len(cards) == 1 and cards[0]["summary"].startswith("Estimated 10-year survival")
