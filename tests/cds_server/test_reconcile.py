"""What a full export lacks is closed; what is not its to say is not, and never much at once."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

from cds_server.backlog import digest_backlog
from cds_server.decisions import now
from cds_server.digest import Tally
from cds_server.intake import StoreIntake
from cds_server.reconcile import CAUSE, FEW, Reconciled, reconcile
from cds_server.store.reads import LandingRow
from cds_server.store.store import Store
from models.nouns import LandingMeta
from tests.cds_server.stores import ACTOR, JOINING, SSN, flags, patient, person, weight, weights

LINE = "application/fhir+ndjson"
ONE = (SSN, "111-22-3333")
NORTH, SOUTH = "north", "south"


def came(store: Store, *resources: Mapping[str, Any], source: str = NORTH) -> LandingRow:
    """A delivery of a source into namespace a, digested."""

    async def run() -> str:
        staged = StoreIntake(store, ACTOR).stage(LandingMeta(source, "a", LINE, now(), {}))
        for resource in resources:
            await staged.write(json.dumps(resource).encode())
            await staged.end_part()
        return (await staged.commit()).landing

    ref = asyncio.run(run())
    digested: Tally = digest_backlog(store, JOINING, ACTOR)
    assert digested.quarantined == 0
    row = store.reads.one("SELECT id FROM landing WHERE ref = ?", (ref,))
    assert row is not None
    landing = store.reads.landing(row[0])
    assert landing is not None
    return landing


def compared(store: Store, *landings: LandingRow, before: str, **more: Any) -> Reconciled:
    given: dict[str, Any] = {"types": (), "filtered": frozenset(), "members_only": False, "most": 10, **more}
    return reconcile(store, NORTH, landings, before=before, joining=JOINING, actor=ACTOR, **given)


def held(store: Store) -> dict[str, int]:
    rows = store.reads.query(
        "SELECT r.type, COUNT(*) FROM resource r LEFT JOIN resource_closing c ON c.resource_id = r.id "
        "WHERE c.id IS NULL GROUP BY r.type"
    )
    return {row[0]: int(row[1]) for row in rows}


def causes(store: Store) -> list[str]:
    return [row[0] for row in store.reads.query("SELECT cause FROM resource_closing ORDER BY id")]


def test_what_the_export_lacks_is_closed_and_was_known_until_then(store: Store) -> None:
    came(store, patient("1"), weight("w1", "1", 60), weight("w2", "1", 61))
    before = now()
    landing = came(store, patient("1"), weight("w1", "1", 60))
    assert compared(store, landing, before=before) == Reconciled(closed=1)
    assert weights(store, "a", "1") == ["60 kg"]
    assert weights(store, "a", "1", at=before) == ["60 kg", "61 kg"]
    assert causes(store) == [CAUSE]


def test_a_second_comparison_closes_nothing_more(store: Store) -> None:
    came(store, patient("1"), weight("w1", "1", 60))
    before = now()
    landing = came(store, patient("1"))
    assert compared(store, landing, before=before).closed == 1
    assert compared(store, landing, before=before) == Reconciled()
    assert causes(store) == [CAUSE]


def test_the_first_export_of_all_closes_nothing(store: Store) -> None:
    came(store, weight("w1", "1", 60), source=SOUTH)
    before = now()
    landing = came(store, patient("1"))
    assert compared(store, landing, before=before) == Reconciled()
    assert weights(store, "a", "1") == ["60 kg"]


def test_all_files_of_the_export_count_together(store: Store) -> None:
    came(store, patient("1"), weight("w1", "1", 60), weight("w2", "1", 61))
    before = now()
    patients, one, other = came(store, patient("1")), came(store, weight("w1", "1", 60)), came(store)
    assert compared(store, patients, one, other, before=before).closed == 1
    assert weights(store, "a", "1") == ["60 kg"]


def test_what_another_source_said_stays(store: Store) -> None:
    came(store, patient("1"), weight("w1", "1", 60))
    came(store, weight("w2", "1", 61), source=SOUTH)
    before = now()
    landing = came(store, patient("1"))
    assert compared(store, landing, before=before).closed == 1
    assert weights(store, "a", "1") == ["61 kg"]


def test_what_another_source_said_last_stays(store: Store) -> None:
    """Both know the resource; the version that is open is the other one's."""
    came(store, patient("1"), weight("w1", "1", 60))
    came(store, weight("w1", "1", 62), source=SOUTH)
    before = now()
    landing = came(store, patient("1"))
    assert compared(store, landing, before=before).closed == 0
    assert weights(store, "a", "1") == ["62 kg"]


def test_what_came_after_the_kick_off_stays(store: Store) -> None:
    came(store, patient("1"))
    before = now()
    came(store, weight("late", "1", 60))
    landing = came(store, patient("1"))
    assert compared(store, landing, before=before).closed == 0
    assert weights(store, "a", "1") == ["60 kg"]


def test_types_that_were_not_asked_for_or_only_in_part_stay(store: Store) -> None:
    condition = {"resourceType": "Condition", "id": "c1", "subject": {"reference": "Patient/1"}}
    came(store, patient("1"), weight("w1", "1", 60), condition)
    before = now()
    landing = came(store, patient("1"))
    assert compared(store, landing, before=before, types=("Patient",)).closed == 0
    some = ("Patient", "Observation")
    assert compared(store, landing, before=before, types=some, filtered=frozenset({"Observation"})).closed == 0
    assert compared(store, landing, before=before, types=some).closed == 1
    assert held(store) == {"Condition": 1, "Patient": 1}


def test_who_left_the_group_is_not_deleted(store: Store) -> None:
    came(store, *(patient(name) for name in "12"), weight("w1", "1", 60), weight("w2", "2", 70))
    before = now()
    landing = came(store, patient("1"))
    assert compared(store, landing, before=before, members_only=True) == Reconciled(closed=1)
    assert weights(store, "a", "1") == []
    assert weights(store, "a", "2") == ["70 kg"]
    assert held(store) == {"Observation": 1, "Patient": 2}


def test_of_a_whole_server_a_patient_who_is_gone_is_closed(store: Store) -> None:
    came(store, *(patient(name) for name in "12"), weight("w2", "2", 70))
    before = now()
    landing = came(store, patient("1"))
    assert compared(store, landing, before=before) == Reconciled(closed=2)
    assert held(store) == {"Patient": 1}


def test_the_links_of_a_patient_who_is_gone_are_withdrawn(store: Store) -> None:
    came(store, patient("1", ONE), patient("2", ONE))
    assert person(store, "a", "1") == {"a/1", "a/2"}
    before = now()
    landing = came(store, patient("1", ONE))
    assert compared(store, landing, before=before).closed == 1
    assert person(store, "a", "1") == {"a/1"}
    assert person(store, "a", "2") == {"a/2"}
    assert person(store, "a", "1", at=before) == {"a/1", "a/2"}
    came(store, patient("2", ONE))  # and it may come back
    assert person(store, "a", "1") == {"a/1", "a/2"}
    assert flags(store) == []


def test_much_at_once_is_held_back_type_by_type(store: Store) -> None:
    count = FEW + 1
    many = [weight(f"w{n}", "1", 60) for n in range(count)]
    came(store, patient("1"), patient("2"), *many)
    before = now()
    landing = came(store, patient("1"))
    assert compared(store, landing, before=before) == Reconciled(closed=1, held_back={"Observation": count})
    assert held(store) == {"Observation": count, "Patient": 1}
    assert compared(store, landing, before=before, most=100) == Reconciled(closed=count)
    assert held(store) == {"Patient": 1}


def test_few_are_closed_whatever_part_they_are(store: Store) -> None:
    came(store, patient("1"), *(weight(f"w{n}", "1", 60) for n in range(FEW)))
    before = now()
    landing = came(store, patient("1"))
    assert compared(store, landing, before=before, most=0) == Reconciled(closed=FEW)


def test_a_part_of_many_is_closed_in_several_acts(store: Store) -> None:
    """More than one act holds, fewer than the bound."""
    many = [weight(f"w{n}", "1", 60) for n in range(250)]
    came(store, patient("1"), *many)
    before = now()
    landing = came(store, patient("1"), *many[:130])
    assert compared(store, landing, before=before, most=50) == Reconciled(closed=120)
    assert held(store) == {"Observation": 130, "Patient": 1}
    entries = [json.loads(entry.body) for entry in store.reads.entries()]
    assert [entry["detail"]["closed"] for entry in entries if entry["kind"] == "reconcile"] == [100, 20]
