"""Sends DICOM objects to an archive by C-STORE; done when it answered, or, where that is asked for, when it committed
itself to keep the object (PS3.4, annexes B and J).

The same bytes under the same SOP Instance UID again are a duplicate at the archive, whatever became of them before.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from uuid import uuid4

from adapters.dicom.peers import DicomPeer
from adapters.dicom.sending import MISSING, Commitment, Reports, reception, send
from adapters.dicom.statuses import told_of
from adapters.sink import Taken, Told

NAME = "dicom"


@dataclass(frozen=True, slots=True)
class Committing:
    """Storage commitment with one archive."""

    wait: float = 60.0
    host: str = "127.0.0.1"
    port: int = 0
    """Where its word comes in on an association of its own; 0: it comes on ours."""
    tls: ssl.SSLContext | None = None


class DicomStore:
    """`adapters.sink.Sink`. `peer` is asked at each delivery. `committing`: an object is done when it is committed."""

    def __init__(self, peer: Callable[[], DicomPeer], committing: Committing | None = None) -> None:
        self._peer, self._committing = peer, committing
        self._reports = Reports()
        self._open = contextlib.ExitStack()
        self._listens = False

    async def deliver(self, message: bytes) -> Told:
        """One Part 10 file. Raises: PeerFailed (nobody knows what became of it), Misconfigured, BadInput (no file)."""
        peer, committing, asked = self._peer(), self._committing, None
        if committing is not None:
            if committing.port and not self._listens:
                where = (committing.host, committing.port)
                self._open.enter_context(
                    reception(self._reports, peer.our_ae_title, peer.ae_title, *where, committing.tls)
                )
                self._listens = True
            asked = Commitment(self._reports, committing.wait, elsewhere=committing.port != 0)
        status = await asyncio.to_thread(send, peer, message, f"2.25.{uuid4().int}", asked)
        return Told(Taken.LATER, f"{status:04X}") if status == MISSING else told_of(status)

    async def close(self) -> None:
        """Each delivery has an association of its own; where words of commitment come in stays open until the end of
        the last one, for a late one would else be refused."""
        self._listens = False
        await asyncio.to_thread(self._open.close)
