"""Which inferences stand behind a case, and what each of them said: rows of the record, opened."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from cds_server.recalls import CORRECTED, RECALL
from cds_server.store.store import Store
from cds_server.what_if import WHAT_IF
from models.errors import NotFound

MOST = 60
"""Inferences that are looked at for the list of a page."""
_OF = "SELECT id, ref, call_id, service, model, abstained, at FROM inference WHERE record_id = ? "


@dataclass(frozen=True, slots=True)
class Row:
    """One inference, unopened."""

    id: int
    ref: str
    call: int
    service: str
    model: str
    abstained: bool
    at: str

    @property
    def name(self) -> str:
        """Of the model, without its version."""
        return self.model.partition("@")[0]

    @property
    def hypothetical(self) -> bool:
        return self.service.startswith(WHAT_IF)


def rows_of(store: Store, records: Collection[int]) -> list[Row]:
    """The newest first; what-ifs among them."""
    found = [
        Row(*row) for record in records for row in store.reads.query(_OF + "ORDER BY id DESC LIMIT ?", (record, MOST))
    ]
    return sorted(found, key=lambda row: row.id, reverse=True)


def row_of(store: Store, ref: str, records: Collection[int]) -> Row:
    """One of these records' inferences. Errors: NotFound."""
    row = store.reads.one(
        "SELECT id, ref, call_id, service, model, abstained, at, record_id FROM inference WHERE ref = ?", (ref,)
    )
    if row is None or row[7] not in records:
        raise NotFound("this inference is not one of this patient")
    return Row(*row[:7])


def of_call(store: Store, row: Row) -> list[Row]:
    """All inferences of the same call, the service's own first."""
    found = store.reads.query(
        "SELECT id, ref, call_id, service, model, abstained, at FROM inference WHERE call_id = ? ORDER BY id",
        (row.call,),
    )
    return [Row(*each) for each in found]


def before(store: Store, row: Row, records: Collection[int]) -> Row | None:
    """The newest inference of the same service by the same model that came before this one."""
    earlier = [
        Row(*each)
        for record in records
        for each in store.reads.query(
            _OF + "AND service = ? AND id < ? ORDER BY id DESC LIMIT ?", (record, row.service, row.id, MOST)
        )
    ]
    same = [each for each in earlier if each.name == row.name and each.call != row.call]
    return max(same, key=lambda each: each.id, default=None)


def recalled(store: Store, row: Row) -> bool:
    """Whether a fact that it rests on was corrected or withdrawn since, and nobody has settled that."""
    return (
        store.reads.one(
            "SELECT 1 FROM flag f LEFT JOIN flag_closing c ON c.flag_id = f.id "
            "WHERE f.inference_id = ? AND f.reason IN (?, ?) AND c.id IS NULL",
            (row.id, CORRECTED, RECALL),
        )
        is not None
    )
