"""What commands say to the access log, and what `cds ledger` and `cds patient` show of it."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cds_server.commands.opening import actor_of, emit, store_of, table
from cds_server.commands.patient import as_of

if TYPE_CHECKING:
    from cds_server.access.happenings import Span
    from cds_server.access.report import Reader
    from cds_server.settings import Settings
    from cds_server.store.reads import RecordRow
    from cds_server.store.store import Store


def looked(
    args: argparse.Namespace,
    settings: Settings,
    store: Store,
    what: str,
    *records: str,
    act: str = "command",
    flag: str = "",
) -> None:
    """That the user of this machine looks at these patients is on record before anything is shown. Errors: NotFound."""
    from cds_server.access.log import MOST_RECORDS, OPERATIONS, Access, Look, by_command

    viewer, access = by_command(actor_of(args, settings)), Access(store, settings)
    for start in range(0, max(1, len(records)), MOST_RECORDS):
        some = records[start : start + MOST_RECORDS]
        one = some[0] if len(some) == 1 else None
        others = () if one else some
        detail: dict[str, int | str] = {"what": what, "patients": len(records), **({"flag": flag} if flag else {})}
        access.look_now(Look(viewer, act, one, OPERATIONS, detail, others))


def spanned(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--since", metavar="T", help="from this instant on (RFC 3339, or a date)")
    parser.add_argument("--until", metavar="T", help="up to this instant, or to the end of this date in UTC")


def span_of(args: argparse.Namespace) -> Span:
    from cds_server.access.happenings import Span
    from cds_server.store.reads import FOREVER

    since = f"{args.since}T00:00:00Z" if args.since and len(args.since) == len("2026-01-01") else args.since
    return Span(as_of(since) if since else "", as_of(args.until) if args.until else FOREVER)


def export_fhir(args: argparse.Namespace, settings: Settings) -> int:
    from cds_server.access.export import export

    with store_of(settings) as store:
        looked(args, settings, store, "access log as FHIR", act="export")
        counts = export(store, settings, Path(args.out), span_of(args), pseudonyms=args.pseudonymous)
    told = ", ".join(f"{number} {kind}" for kind, number in counts.items())
    emit(args, dict(counts), f"{told} written to {args.out}")
    return 0


def reviewed(args: argparse.Namespace, settings: Settings) -> int:
    from cds_server.access.allowed import Allowed
    from cds_server.access.report import review

    with store_of(settings) as store:
        looked(args, settings, store, "reviewer's report", act="report")
        found = review(store, settings.access, span_of(args), Allowed(store, settings))
    head = (
        f"{found.looks} looks at {found.patients} patients by {found.people} viewers; {found.refused} refused, "
        f"{found.after_hours} after hours ({found.hours}), glass broken {len(found.broken)} times"
    )
    told = [head, *_readers("most patients", found.readers), *_readers("after hours", found.late, "after_hours")]
    told += _readers("refused", found.denied, "refused")
    if found.broken:
        rows = [
            [
                each.at[:19],
                each.name,
                each.patient[:12],
                str(each.looks),
                "waits" if each.open else "reviewed",
                each.reason,
            ]
            for each in found.broken
        ]
        told += ["", "broken glass", table(["at", "who", "patient", "looks", "review", "why"], rows)]
    emit(args, found.plain(), "\n".join(told))
    return 0


def _readers(title: str, readers: list[Reader], by: str = "") -> list[str]:
    if not readers:
        return []
    rows: list[list[Any]] = [
        [each.name, each.through, each.roles or "-", str(each.patients), str(each.looks), str(each.restricted)]
        + ([str(getattr(each, by))] if by else [])
        for each in readers
    ]
    header = ["who", "through", "roles", "patients", "looks", "restricted", *([title] if by else [])]
    return ["", title, table(header, rows)]


def disclosed(args: argparse.Namespace, store: Store, settings: Settings, record: RecordRow) -> int:
    """`cds patient ID --disclosures`"""
    from cds_server.access.happenings import Span
    from cds_server.access.report import disclosures

    ids = list(store.reads.person(record.id))
    until = as_of(args.as_of) if args.as_of else Span().until
    found = disclosures(store, record, ids, Span(until=until))
    plain = [{"at": d.at, "seq": d.seq, "to": d.to, "what": d.what, "purpose": d.purpose} for d in found]
    rows = [[d.at[:19], d.to, d.what, d.purpose, str(d.seq)] for d in found]
    text = table(["at", "to", "what", "purpose", "entry"], rows) if rows else "nothing of this person went outside"
    emit(args, {"person": record.ref, "disclosures": plain}, text)
    return 0
