"""Background work: what may follow off the path of a hook call. Leased, so that of several processes one does it.

Today: full R4 validation of what hook calls brought. Its verdict is a row of its own; where a resource fails, the
inferences of the call that brought it are flagged.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from adapters.readers import validation
from cds_server import logs
from cds_server.digest import VALIDATOR
from cds_server.logs import log
from cds_server.settings import Settings
from cds_server.store.store import Store
from cds_server.store.writer import Tx
from models import strict
from models.errors import CdsError, Unreadable
from models.nouns import instant

IDLE = 0.5
"""Seconds between two looks for work."""
SETTLED = 2.0
"""Seconds after which a call's inference is on record, or never will be."""
LEASE = 30.0
BATCH = 64


def run(settings: Settings, parent: int) -> None:
    """Work until the parent process is gone, at the lowest priority."""
    logs.configure(settings.log_level)
    os.nice(19)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    store = Store.open(settings.data_dir, settings.database_url)
    holder = uuid.uuid4().hex
    validator = Validator(store)
    try:
        while os.getppid() == parent:
            try:
                worked = lease(store, "validate", holder) and validator.some()
            except CdsError as error:
                log().error("background work failed", job="validate", what=error.what)
                worked = False
            if not worked:
                time.sleep(IDLE)
    finally:
        with contextlib.suppress(CdsError):
            store.close()


def lease(store: Store, name: str, holder: str) -> bool:
    """Take or keep the lease on a kind of work; False while another holds it."""
    moment = datetime.now(UTC)
    until = instant(moment + timedelta(seconds=LEASE))

    def act(tx: Tx) -> bool:
        held = tx.read("SELECT holder, until FROM lease WHERE name = ?", (name,))
        if not held:
            tx.execute("INSERT INTO lease (name, holder, until) VALUES (?, ?, ?)", (name, holder, until))
            return True
        if held[0][0] != holder and held[0][1] > instant(moment):
            return False
        tx.execute("UPDATE lease SET holder = ?, until = ? WHERE name = ?", (holder, until, name))
        return True

    row = store.reads.one("SELECT holder, until FROM lease WHERE name = ?", (name,))
    if row and row[0] == holder and row[1] > instant(moment + timedelta(seconds=LEASE / 2)):
        return True
    return store.writer.submit(act).result()


class Validator:
    """Asks fhir.resources about readable resources, oldest first, and records what it says."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._cursor = 0

    def some(self) -> int:
        """Validate up to a batch; gives how many."""
        settled = instant(datetime.now(UTC) - timedelta(seconds=SETTLED))
        rows = self._store.reads.query(
            "SELECT r.id, r.landing_id, r.part, r.pointer FROM resource r "
            "LEFT JOIN validation v ON v.resource_id = r.id "
            "WHERE r.id > ? AND v.id IS NULL AND r.known_from < ? ORDER BY r.id LIMIT ?",
            (self._cursor, settled, BATCH),
        )
        if not rows:
            return 0
        verdicts = [
            (resource_id, landing_id, pointer, self._ask(landing_id, part, pointer))
            for resource_id, landing_id, part, pointer in rows
        ]

        def act(tx: Tx) -> None:
            for resource_id, landing_id, pointer, problems in verdicts:
                tx.add(
                    "validation",
                    resource_id=resource_id,
                    valid=not problems,
                    validator=VALIDATOR,
                    problems="; ".join(problems[:20]) or None,
                )
                if problems:
                    _flag(tx, landing_id, pointer)
            invalid = sum(bool(problems) for *_, problems in verdicts)
            tx.entry("validate", "system", {"resources": len(verdicts), "invalid": invalid, "validator": VALIDATOR})

        self._store.writer.submit(act).result()
        self._cursor = rows[-1][0]
        return len(rows)

    def _ask(self, landing_id: int, part: int, pointer: str) -> list[str]:
        landing = self._store.reads.landing(landing_id)
        if landing is None:
            return ["the landing is gone"]
        try:
            return validation.validate(resource_at(strict.loads(self._store.part(landing, part)), pointer))
        except CdsError as error:
            return [error.what]


def resource_at(body: Any, pointer: str) -> Mapping[str, Any]:
    """The object that a JSON pointer (RFC 6901) names. Raises Unreadable."""
    found = body
    for step in pointer.split("/")[1:]:
        name = step.replace("~1", "/").replace("~0", "~")
        try:
            found = found[int(name)] if isinstance(found, list) else found[name]
        except (KeyError, IndexError, ValueError, TypeError):
            raise Unreadable("the part has nothing at this pointer", where=pointer) from None
    if not isinstance(found, Mapping):
        raise Unreadable("what stands at this pointer is not an object", where=pointer)
    return found


def _flag(tx: Tx, landing_id: int, pointer: str) -> None:
    """Flag the inferences of the call that brought an invalid resource."""
    for (inference_id,) in tx.read(
        "SELECT i.id FROM inference i JOIN call c ON c.id = i.call_id WHERE c.landing_id = ?", (landing_id,)
    ):
        tx.add(
            "flag",
            kind="flag",
            reason="invalid-resource",
            landing_id=landing_id,
            pointer=pointer or None,
            inference_id=inference_id,
            detail="a resource of the call that this inference rests on is not valid R4",
            at=tx.now,
        )
