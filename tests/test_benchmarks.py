"""Each benchmark runs, with tiny sizes, and prints its figures in the form that is promised. Nothing here is timed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks._bodies import Bodies
from cds_server.hooks.context import parse
from models import strict
from tests.peers import ROOT

TINY = {
    "append": ("--count", "64"),
    "board": ("--cases", "2", "--results", "5", "--rounds", "1"),
    "case_page": ("--facts", "20", "--rounds", "1"),
    "bulk": ("--types", "ImagingStudy", "--bytes", "500000", "--files", "5"),
    "dicom_index": ("--count", "20", "--rounds", "1"),
    "dicom_receive": ("--slices", "4", "--small", "4", "--megabytes", "2", "--rounds", "1"),
    "hook_ceiling": ("--seconds", "0.3", "--rounds", "1", "--processes", "1"),
    "hook_call": ("--seconds", "0.3", "--rounds", "1", "--latency-seconds", "0.5", "--types", "ImagingStudy"),
    "hooks": ("--seconds", "0.3", "--rounds", "1", "--processes", "1", "--connections", "8", "--most", "200"),
    "hook_profile": ("--count", "3", "--types", "ImagingStudy"),
    "hl7_parse": ("--count", "20"),
    "imaging_features": ("--slices", "12", "--size", "64", "--rounds", "1"),
    "land_digest": ("--types", "ImagingStudy"),
    "land_memory": ("--bytes", "500000"),
    "ledger": ("--count", "500", "--leaves", "2000"),
    "mllp": ("--seconds", "0.6", "--sustained", "0.5", "--results", "20"),
    "reproduce": ("--count", "20"),
    "score": ("--count", "50"),
    "similar": ("--patients", "2000", "--rounds", "2"),
    "start": ("--count", "1"),
}
SCRIPTS = sorted(path for path in (ROOT / "benchmarks").glob("[a-z]*.py"))
FIGURE = {"claim", "value", "unit", "against", "ratio", "goal", "ok"}


def test_every_script_is_tried() -> None:
    assert {path.stem for path in SCRIPTS} == set(TINY)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_a_benchmark_prints_its_figures(script: Path, peer_data: Path, tmp_path: Path) -> None:
    """Whether a goal is met says nothing at this size: exit code 1 is fine, an error (a traceback) is not."""
    ran = subprocess.run(
        [sys.executable, str(script), *TINY[script.stem]],
        cwd=tmp_path,
        env={**os.environ, "CDS_PEER_DATA": str(peer_data), "CDS_BENCH_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert ran.returncode in (0, 1), ran.stderr
    assert "Traceback" not in ran.stderr, ran.stderr
    figures = [json.loads(line) for line in ran.stdout.splitlines() if line.startswith("{")]
    assert figures, ran.stdout
    assert ran.stdout.splitlines()[-1].startswith("{")
    for figure in figures:
        check_figure(figure)
    assert ran.returncode == (0 if all(figure["ok"] for figure in figures) else 1)
    assert not list(tmp_path.iterdir()), "a benchmark left something behind"


def check_figure(figure: dict[str, Any]) -> None:
    assert set(figure) == FIGURE
    assert all(isinstance(figure[name], str) and figure[name] for name in ("claim", "unit", "against", "goal"))
    assert isinstance(figure["value"], float)
    assert figure["value"] > 0
    assert figure["ratio"] is None or figure["ratio"] > 0
    assert isinstance(figure["ok"], bool)


def test_bodies_are_hook_requests_of_other_patients_each() -> None:
    bodies = Bodies(1)
    made = [bodies.one() for _ in range(50)]
    requests = [parse(raw, strict.loads(raw)) for raw in made]
    assert len({len(raw) for raw in made}) == 1
    assert len({request.patient_id for request in requests}) == len({r.hook_instance for r in requests}) == 50
    assert len({str(request.prefetch).replace(request.patient_id, "") for request in requests}) == 50
    for request in requests:
        assert request.prefetch is not None
        observations = request.prefetch["observations"]["entry"]
        assert len(observations) == 12
        assert {entry["resource"]["subject"]["reference"] for entry in observations} == {
            f"Patient/{request.patient_id}"
        }
        assert b"~" not in request.raw
