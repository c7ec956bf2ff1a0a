"""Look-ups. Everything here reads what is durable; nothing here writes."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from sqlalchemy import Boolean
from sqlmodel import SQLModel

from adapters.dicom.part10 import MEDIA_TYPE as IMAGE
from cds_server.ledger.entry import Entry, Row
from cds_server.store.engine import Database
from cds_server.store.tables import COLUMNS, MANY
from cds_server.store.vault import Vault, object_ref
from cds_server.store.writer import Tx, head
from models.errors import RecordUnavailable
from models.nouns import Fact

_LANDING = "id, ref, source, namespace, media_type, received_at, parts, size, pack, pack_file, pack_digest, manifest"
FOREVER = "9999-12-31T00:00:00.000000Z"
_ENDLESS = (1 << 43) - 1
"""Above every sequence number that a row id can carry."""


@dataclass(frozen=True, slots=True)
class LandingRow:
    id: int
    ref: str
    source: str
    namespace: str
    media_type: str
    received_at: str
    parts: int
    size: int
    pack: bytes | None
    pack_file: str | None
    pack_digest: bytes
    manifest: bytes | None


@dataclass(frozen=True, slots=True)
class RecordRow:
    id: int
    ref: str
    namespace: str


@dataclass(frozen=True, slots=True)
class StoredFact:
    fact: Fact
    valid: bool | None
    """What fhir.resources said of its resource; None while it was not asked yet."""


class Reads:
    def __init__(self, database: Database, vault: Vault) -> None:
        self._database = database
        self._vault = vault

    def query(self, statement: str, parameters: Sequence[Any] = ()) -> list[Any]:
        """Rows of a query written with `?`."""
        with self._database.reading() as connection:
            return list(connection.exec_driver_sql(self._database.sql(statement), tuple(parameters)).fetchall())

    def one(self, statement: str, parameters: Sequence[Any] = ()) -> Any | None:
        rows = self.query(statement, parameters)
        return rows[0] if rows else None

    # -- landings ------------------------------------------------------------------------------------------------------

    def landing(self, landing_id: int) -> LandingRow | None:
        row = self.one(f"SELECT {_LANDING} FROM landing WHERE id = ?", (landing_id,))
        return LandingRow(*row) if row else None

    def landing_by_ref(self, ref: str) -> LandingRow | None:
        row = self.one(f"SELECT {_LANDING} FROM landing WHERE ref = ?", (ref,))
        return LandingRow(*row) if row else None

    def landing_ids(self) -> list[int]:
        return [row[0] for row in self.query("SELECT id FROM landing ORDER BY id")]

    def undigested(self, of: Collection[str] | None = None, after: int = 0) -> list[tuple[int, int, int]]:
        """(landing id, first part that no reader has seen, how many parts it has), in arrival order. `of`: media
        types. `after`: landings beyond this one."""
        types = tuple(of or ())
        return [
            (row[0], row[1], row[2])
            for row in self.query(
                "SELECT l.id, COALESCE(MAX(d.part_to), 0) AS seen, l.parts FROM landing l "
                "LEFT JOIN digestion d ON d.landing_id = l.id "
                + (f"WHERE l.id > ? AND l.media_type IN ({marks(types)}) " if types else "WHERE l.id > ? ")
                + "GROUP BY l.id, l.parts HAVING COALESCE(MAX(d.part_to), 0) < l.parts ORDER BY l.id",
                (after, *types),
            )
        ]

    def undigested_of(self, record_ids: Sequence[int]) -> list[int]:
        """Landings of hook calls about these records that no reader has seen, in arrival order."""
        rows = self.query(
            "SELECT l.id FROM landing l LEFT JOIN digestion d ON d.landing_id = l.id "
            f"WHERE l.record_id IN ({marks(record_ids)}) AND d.id IS NULL ORDER BY l.id",
            record_ids,
        )
        return [row[0] for row in rows]

    def origin(self, landing: str) -> tuple[str, str, str] | None:
        """Source, namespace and arrival of a landing."""
        row = self.one("SELECT source, namespace, received_at FROM landing WHERE ref = ?", (landing,))
        return (row[0], row[1], row[2]) if row else None

    def waiting(self, media_types: Sequence[str], after: int, limit: int) -> list[LandingRow]:
        """Landings of these media types and of few parts, beyond `after`, that no reader has seen, in arrival order."""
        rows = self.query(
            f"SELECT {_LANDING} FROM landing WHERE id > ? AND media_type IN ({marks(media_types)}) AND parts <= 4 "
            "AND NOT EXISTS (SELECT 1 FROM digestion d WHERE d.landing_id = landing.id) ORDER BY id LIMIT ?",
            (after, *media_types, limit),
        )
        return [LandingRow(*row) for row in rows]

    # -- persons -------------------------------------------------------------------------------------------------------

    def record(self, namespace: str, local_id: str) -> RecordRow | None:
        row = self.one(
            "SELECT id, ref, namespace FROM patient_record WHERE namespace = ? AND local_digest = ?",
            (namespace, self._vault.index("local", namespace, "Patient", local_id)),
        )
        return RecordRow(*row) if row else None

    def records(self, ids: Iterable[int]) -> list[RecordRow]:
        wanted = sorted(ids)
        rows = self.query(
            f"SELECT id, ref, namespace FROM patient_record WHERE id IN ({marks(wanted)}) ORDER BY id", wanted
        )
        return [RecordRow(*row) for row in rows]

    def records_by_identifier(self, system: str, value: str, at: str = FOREVER) -> list[int]:
        rows = self.query(
            "SELECT DISTINCT i.record_id FROM record_identifier i JOIN resource r ON r.id = i.resource_id "
            "LEFT JOIN resource_closing c ON c.resource_id = r.id AND c.known_to <= ? "
            "WHERE i.system = ? AND i.value_digest = ? AND r.known_from <= ? AND c.id IS NULL",
            (at, system, self._vault.index("identifier", system, value), at),
        )
        return [row[0] for row in rows]

    def record_by_ref(self, ref: str) -> RecordRow | None:
        row = self.one("SELECT id, ref, namespace FROM patient_record WHERE ref = ?", (ref,))
        return RecordRow(*row) if row else None

    def local_id(self, record: RecordRow) -> str:
        row = self.one("SELECT sealed FROM patient_record WHERE id = ?", (record.id,))
        if row is None:
            raise RecordUnavailable("a patient record is gone", where=f"record {record.ref}")
        return self._vault.open_of_record(record.ref, row[0]).decode()

    def person(self, record_id: int, at: str = FOREVER) -> tuple[int, ...]:
        """Ids of the records that were one person at that instant, oldest first; the first's ref names the person."""

        def links_of(ids: Sequence[int]) -> list[Any]:
            return self.query(
                "SELECT record_id, other_id, basis, verb FROM link "
                f"WHERE (record_id IN ({marks(ids)}) OR other_id IN ({marks(ids)})) AND at <= ? ORDER BY id",
                (*ids, *ids, at),
            )

        return component(record_id, links_of)

    # -- facts ---------------------------------------------------------------------------------------------------------

    def facts(self, record_ids: Sequence[int], codes: frozenset[str], at: str = FOREVER) -> list[Fact]:
        """Facts of these records with these codes (`system|code`) as known at that instant, unordered."""
        wanted = _sorted(codes)
        rows = self.query(
            "SELECT p.ref, r.facts FROM resource r JOIN patient_record p ON p.id = r.record_id "
            "LEFT JOIN resource_closing c ON c.resource_id = r.id AND c.known_to <= ? "
            f"WHERE r.record_id IN ({marks(record_ids)}) AND r.code IN ({marks(wanted)}) AND r.known_from <= ? "
            "AND c.id IS NULL",
            (at, *record_ids, *wanted, at),
        )
        return [
            fact for ref, sealed in rows for fact in self._vault.open_facts(ref, sealed) if fact.code.token in codes
        ]

    def all_facts(self, record_ids: Sequence[int], at: str = FOREVER) -> list[Fact]:
        """All facts of these records as known at that instant, unordered."""
        rows = self.query(
            "SELECT p.ref, r.facts FROM resource r JOIN patient_record p ON p.id = r.record_id "
            "LEFT JOIN resource_closing c ON c.resource_id = r.id AND c.known_to <= ? "
            f"WHERE r.record_id IN ({marks(record_ids)}) AND r.code IS NOT NULL AND r.known_from <= ? AND c.id IS NULL",
            (at, *record_ids, at),
        )
        return [fact for ref, sealed in rows for fact in self._vault.open_facts(ref, sealed)]

    def stored_facts(self, record_ids: Sequence[int], at: str = FOREVER) -> list[StoredFact]:
        """All facts of these records as known at that instant, with the verdict on their resources."""
        rows = self.query(
            "SELECT p.ref, r.facts, r.pointer, v.id, v.problems FROM resource r "
            "JOIN patient_record p ON p.id = r.record_id "
            "LEFT JOIN resource_closing c ON c.resource_id = r.id AND c.known_to <= ? "
            "LEFT JOIN validation v ON v.landing_id = r.landing_id AND v.part = r.part "
            f"WHERE r.record_id IN ({marks(record_ids)}) AND r.code IS NOT NULL AND r.known_from <= ? AND c.id IS NULL",
            (at, *record_ids, at),
        )
        return [
            StoredFact(fact, None if verdict is None else pointer not in orjson.loads(problems or "{}"))
            for ref, sealed, pointer, verdict, problems in rows
            for fact in self._vault.open_facts(ref, sealed)
        ]

    # -- decisions -----------------------------------------------------------------------------------------------------

    def open_payload(self, kind: bytes, ref: str, cipher: bytes) -> Any:
        """A sealed JSON payload."""
        return json.loads(self._vault.open(object_ref(kind, ref), cipher))

    def newest_call(self) -> int:
        """Row id of the last call; 0 before the first."""
        return int(self.query("SELECT COALESCE(MAX(id), 0) FROM call")[0][0])

    def calls_since(self, newest: int) -> tuple[int, int]:
        """How many calls came after this row id, and the last one's."""
        count, last = self.query("SELECT COUNT(*), MAX(id) FROM call WHERE id > ?", (newest,))[0]
        return count, last or newest

    def open_flags(self) -> dict[str, int]:
        """Kind -> how many of that kind nobody has resolved."""
        rows = self.query(
            "SELECT f.kind, COUNT(*) FROM flag f LEFT JOIN flag_closing c ON c.flag_id = f.id "
            "WHERE c.id IS NULL GROUP BY f.kind"
        )
        return {row[0]: row[1] for row in rows}

    def unvalidated_count(self) -> int:
        """Resources whose part nobody has asked fhir.resources about, and somebody will: not those of images."""
        row = self.one(
            "SELECT COUNT(*) FROM resource r JOIN landing l ON l.id = r.landing_id "
            "LEFT JOIN validation v ON v.landing_id = r.landing_id AND v.part = r.part "
            "WHERE v.id IS NULL AND l.media_type <> ?",
            (IMAGE,),
        )
        return int(row[0]) if row else 0

    # -- the log -------------------------------------------------------------------------------------------------------

    def head(self) -> tuple[int, bytes]:
        """(sequence number, chain hash) of the last entry."""
        with self._database.reading() as connection:
            return head(connection)

    def last_entry_at(self) -> str | None:
        """The time that the last entry carries."""
        entry = self.entry(self.head()[0])
        return str(json.loads(entry.body)["at"]) if entry else None

    def entry(self, seq: int) -> Entry | None:
        return next(iter(self.entries(seq, 1)), None) if seq >= 1 and self.head()[0] >= seq else None

    def entries(self, first: int = 1, batch: int = 2000, *, upto: int = _ENDLESS) -> Iterator[Entry]:
        """All entries from `first` to `upto`, in order, a batch at a time."""
        last = first - 1
        while True:
            rows = self.query(
                "SELECT seq, body, leaf, chain, row_leaves FROM ledger_entry WHERE seq > ? AND seq <= ? "
                "ORDER BY seq LIMIT ?",
                (last, upto, batch),
            )
            if not rows:
                return
            for row in rows:
                yield Entry(int(row[0]), bytes(row[1]), bytes(row[2]), bytes(row[3]), bytes(row[4]))
            last = int(rows[-1][0])

    def stored(self, upto: int, batch: int = 4000) -> Iterator[Sequence[Any]]:
        """(seq, body, leaf, chain) of all entries up to `upto`, a batch at a time, by the driver's own cursor."""
        last = 0
        asked = self._database.sql(
            "SELECT seq, body, leaf, chain FROM ledger_entry WHERE seq > ? AND seq <= ? ORDER BY seq LIMIT ?"
        )
        with self._database.reading() as connection:
            cursor = self._database.cursor(connection)
            while True:
                try:
                    cursor.execute(asked, (last, upto, batch))
                    rows = cursor.fetchall()
                except Exception as error:  # noqa: BLE001 (of a driver that is known when it runs)
                    raise self._database.translated(error) from None
                if not rows:
                    return
                yield rows
                last = int(rows[-1][0])

    def chain(self, seq: int) -> bytes:
        """Chain hash of an entry that is there."""
        return bytes(self.query("SELECT chain FROM ledger_entry WHERE seq = ?", (seq,))[0][0])

    def row_stream(self, upto: int) -> RowStream:
        """The rows of entries up to `upto`."""
        return RowStream(self._database, upto, newest_ids(self))

    def rows_beyond(self, seq: int) -> list[tuple[str, int, int]]:
        """(table, row id, entry) of rows of entries after `seq`: at most ten a table."""
        return [
            (table, int(row[0]), int(row[0]) >> 20)
            for table, newest in newest_ids(self).items()
            if newest >= seq + 1 << 20
            for row in self.query(f'SELECT id FROM "{table}" WHERE id >= ? ORDER BY id DESC LIMIT 10', (seq + 1 << 20,))
        ]


class ActReads(Reads):
    """The same look-ups from inside an act: they see what the act has written so far."""

    def __init__(self, tx: Tx) -> None:
        self._tx = tx
        self._vault = tx.vault

    def query(self, statement: str, parameters: Sequence[Any] = ()) -> list[Any]:
        return self._tx.read(statement, tuple(parameters))


class RowStream:
    """Governed rows by entry, read once in order: what `verify` holds against the leaves."""

    def __init__(self, database: Database, upto: int, newest: Mapping[str, int]) -> None:
        """`newest`: id of the last row of each table that has any, asked after the entry `upto` was there."""
        self._database = database
        self._end = upto + 1 << 20
        self._newest = newest
        self._groups: dict[str, Iterator[tuple[int, list[Row]]]] = {}
        self._ahead: dict[str, tuple[int, list[Row]] | None] = {}
        self.strays: list[tuple[str, int, int]] = []
        """(table, row id, entry) of rows that no entry asked for: written behind the log's back."""

    def __call__(self, table: str, seq: int) -> list[Row]:
        """The rows that entry `seq` wrote into `table`, by id. Ask in the order of `seq`."""
        if table not in self._groups:
            self._groups[table] = self._read(table)
            self._ahead[table] = next(self._groups[table], None)
        ahead = self._ahead[table]
        while ahead is not None and ahead[0] < seq:
            self._stray(table, ahead)
            ahead = next(self._groups[table], None)
        if ahead is not None and ahead[0] == seq:
            self._ahead[table] = next(self._groups[table], None)
            return ahead[1]
        self._ahead[table] = ahead
        return []

    def finish(self) -> list[tuple[str, int, int]]:
        """Rows left over in any governed table."""
        for table in COLUMNS:
            self(table, _ENDLESS + 1)
        return self.strays

    def _stray(self, table: str, group: tuple[int, list[Row]]) -> None:
        if len(self.strays) < 100:
            self.strays += [(table, int(str(row["id"])), group[0]) for row in group[1][:10]]

    def _read(self, table: str) -> Iterator[tuple[int, list[Row]]]:
        columns = COLUMNS[table]
        booleans = {c.name for c in SQLModel.metadata.tables[table].columns if isinstance(c.type, Boolean)}
        last = -1
        place = columns.index("id")
        entry, group = -1, list[Row]()
        end = min(self._end, self._newest.get(table, -1) + 1)
        while last + 1 < end:
            with self._database.reading() as connection:
                rows = connection.exec_driver_sql(
                    self._database.sql(
                        f'SELECT {", ".join(columns)} FROM "{table}" WHERE id > ? AND id < ? ORDER BY id LIMIT 5000'
                    ),
                    (last, end),
                ).fetchall()
            if not rows:
                break
            last = rows[-1][place]
            for row in rows:
                cells: Row = {
                    column: bool(cell)
                    if column in booleans and cell is not None
                    else bytes(cell)
                    if isinstance(cell, memoryview)
                    else cell
                    for column, cell in zip(columns, row, strict=True)
                }
                owner = row[place] >> 20  # the id says whose it is; an edited `entry` shows in the row's leaf
                if owner != entry and group:
                    yield entry, group
                    group = []
                entry = owner
                group.append(cells)
        if group:
            yield entry, group


_NEWEST = " UNION ALL ".join(f"SELECT '{table}', MAX(id) FROM \"{table}\"" for table in COLUMNS)


def newest_ids(reads: Reads) -> dict[str, int]:
    """Id of the last row of each governed table that has any: one question instead of one a table."""
    return {table: int(newest) for table, newest in reads.query(_NEWEST) if newest is not None}


@functools.lru_cache(maxsize=64)
def _sorted(codes: frozenset[str]) -> tuple[str, ...]:
    """The codes to ask for: these, and versions that hold several."""
    return (*sorted(codes), MANY)


def marks(values: Iterable[Any]) -> str:
    return ", ".join("?" for _ in values)


def component(record_id: int, links_of: Callable[[Sequence[int]], Iterable[Any]]) -> tuple[int, ...]:
    """Records joined to this one, oldest first.

    `links_of(ids)` gives (record, other, basis, verb) of the links of these records, in the order they were made.

    Two records may be joined on several grounds; they come apart when the last of them is undone.
    """
    known: set[int] = {record_id}
    frontier = [record_id]
    while frontier:
        active: dict[tuple[int, int, str], bool] = {}
        for one, other, basis, verb in links_of(frontier):
            active[min(one, other), max(one, other), basis] = verb == "link"
        reached = {end for (one, other, _), on in active.items() if on for end in (one, other)}
        frontier = sorted(reached - known)
        known |= reached
    return tuple(sorted(known))
