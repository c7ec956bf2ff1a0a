"""`cds dicom deid`"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from cds_server.commands.opening import actor_of, common, emit, progress, settings_of, store_of
from models.errors import Misconfigured, NotAllowed

if TYPE_CHECKING:
    from adapters.dicom.deidentify.copy import Opener
    from adapters.dicom.deidentify.export import Export
    from cds_server.settings import Settings
    from cds_server.store.store import Store
    from cds_server.store.writer import Tx

HELP = "de-identified copies of objects, by PS3.15 Annex E, with a report of what was done"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="IN", nargs="?", help="a file, or a folder with all below it")
    parser.add_argument("target", metavar="OUT", help="a new folder: SERIES/OBJECT.dcm by keyed UIDs, and the report")
    parser.add_argument("--study", metavar="UID", help="instead of IN: the objects of a study that is held here")
    parser.add_argument("--namespace", metavar="NAME", help="of --study, where several hold one of that UID")
    parser.add_argument("--profile", required=True, metavar="NAME", help="basic, research, model, site")
    parser.add_argument(
        "--project",
        default="default",
        metavar="NAME",
        help="whose key makes UIDs, pseudonyms and shifts: the same in one project, unlinkable between two (default)",
    )
    parser.add_argument("--option", action="append", default=[], metavar="NAME", help="one more option of PS3.15 E.3")
    parser.add_argument(
        "--times",
        choices=("keep", "coarse"),
        default="keep",
        help="where dates are retained: times as they are, or hours",
    )
    parser.add_argument(
        "--pixels",
        choices=("refuse", "blank"),
        default="refuse",
        help="images of kinds that show text: refuse them, or blank it where a rule knows its place",
    )
    parser.add_argument(
        "--inspected",
        action="append",
        default=[],
        metavar="RISK",
        help="let images with this risk through as they are: you looked at them, and the log says so",
    )
    parser.add_argument("--refuse-faces", action="store_true", help="refuse slices of heads, too")
    common(parser)


def run(args: argparse.Namespace) -> int:
    from adapters.dicom.deidentify.copy import Policy
    from adapters.dicom.deidentify.export import REPORT, REPORT_TEXT, export, files_of
    from adapters.dicom.deidentify.profile import profile
    from adapters.dicom.deidentify.risks import NEVER, RISKS
    from cds_server.keys import NAME

    target = Path(args.target)
    chosen = profile(args.profile, args.option, coarse=args.times == "coarse")
    if unknown := set(args.inspected) - (set(RISKS) - NEVER):
        able = ", ".join(sorted(set(RISKS) - NEVER))
        raise Misconfigured(
            f"{len(unknown)} risks are none that can be inspected; there are {able}", where="--inspected"
        )
    if not NAME.fullmatch(args.project):
        raise Misconfigured("a project's name is 1 to 64 letters, digits, - and _", where="--project")
    if (args.source is None) == (args.study is None):
        raise Misconfigured("name either IN or --study", where="IN")
    if args.namespace is not None and args.study is None:
        raise Misconfigured("it goes with --study", where="--namespace")
    if target.exists() and not target.is_dir():
        raise Misconfigured("it is not a folder", where="OUT")
    if args.source is not None:
        _apart(Path(args.source), target)
    if target.is_dir() and any(target.iterdir()):
        raise Misconfigured("it is not empty: what another export left there would go along", where="OUT")
    settings = settings_of(args)
    actor = actor_of(args, settings)
    policy = Policy(args.pixels == "blank", frozenset(args.inspected), args.refuse_faces)
    with store_of(settings) as store:
        key = store.vault.keys.secret(f"deidentify {args.project}")
        openers: Sequence[Opener]
        if args.study is not None:
            openers = _held(args, settings, store)
        else:
            openers = [partial(_file, path) for path in files_of(Path(args.source))]
        with progress("objects") as bar:
            report = None if bar is None else lambda done, _: bar(done, len(openers))
            done = export(openers, target, chosen, key, args.project, policy, report)
        written = hashlib.sha256((target / REPORT).read_bytes()).hexdigest()

        def act(tx: Tx) -> int:
            return tx.entry("deidentify", actor, _entry(done, written)).seq

        seq = store.writer.submit(act).result()
    shown = done.plain() | {"entry": seq, "report": str(target / REPORT)}
    shown.pop("files")
    shown.pop("kinds")
    emit(args, shown, f"{done.text()}\n{target / REPORT_TEXT}, {REPORT}; entry {seq}")
    counts = done.counts
    if missing := counts["refused"] + counts["unreadable"]:
        print(f"cds dicom: {missing} of {len(done.outcomes)} objects were not written", file=sys.stderr)
    return done.exit_code


def _file(path: Path) -> BinaryIO:
    return path.open("rb")


def _apart(source: Path, target: Path) -> None:
    """Errors: Misconfigured, where what is written would be read again."""
    if not source.exists():
        raise Misconfigured("there is no such file or folder", where="IN")
    inner, outer = target.resolve(), source.resolve()
    if inner.is_relative_to(outer) or (source.is_dir() and outer.is_relative_to(inner)):
        raise Misconfigured("one of the two folders is inside the other", where="OUT")


def _held(args: argparse.Namespace, settings: Settings, store: Store) -> Sequence[Opener]:
    """The objects of a study, once it is on record who takes them. Errors: NotFound; NotAllowed, where the patient
    opted out of anything: what leaves the house is no treatment of theirs."""
    from cds_server.access.allowed import Allowed
    from cds_server.commands.access import looked
    from cds_server.imaging.held import study

    found = study(store, args.study, args.namespace)
    looked(args, settings, store, "study, de-identified", *(each.ref for each in found.records), act="export")
    allowed = Allowed(store, settings)
    if any(allowed.opted_out(store.reads.person(each.id)) for each in found.records):
        raise NotAllowed("this patient has opted out of having their data used", where="--study")
    return found.openers


def _entry(done: Export, report: str) -> dict[str, Any]:
    """What the log keeps of an export: who is the entry's own."""
    plain = done.plain()
    return {
        "project": done.project,
        "profile": done.profile.name,
        "options": plain["options"],
        "standard": plain["standard"],
        "pixels": plain["pixels"],
        "inspected": plain["inspected"],
        "counts": plain["counts"],
        "patients": plain["patients"],
        "risk": plain["risk"]["level"],
        "outputs": plain["outputs_digest"],
        "report": report,
    }
