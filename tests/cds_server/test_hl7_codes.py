"""Codes that nobody has mapped: counted, and what they might be is proposed, never taken."""

from __future__ import annotations

import csv
import io

from adapters.hl7v2.feed import Feed
from adapters.readers.hl7v2 import MESSAGE
from adapters.terminology.concept_maps import ConceptMaps
from cds_server.backlog import digest_backlog
from cds_server.hl7_codes import unmapped
from cds_server.reading import Rules
from cds_server.store.store import Store
from tests.cds_server.stores import ACTOR, JOINING, land_parts

HEADER = b"source_system,source_code,target_system,target_code\n"


def oru(number: int, *results: tuple[str, str, str]) -> bytes:
    lines = [
        f"MSH|^~\\&|LAB|H|CDS|H|20261121120000+0000||ORU^R01|{number}|P|2.5.1",
        "PID|1||77^^^H^MR||WARD^WILLA||19500301|F",
        f"OBR|1||F{number}|PANEL^Panel^L|||20261121110000+0000||||||||||||||||||LAB|F",
    ]
    for place, (code, title, system) in enumerate(results, 1):
        lines.append(f"OBX|{place}|NM|{code}^{title}^{system}||12|/min|||||F|||20261121110000+0000")
    return "\r".join(lines).encode()


def learn(store: Store, *messages: bytes, maps: bytes = HEADER) -> None:
    for message in messages:
        land_parts(store, [message], namespace="ward", media_type=MESSAGE)
    rules = {"test": Rules(Feed("ward", maps=ConceptMaps([("own.csv", maps)])), "")}
    digest_backlog(store, JOINING, ACTOR, validate=False, rules=rules)


def test_the_most_frequent_comes_first_and_shared_codes_not_at_all(store: Store) -> None:
    resp, pulse = ("RESP", "Respiratory rate", "L"), ("8867-4", "Pulse", "LN")
    learn(store, oru(1, resp, ("XX", "Local thing", "L"), pulse), oru(2, resp))
    found = unmapped(store)
    assert [(each.code, each.title, each.count) for each in found] == [
        ("RESP", "Respiratory rate", 2),
        ("XX", "Local thing", 1),
    ]
    assert unmapped(store, "another") == []


def test_a_proposal_is_printed_as_what_a_map_passes_over(store: Store) -> None:
    learn(store, oru(1, ("RESP", "Respiration rate", "L"), ("XX", "Quite another thing", "L")))
    by_code = {each.code: each for each in unmapped(store, propose=True)}
    first = by_code["RESP"].proposals[0]
    assert (first.system, first.code) == ("http://loinc.org", "9279-1")
    assert by_code["XX"].proposals == ()
    row = [by_code["RESP"].system, "RESP", first.system, first.code, first.title, "inexact"]
    written = io.StringIO()
    csv.writer(written).writerows([[*HEADER.decode().strip().split(","), "target_display", "equivalence"], row])
    assert len(ConceptMaps([("proposed.csv", written.getvalue().encode())])) == 0


def test_what_a_map_covers_is_no_longer_listed(store: Store) -> None:
    local = ("RESP", "Respiration rate", "L")
    learn(store, oru(1, local))
    (before,) = unmapped(store)
    mapped = HEADER + f"{before.system},RESP,http://loinc.org,9279-1\n".encode()
    learn(store, oru(1, local).replace(b"|1|P|", b"|2|P|").replace(b"120000", b"130000"), maps=mapped)
    assert unmapped(store) == []
