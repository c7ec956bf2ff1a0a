"""The verb `erase`: destroy the keys of everything that is sealed about a person, remove the projection's rows, say so.

What is left are ciphers that nobody can open, the rows that carry them with their leaves, and the entries with their
proofs: every old checkpoint and proof stays valid. First the record, in one act: what goes, and the removal of the
projection's rows. Then the keys. A crash between the two leaves an erasure that `finish` ends: at the next erasure,
daily, and after a restore, which may have brought older keys.

The receipt carries what a restore of an older backup needs to do it again: references, nothing of the person.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cds_server.belongings import Belongings, belongings, decisions_of, late_parts
from cds_server.holds import check_not_held, said
from cds_server.reading import NO_RULES, SourceRules
from cds_server.store import erased
from cds_server.store.entropy import new_ref
from cds_server.store.erasure_tables import ERASABLE
from cds_server.store.reads import ActReads, RecordRow
from cds_server.store.store import Store
from cds_server.store.writer import Tx
from models.errors import BadInput, Conflict, Malformed, RecordUnavailable

RECEIPT = "cds erasure receipt v1"
FILE = "erasures"
"""In the data directory: a receipt a line. No backup carries it: it says what a backup must not bring back."""
TRIES = 5
STAYS = (
    "Ledger entries, their leaves and proofs; they name acts by random references and counts.",
    "Rows with ciphers whose keys are destroyed, and commitments that say nothing without them.",
    "Keyed digests of delivery keys and contents of landings: pseudonymous, as long as the index key exists.",
    "Who looked at the record and when, without whose record it was.",
    "Backups made before: restore them with --erasures and this receipt.",
    "Copies at receivers that are listed under handed_over, and in EHRs that were answered.",
)


@dataclass(frozen=True, slots=True)
class Erased:
    """What an erasure did, or would do (`ref` empty)."""

    ref: str
    seq: int
    receipt: Mapping[str, Any]
    wiped: bool = True
    """The write-ahead logs are empty: nobody was in the way."""


def erase(
    store: Store,
    record: RecordRow,
    basis: str,
    actor: str,
    *,
    rules: SourceRules = NO_RULES,
    shared: bool = False,
    dry_run: bool = False,
) -> Erased:
    """Erase the person that this record is one of. `basis`: why, in words that name nobody. `shared`: parts that hold
    another person's data, too, go whole; what was read of that person stays.

    Errors: NotAllowed (a legal hold), Conflict (shared parts, and not `shared`; or they were being written about all
    the time), BadInput (a basis that names them), RecordUnavailable and its kinds.
    """
    words = said(basis, "--basis")
    finish(store)
    for _ in range(TRIES):
        found = belongings(store, record, rules)
        if any(number in words for number in found.numbers if len(number) > 3):
            raise BadInput("the basis names the person: it stays on record, and must not", where="--basis")
        check_not_held(store.reads, [each.id for each in found.records])
        if dry_run:
            return Erased("", 0, _told(found))
        if found.shared and not shared:
            raise Conflict(
                f"{len(found.shared)} parts hold another person's data, too, and can only go whole: say "
                "--shared-parts, and what was read of the others stays, without its source"
            )
        done = _act(store, found, words, actor)
        if done is not None:
            break
    else:
        raise Conflict("data about this person came in all the time: stop their feed, and try again")
    ref, seq, leaf, at = done
    keys = sorted(found.keys)
    store.vault.destroy(keys)
    if late := late_parts(store, found, rules):
        _more(store, ref, sorted(late), actor)
        keys += sorted(late)
    wiped = store.vault.keys.wipe() and erased.wipe(store.database)
    receipt = {
        "receipt": RECEIPT,
        "instance": store.instance,
        "erasure": ref,
        "entry": seq,
        "leaf": leaf,
        "at": at,
        "by": actor,
        "basis": words,
        **_told(found),
        "stays": list(STAYS),
        "again": _again(keys, found.rows),
    }
    _keep(store.data_dir, receipt)
    return Erased(ref, seq, receipt, wiped)


def _told(found: Belongings) -> dict[str, Any]:
    return {
        "records": len(found.records),
        "destroyed": dict(sorted(found.counts.items())),
        "shared_parts": len(found.shared),
        "removed": {table: len(ids) for table, ids in sorted(found.rows.items())},
        "handed_over": {
            "results": found.sent,
            "cards": dict(sorted(found.answered.items())),
            "exports": found.exports,
        },
        "not_sent": len(found.waiting),
    }


def _act(store: Store, found: Belongings, basis: str, actor: str) -> tuple[str, int, str, str] | None:
    """(reference, entry, its leaf, time); None where something about them came since it was looked up."""
    ref, keys = new_ref(), sorted(found.keys)
    records = [each.id for each in found.records]

    def act(tx: Tx) -> tuple[str, int, str, str] | None:
        check_not_held(ActReads(tx), records)
        if any(_since(tx, record, found.head) for record in records):
            return None
        count = sum(map(len, found.rows.values()))
        row = tx.add("erasure", ref=ref, basis=basis, key_count=len(keys), row_count=count, at=tx.now)
        erased.remember(tx, row, keys, found.rows)
        for flag in found.flags:
            tx.add("flag_closing", flag_id=flag, resolution="erased", at=tx.now)
        for job in found.waiting:
            for state, cause in (("parked", "erased"), ("dropped", None)):
                tx.add("job_step", job_id=job, state=state, cause=cause, ref=new_ref(), at=tx.now)
        for case in found.cases:
            tx.add("board_case_state", case_id=case, state="withdrawn", at=tx.now)
            tx.execute("DELETE FROM board_context WHERE case_id = ?", (case,))
        for each in found.records:
            tx.execute("DELETE FROM app_session WHERE record = ?", (each.ref,))
        erased.remove(tx, store.database, found.rows)
        entry = tx.entry("erase", actor, {"erasure": ref, "keys": len(keys), "rows": count, "records": len(records)})
        return ref, entry.seq, entry.leaf.hex(), tx.now

    return store.writer.submit(act).result()


_NEWER = (
    "SELECT MAX(id) FROM inference WHERE record_id = ?",
    "SELECT MAX(id) FROM resource WHERE record_id = ?",
    "SELECT MAX(id) FROM landing WHERE record_id = ?",
    "SELECT MAX(id) FROM dicom_object WHERE record_id = ?",
    "SELECT MAX(id) FROM board_case WHERE record_id = ?",
    "SELECT MAX(a.id) FROM action a JOIN inference i ON i.id = a.inference_id WHERE i.record_id = ?",
)


def _since(tx: Tx, record_id: int, head: int) -> bool:
    """Whether a row about this record was written after entry `head`."""
    newest = (tx.read(statement, (record_id,))[0][0] for statement in _NEWER)
    return any(row is not None and row >> 20 > head for row in newest)


def _more(store: Store, ref: str, keys: Sequence[bytes], actor: str) -> None:
    """Keys that belong to an erasure that is on record already."""

    def act(tx: Tx) -> None:
        (row,) = tx.read("SELECT id FROM erasure WHERE ref = ?", (ref,))
        erased.remember(tx, row[0], keys, {})
        tx.entry("erase", actor, {"erasure": ref, "keys": len(keys), "rows": 0, "records": 0})

    store.writer.submit(act).result()
    store.vault.destroy(keys)


# ---- again -----------------------------------------------------------------------------------------------------------


def finish(store: Store, actor: str = "system") -> int:
    """Destroy what erasures on record took and is there (again): after a crash between the record and the keys, after a
    restore of older keys; and what was written about an erased person since, by a call that was under way. Gives how
    many keys. Errors: RecordUnavailable and its kinds."""
    done = 0
    for erasure_id, ref in store.reads.query("SELECT id, ref FROM erasure ORDER BY id"):
        keys = erased.keys_of(store.reads, erasure_id)
        alive = [key for key in keys if not store.vault.keys.destroyed(key)]
        if alive:
            store.vault.destroy(alive)
        records = erased.rows_of(store.reads, erasure_id).get("patient_record", [])
        late = sorted(decisions_of(store, records) - set(keys))
        if late:
            _more(store, ref, late, actor)
        done += len(alive) + len(late)
    if done:
        store.vault.keys.wipe()
    return done


def apply_again(store: Store, receipts: Iterable[Mapping[str, Any]], actor: str) -> int:
    """Do erasures again that this record knows nothing of: it was restored from an older backup. Gives how many.

    Before anything new is written: ids of rows must be the ones that they were. Errors: BadInput (a receipt of another
    instance, or none).
    """
    done = 0
    for receipt in receipts:
        if receipt.get("receipt") != RECEIPT or receipt.get("instance") != store.instance:
            raise BadInput("this is no receipt of an erasure of this instance", where="--erasures")
        if store.reads.one("SELECT 1 FROM erasure WHERE ref = ?", (str(receipt["erasure"]),)):
            _keep(store.data_dir, receipt)
            continue
        keys, rows = _of_again(receipt["again"])
        there = {table: _existing(store, table, ids) for table, ids in rows.items()}
        there = {table: ids for table, ids in there.items() if ids}

        def act(tx: Tx, receipt: Mapping[str, Any] = receipt, keys: list[bytes] = keys, there: Any = there) -> None:
            ref, count = str(receipt["erasure"]), sum(map(len, there.values()))
            basis = str(receipt["basis"])
            row = tx.add("erasure", ref=ref, basis=basis, key_count=len(keys), row_count=count, at=tx.now)
            erased.remember(tx, row, keys, there)
            erased.remove(tx, store.database, there)
            tx.entry("erase", actor, {"erasure": ref, "keys": len(keys), "rows": count, "again": True})

        store.writer.submit(act).result()
        store.vault.destroy(keys)
        _keep(store.data_dir, receipt)
        done += 1
    finish(store, actor)
    if not (store.vault.keys.wipe() and erased.wipe(store.database)):
        raise RecordUnavailable("the write-ahead log is in use: stop what has this instance open", where="data_dir")
    return done


_EXISTS = {
    "patient_record": "SELECT 1 FROM patient_record WHERE id = ?",
    "record_identifier": "SELECT 1 FROM record_identifier WHERE id = ?",
    "link": "SELECT 1 FROM link WHERE id = ?",
    "resource": "SELECT 1 FROM resource WHERE id = ?",
    "resource_closing": "SELECT 1 FROM resource_closing WHERE id = ?",
    "dicom_object": "SELECT 1 FROM dicom_object WHERE id = ?",
}


def _existing(store: Store, table: str, ids: Sequence[int]) -> list[int]:
    if table not in ERASABLE:
        raise BadInput("a receipt names a table that no erasure removes from", where="--erasures")
    return [row_id for row_id in ids if store.reads.one(_EXISTS[table], (row_id,))]


def _again(keys: Sequence[bytes], rows: Mapping[str, Sequence[int]]) -> dict[str, Any]:
    packed = base64.b64encode(erased.packed_keys(keys)).decode()
    return {
        "keys": packed,
        "rows": {t: base64.b64encode(erased.packed_rows(ids)).decode() for t, ids in sorted(rows.items())},
    }


def _of_again(again: Any) -> tuple[list[bytes], dict[str, list[int]]]:
    try:
        keys = list(erased.unpacked_keys(base64.b64decode(again["keys"], validate=True)))
        rows = {
            str(table): erased.unpacked_rows(base64.b64decode(ids, validate=True))
            for table, ids in again["rows"].items()
        }
    except (KeyError, TypeError, ValueError, AttributeError):
        raise Malformed("a receipt does not say what it took", where="--erasures") from None
    return keys, rows


def read_receipts(path: Path) -> list[dict[str, Any]]:
    """A receipt, or a file with one a line. Errors: Malformed."""
    text = path.read_text(encoding="utf-8")
    try:
        try:
            found = [json.loads(text)]
        except ValueError:
            found = [json.loads(line) for line in text.splitlines() if line.strip()]
    except ValueError:
        raise Malformed("this file is no receipt", where=path.name) from None
    if not all(isinstance(each, dict) for each in found):
        raise Malformed("this file is no receipt", where=path.name)
    return found


def _keep(data_dir: Path, receipt: Mapping[str, Any]) -> None:
    """Beside the database, on disk when this returns; once."""
    path = data_dir / FILE
    if path.exists() and any(each.get("erasure") == receipt["erasure"] for each in read_receipts(path)):
        return
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        os.write(handle, json.dumps(dict(receipt), sort_keys=True).encode() + b"\n")
        os.fsync(handle)
    finally:
        os.close(handle)
