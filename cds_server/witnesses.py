"""Our side of the witness protocol (c2sp.org/tlog-witness): each checkpoint goes to every witness of the configuration.

A witness is somebody else's machine. What it answers counts only where its signature over this very checkpoint holds;
one that is slow, down or wrong is shown (`ledger_state`, metrics, readiness) and stops nothing.
"""

from __future__ import annotations

import ssl
import time
from functools import partial

from cds_server.checkpoints import Checkpoints, Signed, say
from cds_server.http import post_now
from cds_server.ledger.note import growth_text
from cds_server.ledger.tree import consistency
from cds_server.ledger.verifier import Wrong, number, open_cosignature, parse_note
from cds_server.ledger_settings import WitnessSetting
from cds_server.store.store import Store
from cds_server.store.writer import Tx
from models.errors import CdsError, PeerFailed

SECONDS = 10.0
"""That a witness is given for an answer."""
LIMIT = 64 << 10
CLOCKS = 3600
"""Seconds by which a witness's time may differ from ours."""
SIZE = "text/x.tlog.size"


def name_of(witness: WitnessSetting) -> str:
    """Of its row in `ledger_state`."""
    return f"witness {witness.name}"


class Witnessing:
    """Has one witness sign. One object a witness: they do not wait for each other."""

    def __init__(
        self, store: Store, checkpoints: Checkpoints, witness: WitnessSetting, verify: ssl.SSLContext | bool = True
    ) -> None:
        self._store = store
        self._checkpoints = checkpoints
        self._witness = witness
        self._verify = verify

    def cosigned(self) -> int:
        """The largest size that it signed for the present origin; 0 for none."""
        row = self._store.reads.one(
            "SELECT MAX(s.size) FROM ledger_cosignature s JOIN ledger_checkpoint c ON c.size = s.size "
            "WHERE s.witness = ? AND c.origin = ?",
            (self._witness.name, self._checkpoints.origin or ""),
        )
        return int(row[0]) if row and row[0] is not None else 0

    def submit(self) -> bool:
        """Have the newest checkpoint signed; whether it is now. What is wrong is noted, and never raised."""
        signed = self._checkpoints.last()
        try:
            if signed is None or signed.checkpoint.origin != self._checkpoints.origin:
                return False
            known = self.cosigned()
            if known < signed.checkpoint.size:
                self._keep(signed, self._ask(signed, known))
        except (CdsError, Wrong) as error:
            say(self._store, name_of(self._witness), error.what if isinstance(error, CdsError) else str(error))
            return False
        say(self._store, name_of(self._witness), "")
        return True

    def _ask(self, signed: Signed, old: int) -> bytes:
        """Its answer to a checkpoint; once more where it knows another size than we thought. Errors: PeerFailed."""
        size = signed.checkpoint.size
        for _ in range(2):
            hashes = consistency(self._checkpoints.tiles.node, old, size) if old else []
            status, media_type, body = post_now(
                f"{self._witness.url}/add-checkpoint",
                growth_text(old, hashes, signed.note),
                seconds=SECONDS,
                limit=LIMIT,
                verify=self._verify,
            )
            if status != 409 or media_type.partition(";")[0].strip() != SIZE:
                break
            seen = number(body.decode("ascii", "replace").removesuffix("\n"))
            if seen > size:
                raise PeerFailed(
                    f"entry {size + 1}: it signed {seen} entries of this log, which has signed {size}: an older copy "
                    "of the log, or a witness that lies"
                )
            if seen == old:
                raise PeerFailed("it refuses the size that it says it knows: a witness that lies")
            old = seen
        if status == 200:
            return body
        raise PeerFailed(_REFUSALS.get(status, f"answered {status}"))

    def _keep(self, signed: Signed, lines: bytes) -> None:
        """Errors: Wrong, where its signature does not hold or is none of now."""
        text = signed.note.partition(b"\n\n")[0] + b"\n\n"
        note = parse_note(text + lines)
        seconds = open_cosignature(note, self._witness.key)
        if seconds is None:
            raise Wrong("its answer carries no signature of its key")
        if abs(seconds - time.time()) > CLOCKS:
            raise Wrong("its clock and ours differ by more than an hour")
        line = next(
            line
            for line in lines.decode().splitlines(keepends=True)
            if open_cosignature(parse_note(text + line.encode()), self._witness.key) is not None
        )
        self._store.writer.submit(
            partial(_insert, size=signed.checkpoint.size, witness=self._witness.name, line=line)
        ).result()


_REFUSALS = {
    403: "it does not know the key that signs this log: give it the one of `cds ledger keys`",
    404: "it does not know this log: give it the key of `cds ledger keys`",
    409: "at the same size it saw another root: the log was forked, or a witness that lies",
    422: "it does not find that this log only grew: the log was forked, or a witness that lies",
}


def _insert(tx: Tx, size: int, witness: str, line: str) -> None:
    tx.execute(
        "INSERT INTO ledger_cosignature (size, witness, line, at) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
        (size, witness, line, tx.now),
    )
