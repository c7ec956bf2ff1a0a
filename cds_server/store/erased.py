"""What erasures took, as the record names it: references of keys, rows by table and id. And the removal itself."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from sqlalchemy import Connection

from cds_server.store.engine import Database
from cds_server.store.erasure_tables import ERASABLE
from cds_server.store.reads import Reads
from cds_server.store.writer import Tx

KEY = "key"
"""`erased.what` of references of keys; else it is a table."""
_ANNOUNCED = 500
"""Rows that one statement announces."""
CHUNK = 4096
"""Members of one row of `erased`."""
_REMOVALS = {
    "patient_record": "DELETE FROM patient_record WHERE id IN (SELECT row_id FROM erasing WHERE of_table = ?)",
    "record_identifier": "DELETE FROM record_identifier WHERE id IN (SELECT row_id FROM erasing WHERE of_table = ?)",
    "link": "DELETE FROM link WHERE id IN (SELECT row_id FROM erasing WHERE of_table = ?)",
    "resource": "DELETE FROM resource WHERE id IN (SELECT row_id FROM erasing WHERE of_table = ?)",
    "resource_closing": "DELETE FROM resource_closing WHERE id IN (SELECT row_id FROM erasing WHERE of_table = ?)",
    "dicom_object": "DELETE FROM dicom_object WHERE id IN (SELECT row_id FROM erasing WHERE of_table = ?)",
}


def packed_keys(refs: Iterable[bytes]) -> bytes:
    return b"".join(bytes([len(ref)]) + ref for ref in refs)


def unpacked_keys(members: bytes) -> Iterator[bytes]:
    at = 0
    while at < len(members):
        end = at + 1 + members[at]
        yield members[at + 1 : end]
        at = end


def packed_rows(ids: Iterable[int]) -> bytes:
    return b"".join(row_id.to_bytes(8) for row_id in ids)


def unpacked_rows(members: bytes) -> list[int]:
    return [int.from_bytes(members[at : at + 8]) for at in range(0, len(members), 8)]


def remember(tx: Tx, erasure_id: int, keys: Sequence[bytes], rows: Mapping[str, Sequence[int]]) -> None:
    """Rows of `erased`, part of the entry that is open."""
    for start in range(0, len(keys), CHUNK):
        tx.add("erased", erasure_id=erasure_id, what=KEY, members=packed_keys(keys[start : start + CHUNK]))
    for table in sorted(rows):
        for start in range(0, len(rows[table]), CHUNK):
            some = packed_rows(rows[table][start : start + CHUNK])
            tx.add("erased", erasure_id=erasure_id, what=table, members=some)


def remove(tx: Tx, database: Database, rows: Mapping[str, Sequence[int]]) -> None:
    """Take rows of the projection out: announced to the triggers first, and the announcement taken back."""
    for table, ids in rows.items():
        if table not in ERASABLE:
            raise AssertionError("only the projection's rows are removed")
        for start in range(0, len(ids), _ANNOUNCED):
            some = ids[start : start + _ANNOUNCED]
            places = ", ".join(["(?, ?)"] * len(some))
            cells = tuple(cell for row_id in some for cell in (table, row_id))
            tx.execute(f"INSERT INTO erasing (of_table, row_id) VALUES {places}", cells)
    # the versions' closings point at them, and identifiers and objects at records: leaves first, then what they rest on
    for table in ("resource_closing", "record_identifier", "dicom_object", "resource", "link", "patient_record"):
        if rows.get(table):
            if not database.sqlite:  # the owner took the right from himself; the transaction ends with it taken again
                tx.execute(_GRANT[table])
            tx.execute(_REMOVALS[table], (table,))
            if not database.sqlite:
                tx.execute(_REVOKE[table])
    tx.execute("DELETE FROM erasing")


_GRANT = {table: f"GRANT DELETE ON {table} TO CURRENT_USER" for table in ERASABLE}
_REVOKE = {table: f"REVOKE DELETE ON {table} FROM CURRENT_USER" for table in ERASABLE}


class ErasedRows:
    """Rows that the record says were erased: what a check of the log does not ask for."""

    def __init__(self, reads: Reads) -> None:
        self._of: dict[tuple[str, int], set[int]] = {}
        for what, members in reads.query("SELECT what, members FROM erased WHERE what <> ? ORDER BY id", (KEY,)):
            for row_id in unpacked_rows(bytes(members)):
                self._of.setdefault((str(what), row_id >> 20), set()).add(row_id)

    def __call__(self, table: str, seq: int) -> frozenset[int]:
        """Ids of the rows of entry `seq` in this table that are gone on purpose."""
        return frozenset(self._of.get((table, seq), ()))


def keys_of(reads: Reads, erasure_id: int) -> list[bytes]:
    """References of the keys that an erasure took."""
    asked = "SELECT members FROM erased WHERE erasure_id = ? AND what = ? ORDER BY id"
    return [ref for (members,) in reads.query(asked, (erasure_id, KEY)) for ref in unpacked_keys(bytes(members))]


def rows_of(reads: Reads, erasure_id: int) -> dict[str, list[int]]:
    """Table -> ids of the rows that an erasure took."""
    asked = "SELECT what, members FROM erased WHERE erasure_id = ? AND what <> ? ORDER BY id"
    found: dict[str, list[int]] = {}
    for what, members in reads.query(asked, (erasure_id, KEY)):
        found.setdefault(str(what), []).extend(unpacked_rows(bytes(members)))
    return found


def wipe(database: Database) -> bool:
    """Empty the write-ahead log, which holds rows as they were; whether nobody was in the way (SQLite).

    PostgreSQL: its own log and dead rows hold ciphers without keys; VACUUM takes the dead rows.
    """
    if not database.sqlite:
        with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            _vacuum(connection)
        return True
    with database.reading() as connection:
        connection.exec_driver_sql("PRAGMA busy_timeout=10000")
        busy = connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        connection.exec_driver_sql("PRAGMA busy_timeout=50")
    return busy is not None and not busy[0]


def _vacuum(connection: Connection) -> None:
    for table in ERASABLE:
        connection.exec_driver_sql(f"VACUUM {table}")
