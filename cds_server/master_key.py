"""The key above all keys: from a file, from the environment, or kept by a KMS that a hook command speaks to.

    [master_key]
    file = "/etc/cds/master.key"           32 bytes in base64, for its owner only; or CDS_MASTER_KEY
    command = ["/usr/local/bin/kms", "…"]  instead: called with `wrap` or `unwrap` as its last argument, the bytes in
                                           base64 on stdin, the answer in base64 on stdout, within `seconds`

It is used once, when a process opens the key store: a hook call never waits for it.
"""

from __future__ import annotations

import base64
import binascii
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cds_server.configured import Table
from cds_server.store.entropy import random_bytes
from cds_server.store.key_store import KEY_BYTES, LocalMaster, Master
from models.errors import Misconfigured, PeerFailed

VARIABLE = "CDS_MASTER_KEY"
SECONDS = 10
_MOST = 64 << 10


@dataclass(frozen=True, slots=True)
class HookMaster:
    """A key that somebody else holds (KMS, HSM): we only ever see what it wraps."""

    command: tuple[str, ...]
    seconds: int = SECONDS

    @property
    def name(self) -> str:
        return f"the command {Path(self.command[0]).name}"

    def wrap(self, key: bytes) -> bytes:
        return self._asked("wrap", key)

    def unwrap(self, wrapped: bytes) -> bytes:
        return self._asked("unwrap", wrapped)

    def _asked(self, verb: str, sent: bytes) -> bytes:
        """Errors: PeerFailed. What it wrote to stderr is not repeated: it may be anything."""
        where = f"[master_key] {verb}"
        try:
            done = subprocess.run(  # noqa: S603 (the operator's own program, a list of arguments, no shell)
                [*self.command, verb],
                input=base64.b64encode(sent) + b"\n",
                capture_output=True,
                timeout=self.seconds,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise PeerFailed(f"the master key's command did not answer within {self.seconds} s", where=where) from None
        except OSError as error:
            raise PeerFailed(f"the master key's command cannot be run ({type(error).__name__})", where=where) from None
        if done.returncode:
            raise PeerFailed(f"the master key's command ended with code {done.returncode}", where=where)
        try:
            answer = base64.b64decode(done.stdout[:_MOST].strip(), validate=True)
        except (binascii.Error, ValueError):
            answer = b""
        if not answer:
            raise PeerFailed("the master key's command answered something else than base64", where=where)
        return answer


def read_master(entry: Any, origin: str, environ: Mapping[str, str]) -> Master | None:
    """`[master_key]`, or the environment. Errors: Misconfigured."""
    if entry is not None and not isinstance(entry, dict):
        raise Misconfigured(f"master_key in {origin} is not a table: write [master_key]")
    table = Table(entry or {}, "[master_key]", origin)
    table.known_only(frozenset({"file", "command", "seconds"}))
    command, file = table.texts("command"), table.text("file")
    given = [VARIABLE in environ, bool(command), file is not None]
    if sum(given) > 1:
        raise Misconfigured(f"[master_key] in {origin} or {VARIABLE}: one of file, command and environment")
    if command:
        return HookMaster(command, table.seconds("seconds", SECONDS, 1, 300))
    if file is not None:
        return from_file(Path(file), f"file of [master_key] in {origin}")
    if entry is not None and VARIABLE not in environ:
        raise Misconfigured(f"[master_key] in {origin} has neither file nor command")
    return LocalMaster(VARIABLE, _key(environ[VARIABLE], VARIABLE)) if VARIABLE in environ else None


def from_file(path: Path, named: str) -> LocalMaster:
    """Errors: Misconfigured (others may read it, it cannot be read, it is no key)."""
    try:
        if os.stat(path).st_mode & 0o077:
            raise Misconfigured(f"{named} names a file that others may read: chmod 600")
        text = path.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError):
        raise Misconfigured(f"{named} names a file that cannot be read") from None
    return LocalMaster(f"the file {path.name}", _key(text, named))


def _key(text: str, named: str) -> bytes:
    try:
        raw = base64.b64decode(text.strip(), validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    if len(raw) != KEY_BYTES:
        raise Misconfigured(f"{named} is not {KEY_BYTES} bytes in base64: cds keys master new")
    return raw


def new_text() -> str:
    """A new master key as it is written."""
    return base64.b64encode(random_bytes(KEY_BYTES)).decode()
