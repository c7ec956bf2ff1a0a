"""Valid is what fhir.resources accepts; the known faults of the real sets are found, and nothing is echoed."""

from __future__ import annotations

import gzip
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from adapters.readers.validation import NOT_CHECKED, validate

OBSERVATION = {"resourceType": "Observation", "status": "final", "code": {"text": "x"}}


@pytest.mark.parametrize(
    ("resource", "problem"),
    [
        (b'{"resourceType":"Observation"', ": the resource is not JSON (at byte 29)"),
        (b"[]", ": not an object"),
        ({}, "resourceType: not a resource type of R4"),
        ({"resourceType": "Quantity", "value": 1}, "resourceType: not a resource type of R4"),
        ({"resourceType": "DomainResource"}, "resourceType: not a resource type of R4"),
        ({"resourceType": "../patient"}, "resourceType: not a resource type of R4"),
        ({"resourceType": "MedicinalProduct"}, NOT_CHECKED),
        ({**OBSERVATION, "valueQuantity": {"value": "secret"}}, "valueQuantity.value: value_error"),
        ({**OBSERVATION, "timing": 1}, "timing: extra_forbidden"),
        ({**OBSERVATION, "a secret with spaces": 1}, "?: extra_forbidden"),
    ],
)
def test_problems_are_paths_and_rules(resource: Any, problem: str) -> None:
    found = validate(resource)
    assert problem in found
    assert all(": " in each for each in found)


def test_no_value_is_repeated() -> None:
    found = validate({**OBSERVATION, "status": {"x": "Jenny Miller"}, "effectiveDateTime": "born 1965 in Anytown"})
    assert found
    assert not any(word in " ".join(found) for word in ("Jenny", "Anytown", "1965"))


def test_a_valid_one_has_no_problem() -> None:
    assert validate(OBSERVATION) == []


@pytest.mark.parametrize(
    ("folder", "expected"),
    [
        ("clinosim-oncology-200", {"MedicationAdministration": 0.27, "DiagnosticReport": 0.019}),
        ("synthea-smart-615", {}),
    ],
)
def test_the_real_sets(peer_data: Path, folder: str, expected: dict[str, float]) -> None:
    """Every 20th resource. In full (once, 2026-11): clinosim 81,071 valid and 1,259 not; Synthea 148,203 and none."""
    seen: Counter[str] = Counter()
    invalid: Counter[str] = Counter()
    for path in sorted((peer_data / "fhir" / folder).glob("*.ndjson.gz")):
        name = path.name.split(".")[0]
        with gzip.open(path) as lines:
            for n, line in enumerate(lines):
                if n % 20 == 0:
                    seen[name] += 1
                    invalid[name] += bool(validate(line.strip()))
    assert {name for name, count in invalid.items() if count} <= set(expected)
    for name, share in expected.items():
        assert invalid[name] / seen[name] == pytest.approx(share, abs=0.06)
    assert seen.total() > 4_000


def test_nothing_is_imported_before_it_is_needed() -> None:
    """fhir.resources takes long to import; `cds --help` and the start of a server must not pay for it."""
    loaded = "print('fhir' in sys.modules, 'pint' in sys.modules)"
    script = f"import sys, adapters.readers.validation, adapters.readers.facts; {loaded}"
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", script], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
