"""`conformance`: on in a sandbox, off elsewhere, and never beside a real EHR."""

from __future__ import annotations

from pathlib import Path

import pytest

from cds_server.settings import load
from models.errors import Misconfigured

REAL = '[[ehr]]\nnamespace = "a"\nissuer = "https://ehr.example"\njwks_url = "https://ehr.example/jwks"\n'
TEST = f"{REAL}test = true\n"


def conformance(tmp_path: Path, text: str, **variables: str) -> bool:
    (tmp_path / "cds.toml").write_text(text)
    return load({"CDS_CONFIG": str(tmp_path / "cds.toml"), **variables}).conformance


@pytest.mark.parametrize(
    ("text", "variables", "on"),
    [
        ('trust = "open"\n', {}, True),
        ('trust = "open"\nconformance = false\n', {}, False),
        ('trust = "open"\n', {"CDS_CONFORMANCE": "false"}, False),
        (REAL, {}, False),
        (TEST, {}, False),
        (f"conformance = true\n{TEST}", {}, True),
        (TEST, {"CDS_CONFORMANCE": "true"}, True),
    ],
)
def test_where_it_is_on(tmp_path: Path, text: str, variables: dict[str, str], on: bool) -> None:
    assert conformance(tmp_path, text, **variables) is on


@pytest.mark.parametrize("variables", [{"CDS_CONFORMANCE": "true"}])
def test_it_is_refused_beside_a_real_ehr(tmp_path: Path, variables: dict[str, str]) -> None:
    with pytest.raises(Misconfigured, match="CDS_CONFORMANCE in the environment shows cards about no patient"):
        conformance(tmp_path, REAL, **variables)


def test_it_is_true_or_false(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="neither true nor false"):
        conformance(tmp_path, 'trust = "open"\n', CDS_CONFORMANCE="perhaps")
