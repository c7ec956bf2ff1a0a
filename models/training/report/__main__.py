"""`python -m models.training.report [FOLDER]`: writes validation.json and report.html (default docs/models).

The same inputs give the same bytes: cohorts by SHA-256, seeds, one thread, figures rounded to four decimals.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from models.training import metabric
from models.training.metabric import Cohort
from models.training.recurrence import FULL
from models.training.report import agreement, external, folds, page, sites, tables

FOLDER = Path(__file__).resolve().parents[3] / "docs" / "models"
DATA, PAGE = "validation.json", "report.html"


def main(folder: Path) -> None:
    print("reading METABRIC and TCGA-BRCA")
    cohort, tcga = metabric.load(), external.load()
    print("cross-validating: 10 x 5 folds, nested")
    held_out = folds.held_out(cohort)
    print("measuring, with 1,000 resamples of the patients")
    report = tabulated(cohort, tcga, held_out)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / DATA).write_text(spelled(report))
    (folder / PAGE).write_text(page.page(report))
    print(f"wrote {DATA} and {PAGE}")
    for goal in report["goals"]:
        print(f"{'reached' if goal['reached'] else 'SHORT':8} {goal['goal']}: {goal['found']}")


def tabulated(cohort: Cohort, tcga: external.Tcga, held_out: folds.HeldOut) -> dict[str, Any]:
    report = {
        "cohort": tables.described(cohort),
        "method": tables.method(),
        "patterns": tables.patterns(cohort, held_out),
        "references": tables.references(cohort),
        "gains": tables.gains(cohort, held_out),
        "heads": tables.heads(cohort, held_out),
        "calibration": tables.calibration(cohort, held_out),
        "decision": tables.decision(cohort, held_out),
        "moves": tables.moves(cohort, held_out),
        "sites": sites.leave_one_out(cohort),
        "subgroups": sites.subgroups(cohort, held_out.patterns[FULL]),
        "naturally_missing": tables.naturally_missing(cohort, held_out),
        "external": external.transported(cohort, tcga),
        "agreement": agreement.measured(cohort),
        "inputs": {**metabric.DIGESTS, external.TABLE: external.DIGEST},
    }
    return {**report, "goals": tables.goals(report)}


def spelled(report: dict[str, Any]) -> str:
    return json.dumps(report, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
