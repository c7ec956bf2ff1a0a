"""The case page of a patient with 5,000 facts, from the request to the last byte, by the server's own code.

Each page checks who looks, writes its access entry durably, opens what was inferred and every fact that is known, and
draws the charts. In one process, over ASGI: no browser and no network are in the figures.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import sys
import time
from typing import Any

from starlette.testclient import TestClient

from benchmarks import _bench
from cds_server import logs
from cds_server.app import build
from cds_server.checkpoints import Checkpoints
from cds_server.serve import COLLECT
from cds_server.settings import load
from tests.cds_server.case_app import PROGNOSIS, GivenSessions, call, case_app, fixture, sized
from tests.cds_server.stores import learn

PATIENT = "jenny-m"
OPENED = f"{PATIENT}.patient-view"
GOAL_MS, GOAL_BYTES = 300.0, 150_000
LABS = (
    ("718-7", "Hemoglobin", "g/dL", 12.0),
    ("777-3", "Platelets", "10*3/uL", 250.0),
    ("2160-0", "Creatinine", "mg/dL", 0.9),
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--facts", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=40)
    args = parser.parse_args()
    logs.configure("warning")
    with _bench.scratch() as scratch:
        config = scratch / "cds.toml"
        config.write_text('[[ehr]]\nnamespace = "sandbox"\ntest = true\n')
        settings = load({"CDS_CONFIG": str(config)}, data_dir=scratch / "var", trust="open", deadline_ms=30_000)
        parts = build(settings)
        try:
            ok = _measure(parts, args.facts, args.rounds)
        finally:
            parts.close()
    return 0 if ok else 1


def _measure(parts: Any, facts: int, rounds: int) -> bool:
    call(parts, PROGNOSIS, sized(OPENED, 1.8))
    call(parts, PROGNOSIS, fixture(OPENED))
    learn(parts.store, *(_lab(n) for n in range(facts)), namespace="sandbox")
    Checkpoints(parts.store, parts.settings.public_url).make()
    sessions = GivenSessions()
    client = TestClient(case_app(parts, sessions))
    gc.collect()
    gc.freeze()  # as `cds serve` does once it is up
    gc.set_threshold(*COLLECT)
    root = f"/app/{sessions.open(parts, PATIENT).id}/"
    good = True
    for name, path in (("case page", root), ("timeline page", f"{root}timeline")):
        took, size, used = [], 0, time.process_time()
        for _ in range(rounds + 2):
            began = time.perf_counter()
            answer = client.get(path)
            took.append(1000 * (time.perf_counter() - began))
            assert answer.status_code == 200, answer.status_code
            size = len(answer.content)
        median, used = statistics.median(took[2:]), 1000 * (time.process_time() - used) / len(took)
        times = f"{median:.0f} ms median, {max(took[2:]):.0f} ms at most, {used:.0f} ms of processor"
        print(f"{name}: {times}   {_bench.machine()}")
        good &= _bench.figure(
            f"{name}, {facts} facts, {rounds} times: median",
            median,
            "ms",
            against=f"the goal of {GOAL_MS:g} ms",
            ratio=median / GOAL_MS,
            goal=f"< {GOAL_MS:g}",
            ok=median < GOAL_MS,
        )
        good &= _bench.figure(
            f"{name}: size without images",
            size / 1000,
            "kB",
            against=f"the goal of {GOAL_BYTES / 1000:g} kB",
            ratio=size / GOAL_BYTES,
            goal=f"< {GOAL_BYTES / 1000:g}",
            ok=size < GOAL_BYTES,
        )
    return good


def _lab(n: int) -> dict[str, Any]:
    code, words, unit, value = LABS[n % len(LABS)]
    day = f"{2005 + n % 20}-{1 + n % 12:02}-{1 + n % 28:02}"
    lab: dict[str, Any] = {
        "resourceType": "Observation",
        "id": f"lab-{n}",
        "status": "final",
        "code": {"coding": [{"system": "http://loinc.org", "code": code, "display": words}]},
        "subject": {"reference": f"Patient/{PATIENT}"},
        "effectiveDateTime": f"{day}T08:00:00Z",
        "valueQuantity": {"value": round(value * (0.8 + (n % 40) / 100), 1), "unit": unit, "code": unit},
    }
    lab["valueQuantity"]["system"] = "http://unitsofmeasure.org"
    return lab


if __name__ == "__main__":
    sys.exit(main())
