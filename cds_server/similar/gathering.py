"""The pools of this process, read from the record: inference after inference by a cursor, a few at a time, in a thread.

Nothing of it is stored. The vectors are those that were sealed with each inference; what-ifs are left out. Whoever is
erased, opts out or is withheld later is not taken out here: `desk` asks the record about each neighbour, each time.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Any

from cds_server.decisions import INFERENCE
from cds_server.similar.groups import groups_of
from cds_server.similar.pool import Member, Pool
from cds_server.store.store import Store
from cds_server.what_if import WHAT_IF
from models.errors import CdsError
from models.nouns import Feature, FeatureVector

AT_ONCE = 200
"""Inferences that are opened between two pauses, so that a hook call does not wait for the interpreter."""
PAUSE = 0.01
_NEXT = (
    "SELECT id, ref, record_id, service, model, sealed FROM inference WHERE id > ? ORDER BY id LIMIT ?"  # ids only grow
)
_LEFT = "SELECT COUNT(*) FROM inference WHERE id > ?"


class Gathering:
    """Pools by the model's name."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._pools: dict[str, Pool] = {}
        self._cursor = 0
        self._reading = threading.Lock()
        self._closed = False

    def pool(self, model: str) -> Pool:
        """Of a model, whatever its version: encoders are held apart."""
        return self._pools.setdefault(model, Pool())

    def left(self) -> int:
        """Inferences that are not in the pools yet."""
        return int(self._store.reads.query(_LEFT, (self._cursor,))[0][0])

    def catch_up(self, seconds: float) -> bool:
        """Read on, for so long at most; True where nothing is left. One thread at a time: others are told False."""
        if not self._reading.acquire(blocking=False):
            return False
        try:
            until = time.monotonic() + seconds
            while not self._closed:
                rows = self._store.reads.query(_NEXT, (self._cursor, AT_ONCE))
                if not rows:
                    return True
                self._take(rows)
                if time.monotonic() > until:
                    return False
                time.sleep(PAUSE)
            return False
        finally:
            self._reading.release()

    def begin(self) -> None:
        """Read all the rest in a thread."""
        if not self._reading.locked():
            threading.Thread(target=self._all, name="cds-similar", daemon=True).start()

    def close(self) -> None:
        self._closed = True

    def _all(self) -> None:
        try:
            while not self._closed and not self.catch_up(60) and not self._reading.locked():
                pass
        except CdsError:  # the store is closed, or not to be had: the next page tries again
            return

    def _take(self, rows: Sequence[Any]) -> None:
        found: dict[str, list[Member]] = {}
        for inference, ref, record, service, model, sealed in rows:
            if not service.startswith(WHAT_IF):
                member = self._member(inference, ref, record, sealed)
                if member is not None:
                    found.setdefault(model.partition("@")[0], []).append(member)
        for name, members in found.items():
            self.pool(name).put(members)
        self._cursor = rows[-1][0]

    def _member(self, inference: int, ref: str, record: int, sealed: bytes) -> Member | None:
        """None where it cannot be opened: erased."""
        try:
            judged = self._store.reads.open_payload(INFERENCE, ref, sealed)
        except CdsError:
            return None
        vectors = tuple(_vector(each) for each in judged["vectors"])
        return Member(inference, record, vectors, judged["score"].get("probability"), groups_of(vectors))


def _vector(plain: Any) -> FeatureVector:
    features = tuple(
        Feature(each["name"], float(each.get("value", "nan")), each["missing"]) for each in plain.get("features", ())
    )
    return FeatureVector(plain["modality"], plain["encoder"], features, plain.get("absent"))
