"""Random bytes from the operating system, asked for in blocks: a hook call needs thirty keys, nonces and references."""

from __future__ import annotations

import os
import threading
import uuid

_BLOCK = 8192


class _Pool:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._block, self._used = b"", 0

    def take(self, count: int) -> bytes:
        with self._lock:
            start = self._used
            if start + count > len(self._block):
                self._block, start = os.urandom(max(_BLOCK, count)), 0
            self._used = start + count
            return self._block[start : start + count]

    def forget(self) -> None:
        """After a fork: parent and child must not hand out the same bytes."""
        self.__init__()  # type: ignore[misc]


_pool = _Pool()
os.register_at_fork(after_in_child=_pool.forget)

random_bytes = _pool.take
"""(count) -> that many bytes that nobody was given before."""


def new_key() -> bytes:
    """A key for AES-256."""
    return random_bytes(32)


def new_ref() -> str:
    """A random reference, 32 hex digits."""
    return random_bytes(16).hex()


def new_uuid() -> str:
    """A random UUID (RFC 9562, version 4) as text."""
    return str(uuid.UUID(bytes=random_bytes(16), version=4))
