"""`cds patient`"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from cds_server.commands.opening import common, emit, existing, record_of, settings_of, store_of, table
from models.errors import Misconfigured
from models.nouns import Fact

if TYPE_CHECKING:
    from cds_server.store.store import Store

NAME = "patient"
HELP = "what is known about a person, and from where"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("id", metavar="ID", help="NAMESPACE/ID, system|value, or a person uuid")
    parser.add_argument(
        "--as-of", metavar="T", help="what was known at this instant (RFC 3339, or a date: its end in UTC)"
    )
    parser.add_argument("--disclosures", action="store_true", help="instead: to whom outside data of this person went")
    common(parser)


def run(args: argparse.Namespace) -> int:
    from cds_server.commands.access import disclosed, looked
    from cds_server.store.reads import FOREVER

    settings = settings_of(args)
    existing(settings)
    at = as_of(args.as_of) if args.as_of else FOREVER
    with store_of(settings) as store:
        record = record_of(store, args.id)
        if args.disclosures:
            looked(args, settings, store, "disclosures", record.ref)
            return disclosed(args, store, settings, record)
        looked(args, settings, store, "patient", record.ref)
        ids = store.reads.person(record.id, at)
        records = store.reads.records(ids)
        names = {r.ref: f"{r.namespace}/{store.reads.local_id(r)}" for r in records}
        facts = sorted(
            store.reads.stored_facts(ids, at), key=lambda stored: (stored.fact.effective or "", stored.fact.id)
        )
        places = _places(store, (stored.fact for stored in facts))
    result = {
        "person": records[0].ref,
        "as_of": None if at == FOREVER else at,
        "records": list(names.values()),
        "facts": [{**stored.fact.plain(), "valid": stored.valid, "file": places[stored.fact.id]} for stored in facts],
    }
    rows = [_row(stored.fact, stored.valid, places) for stored in facts]
    head = f"person {records[0].ref}\nrecords {', '.join(names.values())}\n{len(facts)} facts" + (
        "" if at == FOREVER else f" as known at {at}"
    )
    emit(
        args,
        result,
        f"{head}\n\n" + table(["effective", "what", "value", "status", "from", "known from", "R4"], rows)
        if rows
        else head,
    )
    return 0


def as_of(text: str, option: str = "--as-of", *, end: bool = True) -> str:
    """An instant from RFC 3339 text or a date (its end in UTC, or its begin). Raises Misconfigured."""
    from datetime import UTC, datetime

    from models.nouns import instant

    try:
        if re.fullmatch(r"\d{4}-\d\d-\d\d", text):
            text += "T23:59:59.999999+00:00" if end else "T00:00:00+00:00"
        moment = datetime.fromisoformat(text)
        return instant(moment if moment.tzinfo else moment.replace(tzinfo=UTC))
    except ValueError:
        raise Misconfigured(f"{option} is neither an RFC 3339 instant nor a date") from None


def _places(store: Store, facts: Iterable[Fact]) -> dict[str, str | None]:
    """The file and line of each fact, where it came in a file."""
    from cds_server.origins import place_of

    manifests: dict[str, bytes] = {}
    found: dict[str, str | None] = {}
    for fact in facts:
        ref = fact.source.landing
        if ref not in manifests:
            landing = store.reads.landing_by_ref(ref)
            manifests[ref] = store.manifest(landing) if landing is not None else b"{}"
        found[fact.id] = place_of(manifests[ref], fact.source.part)
    return found


def _row(fact: Fact, valid: bool | None, places: dict[str, str | None]) -> list[str]:
    what = fact.code.display or fact.code.code
    return [
        (fact.effective or "")[:10],
        what[:48],
        _value(fact)[:40],
        fact.status or "",
        f"{fact.source.resource} ({fact.source.landing[:8]}:{fact.source.part}{fact.source.pointer})"
        + (f" {place}" if (place := places[fact.id]) else ""),
        fact.known_from[:19],
        {True: "valid", False: "INVALID", None: "-"}[None if valid is None else bool(valid)],
    ]


def _value(fact: Fact) -> str:
    if fact.problem:
        return f"unusable: {fact.problem}"
    if fact.number is not None:
        return f"{fact.comparator or ''}{fact.number} {fact.unit or ''}".strip()
    if fact.coded:
        return fact.coded[0].display or fact.coded[0].code
    return fact.text or (f"absent: {fact.absent_reason}" if fact.absent_reason else "")
