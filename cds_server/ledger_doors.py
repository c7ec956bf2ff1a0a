"""The log over HTTP, for operators: the signed head, the proof of an entry; and how it goes with signing, for all."""

from __future__ import annotations

import base64
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import orjson
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from cds_server import wire
from cds_server.anchors import Anchoring, state_of
from cds_server.checkpoints import Checkpoints, states
from cds_server.keeper import SIGNING
from cds_server.ledger.tree import inclusion
from cds_server.operators import Operators
from cds_server.settings import Settings
from cds_server.store.store import Store
from cds_server.witnesses import Witnessing, name_of
from models.errors import CdsError, NotFound

LATE = 6
"""Times the interval of checkpoints, and at least a minute, after which an unsigned entry is a warning."""
KEPT = 2.0
"""Seconds that what is told to anybody is kept."""


class LedgerWatch:
    """How it goes with signing and with witnesses."""

    def __init__(self, store: Store, settings: Settings) -> None:
        self._store = store
        self._seconds = settings.checkpoint_seconds
        self.checkpoints = Checkpoints(store, settings.public_url)
        self._witnesses = {each.name: Witnessing(store, self.checkpoints, each) for each in settings.witnesses}
        self._names = {each.name: name_of(each) for each in settings.witnesses}
        self._anchors = {each.name: Anchoring(store, self.checkpoints, each) for each in settings.anchors}
        self._anchor_rows = {each.name: state_of(each) for each in settings.anchors}
        self._told: tuple[float, dict[str, str]] = (float("-inf"), {})

    def warnings(self) -> Mapping[str, str]:
        """What somebody must look at; the server goes on serving. Errors: none, they are told."""
        if time.monotonic() - self._told[0] > KEPT:
            try:
                found = self._warnings()
            except CdsError as error:
                found = {"checkpoint": error.what}
            self._told = time.monotonic(), found
        return self._told[1]

    def _warnings(self) -> dict[str, str]:
        found, said = {}, states(self._store)
        if refused := said.get(SIGNING, ("", ""))[0]:
            found["checkpoint"] = refused
        elif self._seconds:
            entries, seconds = self.checkpoints.lag()
            if seconds > max(60, LATE * self._seconds):
                found["checkpoint"] = f"{entries} entries are not signed yet, the oldest for {round(seconds)} s"
        for name, row in self._names.items():
            if trouble := said.get(row, ("", ""))[0]:
                found[f"witness {name}"] = trouble
        for name, anchoring in self._anchors.items():
            if what := said.get(self._anchor_rows[name], ("", ""))[0] or anchoring.late():
                found[f"anchor {name}"] = what
        return found

    def anchored(self) -> dict[str, tuple[int, float, bool]]:
        """Anchor -> (entries that it has no receipt for, age of its last receipt in seconds, trouble)."""
        said, head = states(self._store), self._store.reads.head()[0]
        found = {}
        for name, anchoring in self._anchors.items():
            size, at = anchoring.last()
            age = (datetime.now(UTC) - at).total_seconds() if at else 0.0
            found[name] = head - size, max(0.0, age), bool(said.get(self._anchor_rows[name], ("", ""))[0])
        return found

    def figures(self) -> tuple[int, float, bool, dict[str, tuple[int, bool]]]:
        """(unsigned entries, age of the oldest, signing refused, witness -> (entries it did not sign, trouble))."""
        said, head = states(self._store), self._store.reads.head()[0]
        witnesses = {
            name: (head - each.cosigned(), bool(said.get(self._names[name], ("", ""))[0]))
            for name, each in self._witnesses.items()
        }
        return *self.checkpoints.lag(), bool(said.get(SIGNING, ("", ""))[0]), witnesses


def proof_of(store: Store, checkpoints: Checkpoints, seq: int) -> dict[str, Any]:
    """One entry as it stands in the log, and how it leads to the newest signed head. Errors: NotFound, LedgerBroken."""
    entry = store.reads.entry(seq)
    if entry is None:
        raise NotFound("there is no such ledger entry")
    found: dict[str, Any] = {
        "seq": seq,
        "leaf": entry.leaf.hex(),
        "chain": entry.chain.hex(),
        "entry": orjson.loads(entry.body),
    }
    signed = checkpoints.last()
    if signed is not None and signed.checkpoint.size >= seq:
        hashes = inclusion(checkpoints.tiles.node, seq - 1, signed.checkpoint.size)
        found["inclusion"] = [base64.b64encode(each).decode() for each in hashes]
        found["checkpoint"] = signed.note.decode()
    return found


def router(store: Store, watch: LedgerWatch, operators: Operators) -> APIRouter:
    async def checkpoint(request: Request) -> Response:
        """The newest signed head, with what witnesses signed under it (c2sp.org/tlog-checkpoint)."""
        operators.check(request)
        signed = watch.checkpoints.last()
        if signed is None:
            raise NotFound("the log was not signed yet")
        return Response(signed.note, media_type="text/plain; charset=utf-8", headers={"Cache-Control": "no-store"})

    async def proof(request: Request) -> Response:
        operators.check(request)
        return wire.json_response(proof_of(store, watch.checkpoints, request.path_params["seq"]))

    api = APIRouter(redirect_slashes=False)
    api.add_route("/ledger/checkpoint", checkpoint, methods=["GET"])
    api.add_route("/ledger/proof/{seq:int}", proof, methods=["GET"])
    return api
