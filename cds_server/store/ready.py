"""Names whose keys are on disk before anybody needs them, so that what is sealed under them waits for one disk less.

A key must be durable before the row that needs it. A key without a row does no harm: so many of them are stored at
once, ahead, in a thread, and each is handed out once. A process that ends leaves those that it did not hand out: never
more than it did.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import MappingProxyType
from typing import Protocol

from cds_server.store.entropy import new_key, random_bytes
from models.canonical import Noun
from models.errors import CdsError

NO_KEYS: Mapping[bytes, bytes] = MappingProxyType({})
MOST = 256
"""Names of a kind that are kept ready."""
_FROM = 8
"""Names of a kind that are asked for before any is made ahead: a command of one delivery leaves none behind."""
_SPENT = 256
"""Keys of nothing that wait for their end at most, before they are destroyed."""


class Keys(Protocol):
    """What is asked of the key store."""

    def put(self, keys: Sequence[tuple[bytes, bytes]]) -> None: ...

    def destroy(self, refs: Sequence[bytes]) -> None: ...

    def in_place(self) -> bool: ...


class Taken(Protocol):
    """Keys that are on disk, by reference."""

    def get(self, ref: bytes, /) -> bytes | None: ...


class Name(Noun, frozen=True):
    """A random reference, and the keys under it that are on disk already (none: whoever seals makes them)."""

    ref: str
    """32 hex digits."""
    keys: Mapping[bytes, bytes]
    """Key reference -> key."""

    @property
    def uuid(self) -> str:
        """The reference as a random UUID (RFC 9562, version 4): it was made as one."""
        ref = self.ref
        return f"{ref[:8]}-{ref[8:12]}-{ref[12:16]}-{ref[16:20]}-{ref[20:]}"


class ReadyKeys:
    """Hands out names of each kind. There are as many ready as were asked for so far, up to `MOST`."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        self._lock = threading.Lock()
        self._thread = ThreadPoolExecutor(1, "cds-keys")
        self._kinds: dict[tuple[bytes, ...], _Kind] = {}
        self._spent: list[bytes] = []
        self._process = os.getpid()

    def name(self, kind: bytes, *ends: bytes) -> Name:
        """A new name; its keys stand under `kind` + the reference's 16 bytes + each of `ends` (none: one key, under
        no more than these), if there was one ready."""
        return self.one_of((kind, *ends), in_place=self._keys.in_place())

    def in_place(self) -> bool:
        """Whether the key store is where it was: what is ready is of nothing where it was taken away."""
        return self._keys.in_place()

    def one_of(self, kind: tuple[bytes, ...], *, in_place: bool) -> Name:
        """As `name`, for whoever asks for several in one act and looked once whether the key store is `in_place`."""
        with self._lock:
            if os.getpid() == self._process:  # else forked: what is ready is the parent's
                of = self._kinds.get(kind)
                if of is None:
                    of = self._kinds[kind] = _Kind()
                of.asked += 1
                if of.asked >= _FROM and not of.filling and len(of.ready) <= min(MOST, of.asked) // 2:
                    of.filling = True
                    self._thread.submit(self._fill, kind, min(MOST, of.asked))
                if of.ready and in_place:
                    return of.ready.popleft()
        return Name(_new_ref().hex(), NO_KEYS)

    def spent(self, refs: Mapping[bytes, bytes]) -> None:
        """Keys of what was not kept after all: their end may wait, and is not certain."""
        with self._lock:
            self._spent += refs
            if len(self._spent) < _SPENT:
                return
            refs_now, self._spent = self._spent, []
        with contextlib.suppress(RuntimeError):  # closed
            self._thread.submit(self._destroy, refs_now)

    def close(self) -> None:
        """Wait for what is under way. Whoever asks then makes keys of its own."""
        with self._lock:
            self._process = 0
        self._thread.shutdown(wait=True)

    def _fill(self, of_kind: tuple[bytes, ...], wanted: int) -> None:
        of, (kind, *ends) = self._kinds[of_kind], of_kind
        refs = [_new_ref() for _ in range(max(1, wanted - len(of.ready)))]
        names = [Name(ref.hex(), {kind + ref + end: new_key() for end in ends or (b"",)}) for ref in refs]
        try:
            self._keys.put([key for name in names for key in name.keys.items()])
        except CdsError:  # whoever stores a key of its own is told
            names = []
        with self._lock:
            of.ready.extend(names)
            of.filling = False

    def _destroy(self, refs: list[bytes]) -> None:
        with contextlib.suppress(CdsError):
            self._keys.destroy(refs)


class Names:
    """The names of one act. A key is had for sealing once."""

    def __init__(self, ready: ReadyKeys) -> None:
        self._ready = ready
        self._in_place: bool | None = None
        self._keys: dict[bytes, bytes] = {}

    def ref(self, kind: bytes) -> str:
        """32 hex digits."""
        return self._named(kind).ref

    def uuid(self, kind: bytes) -> str:
        """The same as a UUID."""
        return self._named(kind).uuid

    def _named(self, kind: bytes) -> Name:
        if self._in_place is None:
            self._in_place = self._ready.in_place()
        name = self._ready.one_of((kind,), in_place=self._in_place)
        self._keys |= name.keys
        return name

    def get(self, ref: bytes, /) -> bytes | None:
        """The key of a name that was ready; afterwards it is used."""
        return self._keys.pop(ref, None)

    def done(self) -> None:
        """The act is on record: what nothing was sealed under is of nothing."""
        if self._keys:
            self._ready.spent(self._keys)


class _Kind:
    def __init__(self) -> None:
        self.ready: deque[Name] = deque()
        self.asked = 0
        self.filling = False


def _new_ref() -> bytes:
    """16 random bytes with the marks of a random UUID (RFC 9562 section 5.4): version 4, variant 10."""
    ref = bytearray(random_bytes(16))
    ref[6], ref[8] = ref[6] & 0x0F | 0x40, ref[8] & 0x3F | 0x80
    return bytes(ref)
