"""An export: many objects through `copy`, one after the other, and the report of what was done. No value of any object
stands in the report, and no name of an input file: it may go where the objects go."""

from __future__ import annotations

import hashlib
import json
import textwrap
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from adapters.dicom.deidentify.copy import Opener, Outcome, Policy, copy
from adapters.dicom.deidentify.profile import EDITION, Profile
from adapters.dicom.deidentify.project import Project
from adapters.dicom.deidentify.risks import RISKS

REPORT = "deidentification.json"
REPORT_TEXT = "deidentification.txt"
SMALL = 5
"""Patients: a value that fewer of an export have in common may point at one of them."""
_STATES = ("written", "refused", "unreadable", "skipped")


@dataclass(slots=True)
class Export:
    """What became of an export."""

    profile: Profile
    project: str
    policy: Policy
    outcomes: list[Outcome] = field(default_factory=list)
    _cells: dict[str, dict[str, set[str]]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(set)))
    _patients: set[str] = field(default_factory=set)
    _kinds: dict[str, int] = field(default_factory=dict)
    """What was done to an object, spelled: the slices of a series share one."""

    def add(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)
        if outcome.state == "written":
            self._patients.add(outcome.patient)
            for kind, mark in outcome.remains.items():
                self._cells[kind][mark].add(outcome.patient)
            outcome.remains = {}
        spelled = json.dumps({"actions": outcome.actions, "cleaned": outcome.cleaned})
        outcome.kind = self._kinds.setdefault(spelled, len(self._kinds))
        outcome.actions, outcome.cleaned = {}, {}

    @property
    def counts(self) -> dict[str, int]:
        found = Counter(outcome.state for outcome in self.outcomes)
        return {state: found[state] for state in _STATES}

    @property
    def digest(self) -> str:
        """SHA-256 over the outputs' digests and paths, in the form of `sha256sum`, sorted by path."""
        lines = sorted((each.output, each.digest) for each in self.outcomes if each.state == "written")
        return hashlib.sha256("".join(f"{digest}  {name}\n" for name, digest in lines).encode()).hexdigest()

    @property
    def exit_code(self) -> int:
        """0 all are written (or skipped), 4 a rule refused all there was, 1 some are missing."""
        counts = self.counts
        if counts["refused"] and not counts["written"]:
            return 4
        return 1 if counts["refused"] or counts["unreadable"] else 0

    def rare(self) -> dict[str, dict[str, int]]:
        """Of each quasi-identifier that was kept: how many values, and how many of them fewer than 5 patients have."""
        return {
            kind: {"values": len(cells), "rare": sum(len(patients) < SMALL for patients in cells.values())}
            for kind, cells in sorted(self._cells.items())
        }

    def plain(self) -> dict[str, Any]:
        """The report, as JSON."""
        actions: dict[str, Counter[str]] = defaultdict(Counter)
        cleaned: Counter[str] = Counter()
        kinds = [json.loads(spelled) for spelled in self._kinds]
        of_kind = Counter(outcome.kind for outcome in self.outcomes if outcome.state == "written")
        for kind, count in of_kind.items():
            cleaned.update({tag: each * count for tag, each in kinds[kind]["cleaned"].items()})
            for tag, each in kinds[kind]["actions"].items():
                actions[tag].update({action: times * count for action, times in each.items()})
        flags = Counter(flag for outcome in self.outcomes for flag in outcome.flags if outcome.state == "written")
        return {
            "standard": f"DICOM PS3.15 {EDITION}, Annex E",
            "profile": self.profile.name,
            "options": sorted(self.profile.options),
            "times": "coarse" if self.profile.coarse else "kept",
            "codes": [value for value, _ in self.profile.codes],
            "project": self.project,
            "pixels": "blank" if self.policy.blank else "refuse",
            "inspected": sorted(self.policy.inspected),
            "counts": self.counts,
            "patients": len(self._patients),
            "outputs_digest": self.digest,
            "risk": {
                "level": self.level(flags),
                "statement": self.statement(flags),
                "flags": dict(sorted(flags.items())),
            },
            "rare": self.rare(),
            "actions": {tag: dict(sorted(each.items())) for tag, each in sorted(actions.items())},
            "cleaned": dict(sorted(cleaned.items())),
            "refused": dict(Counter(each.reason for each in self.outcomes if each.state != "written").most_common()),
            "kinds": kinds,
            "files": [_file(outcome) for outcome in self.outcomes],
        }

    def level(self, flags: Counter[str]) -> str:
        """high: an identity may well be there; raised: something was kept that narrows it down; low: as the profile."""
        high = {"full-dates", "uids", "institution-identity"} & self.profile.options
        if high or any(flag.startswith("inspected") for flag in flags) or flags["face"]:
            return "high"
        narrow = {"patient-characteristics", "clean-descriptors", "clean-structured-content"} & self.profile.options
        return "raised" if narrow or flags or any(each["rare"] for each in self.rare().values()) else "low"

    def statement(self, flags: Counter[str]) -> list[str]:
        """What is left to think about, in sentences."""
        options, said = self.profile.options, []
        if "full-dates" in options:
            said.append("The dates are the true ones: whoever knows when somebody was examined finds the images.")
        if "uids" in options:
            said.append("The UIDs are the true ones: whoever has access to the archive finds the patient.")
        if "institution-identity" in options:
            said.append("The institution is named.")
        if {"clean-descriptors", "clean-structured-content"} & options:
            said.append(
                "Descriptions were cleaned by the patient's own values and by patterns: free text cannot be shown "
                "to be clean; read a sample."
            )
        if flags["face"]:
            said.append(f"Slices from which a face may be rendered: {flags['face']} objects; nothing was defaced.")
        if flags["age-over-89"]:
            said.append("Ages of 90 and more are given as 90.")
        for risk in sorted(self.policy.inspected):
            if flags[f"inspected: {risk}"]:
                said.append(
                    f"Left as they were on somebody's word: {flags[f'inspected: {risk}']} objects; {RISKS[risk]}."
                )
        if any(outcome.pixels.startswith("blanked") for outcome in self.outcomes if outcome.state == "written"):
            said.append("Some images were blanked by rules about where text is: look at each kind of them.")
        if flags["large-regions"]:
            count = flags["large-regions"]
            said.append(
                f"Ultrasound with regions of most of the picture: {count} objects; text inside them is still there."
            )
        if flags["private-kept"]:
            said.append("Private attributes of the standard's safe list were kept.")
        if flags["no-patient-id"]:
            said.append("Objects without a patient id have a pseudonym for each study.")
        for kind, each in self.rare().items():
            if each["rare"]:
                said.append(
                    f"Of {each['values']} values of {kind}, {each['rare']} belong to fewer than {SMALL} patients."
                )
        return said or ["Nothing was kept beyond what the profile keeps."]

    def text(self) -> str:
        """The report, for people; at most 100 characters a line."""
        plain = self.plain()
        counts = ", ".join(f"{count} {state}" for state, count in plain["counts"].items() if count) or "nothing"
        lines = [
            f"De-identification by {plain['standard']}",
            f"profile {plain['profile']}, project {plain['project']}",
            textwrap.fill(f"options: {', '.join(plain['options']) or 'none'}", 100, subsequent_indent="    "),
            f"{len(self.outcomes)} objects: {counts}; {plain['patients']} patients",
            f"outputs {plain['outputs_digest']}",
            "",
            f"Risk: {plain['risk']['level']}",
            *(
                textwrap.fill(sentence, 100, initial_indent="  - ", subsequent_indent="    ")
                for sentence in plain["risk"]["statement"]
            ),
        ]
        if plain["refused"]:
            lines += ["", "Not written"]
            lines += [f"  {count:>6}  {reason}" for reason, count in plain["refused"].items()]
        done = [(tag, action, count) for tag, each in plain["actions"].items() for action, count in each.items()]
        changed = [each for each in done if each[1] not in ("keep", "K")]
        lines += ["", f"Changed or removed ({len({tag for tag, _, _ in changed})} attributes)"]
        lines += [f"  {tag}  {_ACTIONS.get(action, action):<28} {count:>8}" for tag, action, count in changed]
        kept = sorted({tag for tag, action, _ in done if action in ("keep", "K")})
        lines += ["", f"Kept ({len(kept)} attributes)"]
        lines += ["  " + " ".join(kept[i : i + 8]) for i in range(0, len(kept), 8)]
        if plain["cleaned"]:
            lines += ["", "Text in which a value of the patient, or what looks like one, was replaced"]
            lines += [f"  {tag}  {count:>8}" for tag, count in plain["cleaned"].items()]
        return "\n".join(lines) + "\n"


_ACTIONS = {
    "X": "removed",
    "Z": "emptied",
    "pseudonym": "replaced by the pseudonym",
    "D": "replaced by a dummy",
    "U": "UID replaced",
    "U*": "kept, UIDs in it replaced",
    "C": "kept, cleaned",
    "moved": "moved by the patient's days",
    "unknown": "removed: unknown attribute",
    "unreadable": "removed: unreadable",
    "safe private": "kept: safe private",
}


def _file(outcome: Outcome) -> dict[str, Any]:
    said: dict[str, Any] = {"number": outcome.number, "state": outcome.state}
    if outcome.state != "written":
        return {**said, "reason": outcome.reason, "risks": outcome.risks}
    return {
        **said,
        "output": outcome.output,
        "sha256": outcome.digest,
        "pixels": outcome.pixels,
        "risks": outcome.risks,
        "flags": outcome.flags,
        "kind": outcome.kind,
    }


def export(
    openers: Iterable[Opener],
    out: Path,
    profile: Profile,
    key: bytes,
    project: str,
    policy: Policy,
    progress: Callable[[int, int], None] | None = None,
) -> Export:
    """De-identified copies of all objects under `out`, and the report beside them as JSON and text. One object is held
    at a time, its pixels in pieces. Raises: OSError (the output cannot be written)."""
    out.mkdir(parents=True, exist_ok=True)
    done = Export(profile, project, policy)
    keyed, written = Project(key), dict[str, str]()
    for number, opener in enumerate(openers, 1):
        done.add(copy(number, opener, out, profile, keyed, policy, written))
        if progress is not None:
            progress(number, number)
    (out / REPORT).write_text(json.dumps(done.plain(), indent=1) + "\n", encoding="utf-8")
    (out / REPORT_TEXT).write_text(done.text(), encoding="utf-8")
    return done


def files_of(path: Path) -> Iterator[Path]:
    """A file, or every file below a folder, in order of their paths; hidden ones and links are left alone."""
    if path.is_file():
        yield path
        return
    for each in sorted(path.iterdir()):
        if each.name.startswith(".") or each.is_symlink():
            continue
        if each.is_dir():
            yield from files_of(each)
        elif each.is_file():
            yield each
