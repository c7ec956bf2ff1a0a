"""A witness: signs that a log only grew, as far as it ever saw it (c2sp.org/tlog-witness, c2sp.org/tlog-cosignature).

It runs elsewhere, under somebody else, with a key of its own, and knows of each log two things: the keys that sign it,
and the last checkpoint that it signed itself. A log that was cut, written anew or shown in two forms cannot have both
forms signed. The last checkpoint is on disk before the answer leaves.

    DIR/witness.key   its private key        DIR/name   the name that it signs under
    DIR/logs          keys of logs, a line each          DIR/seen/…  the last checkpoint of each log
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import os
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from cds_server.checkpoints import replace
from cds_server.ledger.note import SEED, Signer
from cds_server.ledger.tree import EMPTY_ROOT
from cds_server.ledger.verifier import (
    WITNESS,
    Checkpoint,
    Key,
    Wrong,
    open_checkpoint,
    parse_growth,
    parse_key,
    parse_note,
    verify_consistency,
)
from cds_server.store.entropy import random_bytes
from models.errors import Conflict, Misconfigured

MOST = 64 << 10
"""Bytes of a request."""
TEXT = "text/plain; charset=utf-8"
SIZE = "text/x.tlog.size"
PATH = "/add-checkpoint"
SEEN = "/checkpoints"


class Witness:
    """Of one folder; one process at a time. Errors: Conflict, Misconfigured."""

    def __init__(
        self, folder: Path, name: str = "", logs: Sequence[str] = (), now: Callable[[], float] = time.time
    ) -> None:
        (folder / "seen").mkdir(parents=True, exist_ok=True, mode=0o700)
        self._folder = folder
        self._now = now
        self._gate = open(folder / "lock", "a", encoding="ascii")  # noqa: SIM115 (held as long as this object)
        try:
            fcntl.flock(self._gate, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._gate.close()
            raise Conflict("another process is the witness of this folder", where=folder.name) from None
        try:
            self._signer = Signer(self._named(name), self._seed(), WITNESS)
            self._logs = self._known(logs)
        except BaseException:
            self.close()
            raise
        self._lock = threading.Lock()

    @property
    def key(self) -> Key:
        return self._signer.key

    def close(self) -> None:
        self._gate.close()

    def add(self, raw: bytes) -> tuple[int, str, bytes]:
        """Status, media type and body of the answer to `add-checkpoint`."""
        try:
            old, hashes, note = parse_growth(raw)
            parsed = parse_note(note)
        except Wrong as wrong:
            return _said(400, wrong)
        origin = parsed.text.partition("\n")[0]
        keys = [key for key in self._logs if key.name == origin]
        if not keys:
            return _said(404, "no such log is known here")
        try:
            checkpoint = open_checkpoint(note, keys)
        except Wrong as wrong:
            return _said(403, wrong)
        if old > checkpoint.size:
            return _said(400, "the old size is larger than the checkpoint")
        with self._lock:  # the look at what was signed, and the next signature, are one step
            last = self._last(origin)
            if old != (last.size if last else 0):
                return 409, SIZE, f"{last.size if last else 0}\n".encode()
            if last is not None and last.size == checkpoint.size and last.root != checkpoint.root:
                return _said(409, "another root was signed at this size")
            try:
                _grew(last, checkpoint, hashes)
            except Wrong as wrong:
                return _said(422, wrong)
            line = self._signer.cosignature(parsed.text, int(self._now())).encode()
            replace(self._seen(origin), note + line)
        return 200, TEXT, line

    def seen(self) -> bytes:
        """The last checkpoint of each log, as it was signed here."""
        notes = [path.read_bytes() for path in sorted((self._folder / "seen").glob("*.note"))]
        return b"--------\n".join(notes)

    # -- its folder ----------------------------------------------------------------------------------------------------

    def _last(self, origin: str) -> Checkpoint | None:
        try:
            note = self._seen(origin).read_bytes()
        except FileNotFoundError:
            return None
        return open_checkpoint(note, self._logs)

    def _seen(self, origin: str) -> Path:
        return self._folder / "seen" / f"{hashlib.sha256(origin.encode()).hexdigest()}.note"

    def _seed(self) -> bytes:
        path = self._folder / "witness.key"
        if not path.exists():
            if any((self._folder / "seen").iterdir()):
                raise Misconfigured("the witness has signed before, and its key is gone", where=path.name)
            replace(path, random_bytes(SEED))
            os.chmod(path, 0o600)
        seed = path.read_bytes()
        if len(seed) != SEED:
            raise Misconfigured(f"the key of the witness is not {SEED} bytes", where=path.name)
        return seed

    def _named(self, name: str) -> str:
        path = self._folder / "name"
        known = path.read_text(encoding="utf-8").strip() if path.exists() else ""
        if known and name and known != name:
            raise Misconfigured("this witness has signed under another name before", where="--name")
        if not known:
            if not name:
                raise Misconfigured("a new witness needs a name, such as witness.example.org/1", where="--name")
            replace(path, f"{name}\n".encode())
        return known or name

    def _known(self, more: Sequence[str]) -> list[Key]:
        path = self._folder / "logs"
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        try:
            keys = list(dict.fromkeys(parse_key(line) for line in [*lines, *more] if line.strip()))
        except Wrong as wrong:
            raise Misconfigured(f"the key of a log: {wrong}", where="--log, or the file `logs`") from None
        if more:
            replace(path, "".join(f"{key}\n" for key in keys).encode())
        return keys


def _grew(last: Checkpoint | None, new: Checkpoint, hashes: Sequence[bytes]) -> None:
    if last is not None and last.size:
        verify_consistency(last.size, last.root, new.size, new.root, hashes)
    elif hashes:
        raise Wrong("from an empty log there is no proof")
    elif not new.size and new.root != EMPTY_ROOT:
        raise Wrong("an empty log has another root")


def _said(status: int, what: Wrong | str) -> tuple[int, str, bytes]:
    return status, TEXT, f"{what}\n".encode()


def create_app(witness: Witness) -> Starlette:
    async def add(request: Request) -> Response:
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > MOST:
                return Response("the request is too large\n", 413, media_type=TEXT)
        status, media_type, answer = await asyncio.to_thread(witness.add, bytes(body))
        return Response(answer, status, headers={"Content-Type": media_type})

    async def seen(_: Request) -> Response:
        return Response(await asyncio.to_thread(witness.seen), media_type=TEXT)

    return Starlette(routes=[Route(PATH, add, methods=["POST"]), Route(SEEN, seen, methods=["GET"])])
