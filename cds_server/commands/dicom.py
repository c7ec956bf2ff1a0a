"""`cds dicom`"""

from __future__ import annotations

import argparse
import re
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from cds_server.commands import dicom_deid, dicom_pictures
from cds_server.commands.opening import common, emit, settings_of
from models.errors import Misconfigured

if TYPE_CHECKING:
    from cds_server.dicom_sources import DicomSource
    from cds_server.settings import Settings

NAME = "dicom"
HELP = "archives by hand: who is configured, whether they answer, and what they have (patient data masked)"
_LEVELS = ("patient", "study", "series", "image")
_HIDDEN = ("PatientName", "PatientBirthDate", "PatientID", "OtherPatientIDs")
_MASK = "***"
_SHOWN = {
    "patient": ("PatientID", "PatientName", "PatientBirthDate", "PatientSex"),
    "study": (
        *("StudyDate", "ModalitiesInStudy", "StudyDescription", "AccessionNumber", "PatientID", "PatientName"),
        *("NumberOfStudyRelatedInstances", "StudyInstanceUID"),
    ),
    "series": (
        *("SeriesNumber", "Modality", "SeriesDescription", "BodyPartExamined"),
        *("NumberOfSeriesRelatedInstances", "SeriesInstanceUID"),
    ),
    "image": ("InstanceNumber", "SOPClassUID", "SOPInstanceUID"),
}
_TITLES = {
    "StudyDate": "date",
    "ModalitiesInStudy": "modalities",
    "StudyDescription": "description",
    "AccessionNumber": "accession",
    "PatientID": "patient",
    "PatientName": "name",
    "PatientBirthDate": "born",
    "PatientSex": "sex",
    "NumberOfStudyRelatedInstances": "images",
    "StudyInstanceUID": "study",
    "SeriesNumber": "no.",
    "Modality": "modality",
    "SeriesDescription": "description",
    "BodyPartExamined": "body part",
    "NumberOfSeriesRelatedInstances": "images",
    "SeriesInstanceUID": "series",
    "InstanceNumber": "no.",
    "SOPClassUID": "class",
    "SOPInstanceUID": "instance",
}
_UIDS = ("study", "series", "instance")
_DAY = re.compile(r"(\d{4})-?(\d{2})-?(\d{2})")


def arguments(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)

    peers = verbs.add_parser("peers", help="the archives that are configured, and how each is asked")
    common(peers)

    echo = verbs.add_parser("echo", help="C-ECHO: whether an archive answers, or what is in the way")
    echo.add_argument("names", nargs="*", metavar="NAME", help="[[source]] of kind dicom (default: all)")
    common(echo)

    find = verbs.add_parser("find", help="C-FIND: what an archive has")
    find.add_argument("name", metavar="NAME", help="the [[source]] of kind dicom")
    find.add_argument("--level", choices=_LEVELS, default="study")
    find.add_argument("--patient", metavar="ID")
    find.add_argument("--study", metavar="UID")
    find.add_argument("--series", metavar="UID")
    find.add_argument("--image", metavar="UID")
    find.add_argument("--accession", metavar="N")
    find.add_argument("--person", metavar="NAME", help="family^given; * and ? stand for others")
    find.add_argument("--date", metavar="DATES", help="a day, or from-to (20260101-20260131, 20260101-)")
    find.add_argument("--modality", metavar="CODE")
    find.add_argument("--limit", type=_counting, default=100, metavar="N", help="answers at most (100)")
    find.add_argument("--unmask", action="store_true", help="show patient data too")
    common(find)

    deid = verbs.add_parser("deid", help=dicom_deid.HELP, description=dicom_deid.HELP)
    dicom_deid.arguments(deid)

    pictures = verbs.add_parser("pictures", help=dicom_pictures.HELP, description=dicom_pictures.HELP)
    dicom_pictures.arguments(pictures)


def _counting(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) <= 1_000_000:
        raise argparse.ArgumentTypeError("not a number from 1 to 1000000")
    return int(text)


def day(text: str) -> str:
    """YYYYMMDD of `2026-01-31` or `20260131`, for an argument."""
    found = _DAY.fullmatch(text)
    if found is None:
        raise argparse.ArgumentTypeError("not a day as 2026-01-31")
    return "".join(found.groups())


def run(args: argparse.Namespace) -> int:
    return {"peers": _peers, "echo": _echo, "find": _find, "deid": dicom_deid.run, "pictures": dicom_pictures.run}[
        args.verb
    ](args)


def _configured(settings: Settings) -> dict[str, DicomSource]:
    from cds_server.dicom_sources import dicom_sources

    return dicom_sources(settings)


def _named(settings: Settings, name: str) -> DicomSource:
    found = _configured(settings)
    if name not in found:
        known = ", ".join(found) or "none"
        raise Misconfigured(f"there is no [[source]] of kind 'dicom' by that name in {settings.origin}: {known}")
    if found[name].web is not None:
        raise Misconfigured(
            f"{name} is asked over HTTP: cds pull {name} --dry-run says whether it answers, and what it has"
        )
    return found[name]


def _peers(args: argparse.Namespace) -> int:
    from adapters.dicom.peers import Retrieve

    found = _configured(settings_of(args))
    plain, rows = [], []
    for name, source in found.items():
        peer = source.peer
        windows = [f"{each.begins:%H:%M}-{each.ends:%H:%M}" for each in peer.windows]
        said = {
            "name": name,
            "address": source.web.url if source.web else f"{peer.host}:{peer.port}",
            "ae_title": None if source.web else peer.ae_title,
            "our_ae_title": None if source.web else peer.our_ae_title,
            "root": str(peer.root),
            "retrieve": "DICOMweb" if source.web else str(peer.retrieve),
            "moves": str(peer.moves) if peer.retrieve is Retrieve.MOVE else None,
            "destination": peer.destination or None,
            "stored_as": source.stored_as,
            "tls": source.web.url.startswith("https:") if source.web else peer.tls is not None,
            "windows": windows,
            "quirks": {key: value for key, value in asdict(peer.quirks).items() if key != "sources"},
        }
        plain.append(said)
        how = f"{peer.retrieve}, {peer.moves}" if peer.retrieve is Retrieve.MOVE else str(said["retrieve"])
        shown = [str(said[key] or "-") for key in ("address", "ae_title", "our_ae_title", "root")]
        over = "TLS" if said["tls"] else "plain"
        rows.append([name, *shown, how, peer.destination or "-", over, " ".join(windows) or "always"])
    header = ["name", "address", "AE title", "ours", "root", "retrieval", "sends to", "over", "hours"]
    _show(args, plain, header, rows, "no archive is configured: write a [[source]] of kind 'dicom'")
    return 0


def _echo(args: argparse.Namespace) -> int:
    from adapters.dicom.association import echo

    settings = settings_of(args)
    names = args.names or [name for name, each in _configured(settings).items() if each.web is None]
    answers = [echo(_named(settings, name).peer) for name in names]
    plain = [
        {
            "name": each.peer,
            "fine": each.fine,
            "status": each.status,
            "cause": each.cause.name.lower() if each.cause else None,
            "told": each.told,
            "seconds": round(each.seconds, 3),
        }
        for each in answers
    ]
    rows = [[each.peer, "yes" if each.fine else "NO", f"{each.seconds * 1000:.0f} ms", each.told] for each in answers]
    _show(args, plain, ["name", "answers", "after", ""], rows, "no archive is configured")
    return 0 if all(each.fine for each in answers) and answers else 3


def _find(args: argparse.Namespace) -> int:
    from adapters.dicom.finding import Ended, find
    from adapters.dicom.peers import Level
    from adapters.dicom.query import Query

    source = _named(settings_of(args), args.name)
    given = {
        "PatientID": args.patient,
        "StudyInstanceUID": args.study,
        "SeriesInstanceUID": args.series,
        "SOPInstanceUID": args.image,
        "AccessionNumber": args.accession,
        "PatientName": args.person,
        "StudyDate": args.date.replace(" ", "") if args.date else None,
        ("ModalitiesInStudy" if args.level == "study" else "Modality"): args.modality,
    }
    keys: dict[str, str | tuple[str, ...]] = {key: value for key, value in given.items() if value}
    found = find(source.peer, Query(Level(args.level.upper()), keys), most=args.limit)
    shown = [_masked(each.plain(), unmask=args.unmask) for each in found.matches]
    columns = _SHOWN[args.level]
    rows = [[_cell(each.get(key, "")) for key in columns] for each in shown]
    _show(args, shown, [_TITLES[key] for key in columns], rows, "it has nothing of that kind")
    if found.ended is Ended.CUT:
        print(f"cds dicom: there are more than {len(found.matches)}; --limit takes more", file=sys.stderr)
    elif found.ended is not Ended.DONE:
        status = f", status {found.status:04X}" if found.status else ""
        print(f"cds dicom: the answer is not whole: {found.ended}{status}", file=sys.stderr)
        return 3
    for flaw in found.flaws[:5]:
        print(f"cds dicom: {flaw}", file=sys.stderr)
    if found.undecodable:
        print(f"cds dicom: {found.undecodable} answers cannot be read", file=sys.stderr)
        return 3
    return 0


def _masked(match: dict[str, Any], *, unmask: bool) -> dict[str, Any]:
    if unmask:
        return match
    return {key: _MASK if key in _HIDDEN and value else value for key, value in match.items()}


def _cell(value: Any) -> str:
    return ", ".join(value) if isinstance(value, list) else str(value)


def _show(args: argparse.Namespace, plain: Any, header: list[str], rows: list[list[str]], empty: str) -> None:
    """A table that fits the terminal; at its full width elsewhere, for other programs."""
    if getattr(args, "json", False) or not rows:
        emit(args, plain, empty)
        return
    if not sys.stdout.isatty():
        from cds_server.commands.opening import table

        emit(args, plain, table(header, rows))
        return
    _draw(header, rows)


def _draw(header: list[str], rows: list[list[str]]) -> None:
    """A UID that has no room in its row stands below the table, in one piece: it is there to be copied."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    below: list[str] = []
    wide = sum(max(map(len, column)) + 2 for column in zip(header, *rows, strict=True))
    if wide > console.width and header[-1] in _UIDS:
        below = [row[-1] for row in rows]
        header = ["", *header[:-1]]
        rows = [[str(number), *row[:-1]] for number, row in enumerate(rows, 1)]
    shown = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    for title in header:
        shown.add_column(title, overflow="fold")
    for row in rows:
        shown.add_row(*(Text(each) for each in row))
    console.print(shown)
    if below:
        console.print()
    for number, each in enumerate(below, 1):
        console.print(Text(f"{number:>{len(str(len(below)))}}  {each}"), soft_wrap=True)
