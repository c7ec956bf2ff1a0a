"""Anchors: heads of the log handed to somebody outside, and what they gave for it. A kind a way.

    rfc3161   an authority's time stamp over the checkpoint
    file      the checkpoint written to a folder that others keep (a share, a medium that is written once)
    command   the checkpoint on the standard input of a program (mail, a push to a repository); what it prints is kept

An anchor that is slow, down or wrong stops nothing: it is shown (`ledger_state`, metrics, readiness). A receipt is kept
as it came, and held against its checkpoint by `cds ledger verify`, `cds doctor`, and whoever takes an export.
"""

from __future__ import annotations

import hashlib
import ssl
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cds_server.checkpoints import Checkpoints, Signed, replace, say
from cds_server.http import post_now
from cds_server.ledger.verifier import Wrong, parse_note
from cds_server.ledger_settings import AnchorSetting
from cds_server.store.reads import Reads
from cds_server.store.store import Store
from cds_server.store.writer import Tx
from cds_server.timestamps import QUERY, REPLY, query, stamped
from models.errors import CdsError, PeerFailed

LIMIT = 64 << 10
CLOCKS = timedelta(hours=1)
"""By which an authority's time may differ from ours."""
LATE = 2
"""Times its interval, and a minute, after which an anchor without a new receipt is a warning."""
_ROWS = (
    "SELECT a.size, a.anchor, a.kind, a.receipt, a.at, c.note FROM ledger_anchor a "
    "LEFT JOIN ledger_checkpoint c ON c.size = a.size ORDER BY a.size, a.anchor"
)


@dataclass(frozen=True, slots=True)
class Kept:
    """A receipt, and the checkpoint that it is for (None: that is gone)."""

    size: int
    anchor: str
    kind: str
    receipt: bytes
    at: str
    note: bytes | None

    @property
    def file(self) -> str:
        """As it is called in an export."""
        return f"{self.size}.{self.anchor}.{'tsr' if self.kind == 'rfc3161' else 'txt'}"


def receipts(reads: Reads, upto: int | None = None) -> list[Kept]:
    """All that were kept, oldest first; `upto`: of checkpoints of at most so many entries."""
    found = [
        Kept(int(row[0]), row[1], row[2], bytes(row[3]), row[4], bytes(row[5]) if row[5] is not None else None)
        for row in reads.query(_ROWS)
    ]
    return [each for each in found if upto is None or each.size <= upto]


def state_of(anchor: AnchorSetting) -> str:
    """Name of its row in `ledger_state`."""
    return f"anchor {anchor.name}"


class Anchoring:
    """Hands heads to one anchor. One object an anchor: they do not wait for each other."""

    def __init__(
        self, store: Store, checkpoints: Checkpoints, anchor: AnchorSetting, verify: ssl.SSLContext | bool = True
    ) -> None:
        self._store, self._checkpoints, self._anchor, self._verify = store, checkpoints, anchor, verify

    def last(self) -> tuple[int, datetime | None]:
        """The largest size that it has, of the present origin, and since when; (0, None) for none."""
        row = self._store.reads.one(
            "SELECT a.size, a.at FROM ledger_anchor a JOIN ledger_checkpoint c ON c.size = a.size "
            "WHERE a.anchor = ? AND c.origin = ? ORDER BY a.size DESC LIMIT 1",
            (self._anchor.name, self._checkpoints.origin or ""),
        )
        return (int(row[0]), datetime.fromisoformat(row[1])) if row else (0, None)

    def due(self) -> bool:
        at = self.last()[1]
        return at is None or datetime.now(UTC) - at >= timedelta(seconds=self._anchor.every)

    def late(self) -> str | None:
        """What to warn of: entries wait for it, and for too long."""
        size, at = self.last()
        head = self._store.reads.head()[0]
        if head <= size:
            return None
        since = at or self._first()
        seconds = (datetime.now(UTC) - since).total_seconds() if since else 0.0
        if seconds <= LATE * self._anchor.every + 60:
            return None
        return f"{head - size} entries are not anchored, the last receipt is {round(seconds)} s old"

    def _first(self) -> datetime | None:
        row = self._store.reads.one("SELECT at FROM ledger_checkpoint ORDER BY size LIMIT 1")
        return datetime.fromisoformat(row[0]) if row else None

    def submit(self) -> bool:
        """Hand over the newest checkpoint; whether it has it now. What is wrong is noted, and never raised."""
        signed = self._checkpoints.last()
        try:
            if signed is None or signed.checkpoint.origin != self._checkpoints.origin:
                return False
            if self.last()[0] < signed.checkpoint.size:
                self._keep(signed)
        except (CdsError, Wrong, OSError) as error:
            what = error.what if isinstance(error, CdsError) else str(error)
            said = f"it could not be written ({type(error).__name__})" if isinstance(error, OSError) else what
            say(self._store, state_of(self._anchor), said)
            return False
        say(self._store, state_of(self._anchor), "")
        return True

    def _keep(self, signed: Signed) -> None:
        size = signed.checkpoint.size
        row = self._store.reads.one("SELECT note FROM ledger_checkpoint WHERE size = ?", (size,))
        if row is None:
            raise Wrong("the checkpoint is not in the database")
        note = bytes(row[0])
        ways = {"rfc3161": self._stamp, "file": self._write, "command": self._tell}
        receipt = ways[self._anchor.kind](note, size)

        def act(tx: Tx) -> None:
            tx.execute(
                "INSERT INTO ledger_anchor (size, anchor, kind, receipt, at) VALUES (?, ?, ?, ?, ?) "
                "ON CONFLICT DO NOTHING",
                (size, self._anchor.name, self._anchor.kind, receipt, tx.now),
            )

        self._store.writer.submit(act).result()

    def _stamp(self, note: bytes, _size: int) -> bytes:
        sent, asked = query(note)
        status, media_type, receipt = post_now(
            self._anchor.url,
            sent,
            seconds=self._anchor.seconds,
            limit=LIMIT,
            verify=self._verify,
            headers={"Content-Type": QUERY},
        )
        if status != 200 or media_type.partition(";")[0].strip().lower() != REPLY:
            raise PeerFailed(f"answered {status}, and no time stamp" if status == 200 else f"answered {status}")
        at = stamped(receipt, note, self._anchor.ca_file, asked)
        if abs(datetime.now(UTC) - at) > CLOCKS:
            raise Wrong("its clock and ours differ by more than an hour")
        return receipt

    def _write(self, note: bytes, size: int) -> bytes:
        replace(_place(self._anchor, size), note)
        return hashlib.sha256(note).hexdigest().encode()

    def _tell(self, note: bytes, _size: int) -> bytes:
        try:
            done = subprocess.run(  # noqa: S603 (the operator's own program, a list of arguments, no shell)
                self._anchor.command, input=note, capture_output=True, timeout=self._anchor.seconds, check=False
            )
        except subprocess.TimeoutExpired:
            raise PeerFailed(f"its command did not end within {self._anchor.seconds} s") from None
        if done.returncode:
            raise PeerFailed(f"its command ended with code {done.returncode}")
        return done.stdout[:LIMIT]


def _place(anchor: AnchorSetting, size: int) -> Path:
    if anchor.folder is None:
        raise AssertionError("an anchor of files has its folder")
    return anchor.folder / f"checkpoint-{size:012}"


def wrong_receipts(reads: Reads, anchors: Sequence[AnchorSetting] = ()) -> list[tuple[int, str]]:
    """(size, sentence) of each receipt that does not fit its checkpoint; signatures of authorities are checked where
    the configuration has their certificates. Raises Misconfigured, where the library is missing and needed."""
    settings = {each.name: each for each in anchors}
    found = []
    for kept in receipts(reads):
        try:
            _check(kept, settings.get(kept.anchor))
        except Wrong as wrong:
            found.append((kept.size, f"the receipt of anchor {kept.anchor} for this head: {wrong}"))
    return found


def _check(kept: Kept, anchor: AnchorSetting | None) -> None:
    if kept.note is None:
        raise Wrong("there is no checkpoint of that size")
    parse_note(kept.note)
    if kept.kind == "rfc3161":
        stamped(kept.receipt, kept.note, anchor.ca_file if anchor else None)
    elif kept.kind == "file":
        if kept.receipt != hashlib.sha256(kept.note).hexdigest().encode():
            raise Wrong("it is of another checkpoint")
        place = _place(anchor, kept.size) if anchor is not None and anchor.folder else None
        if place is not None and place.exists() and place.read_bytes() != kept.note:
            raise Wrong("the file that was handed over says something else")
