"""The whole check of an instance: entries, chain, rows, and (deep) canonical form and the sealed bytes of landings.

Needs the database only: it works when the key store is lost, and while the server runs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cds_server.ledger.entry import GENESIS, Entry
from cds_server.ledger.verifier import Key
from cds_server.ledger.verify import Finding, verify, walk
from cds_server.signed_heads import SignedHeads
from cds_server.store.engine import Database
from cds_server.store.erased import ErasedRows
from cds_server.store.migrate import current
from cds_server.store.reads import Reads
from cds_server.store.segments import Place
from cds_server.store.vault import Vault
from models.errors import Misconfigured, RecordUnavailable


@dataclass(frozen=True, slots=True)
class Report:
    entries: int
    head: str
    """Chain hash of the last entry, hex."""
    findings: tuple[Finding, ...]
    signed: int = 0
    """Entries under the largest checkpoint that the log was held against; 0 where none was signed yet."""


class _Walked:
    """Entries on their way to `verify`, counted."""

    def __init__(self, entries: Iterator[Entry]) -> None:
        self._entries = entries
        self.count, self.head = 0, GENESIS

    def __iter__(self) -> Iterator[Entry]:
        for entry in self._entries:
            self.count, self.head = self.count + 1, entry.chain
            yield entry


def audit(
    data_dir: Path,
    url: str,
    *,
    deep: bool = False,
    most: int = 100,
    rows: bool = True,
    keys: Sequence[Key] = (),
    notes: Sequence[bytes] = (),
) -> Report:
    """Verify an instance; at most `most` findings. Raises Misconfigured when there is none.

    Without `rows`: the log alone, entries against chain, tree and checkpoints. `keys` and `notes`: of the log, as
    whoever checks has kept them; else the database's own keys are believed. Raises Wrong for a note that none signed.
    """
    database = Database(url, data_dir)
    try:
        if current(database) is None:
            raise Misconfigured("the database holds no instance")
        reads = Reads(database, Vault.closed())
        heads = SignedHeads(reads, data_dir, keys, notes)  # before the head: a server that writes may sign meanwhile
        erasures = _erasures(reads)
        last = reads.head()[0]  # the server may be writing: what comes after this is for the next check
        if not rows and not deep:
            return _log_alone(reads, heads, last, most)
        row_stream = reads.row_stream(last)
        walked = _Walked(heads.watched(reads.entries(upto=last)))
        findings: list[Finding] = []
        for finding in verify(walked, row_stream, deep=deep, erased=ErasedRows(reads)):
            findings.append(finding)
            if len(findings) >= most:
                break
        else:
            findings += heads.finish()
            findings += [
                Finding(entry, f"row {row_id} of table {table} stands in no entry: it was added behind the log")
                for table, row_id, entry in [*row_stream.finish(), *_beyond(reads, last)]
            ]
            if deep:
                findings += _packs(data_dir, reads)
        found = Report(walked.count, walked.head.hex(), tuple(findings[:most]), heads.size)
        meanwhile = bool(findings) and _erasures(reads) != erasures
    finally:
        database.close()
    # rows that an erasure took while we read are missing, and we had not read yet that they may be
    return audit(data_dir, url, deep=deep, most=most, keys=keys, notes=notes) if meanwhile else found


def _erasures(reads: Reads) -> int:
    return int(reads.query("SELECT COUNT(*) FROM erasure")[0][0])


def _log_alone(reads: Reads, heads: SignedHeads, last: int, most: int) -> Report:
    found: list[Finding] = []
    for finding in walk(reads.stored(last), heads.leaves):
        found.append(finding)
        heads.gone = True
        if len(found) >= most:
            break
    else:
        found += heads.finish()
    count, head = reads.head() if not last else (last, reads.chain(last))
    return Report(count, head.hex(), tuple(found[:most]), heads.size)


def _beyond(reads: Reads, last: int) -> list[tuple[str, int, int]]:
    """Rows of entries that do not exist (yet): rows are looked at before the head, which they are committed with."""
    beyond = reads.rows_beyond(last)
    head = reads.head()[0]
    return [row for row in beyond if row[2] > head]


def _packs(data_dir: Path, reads: Reads) -> Iterator[Finding]:
    """Landings whose sealed bytes are not the ones that were recorded."""
    for landing_id in reads.landing_ids():
        landing = reads.landing(landing_id)
        if landing is None:
            continue
        if landing.pack is not None:
            found = hashlib.sha256(landing.pack).digest()
        else:
            try:
                with Place.of(str(landing.pack_file)).open(data_dir / "blobs") as blob:
                    found = hashlib.file_digest(blob, "sha256").digest()  # type: ignore[arg-type]
            except (OSError, RecordUnavailable):
                yield Finding(landing_id >> 20, f"the blob of landing {landing.ref} is missing or cannot be read")
                continue
        if found != landing.pack_digest:
            yield Finding(landing_id >> 20, f"the sealed bytes of landing {landing.ref} were changed")
