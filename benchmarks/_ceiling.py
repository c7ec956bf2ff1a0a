"""What a recorded call asks of other people's code, and nothing of ours: one real call is taken down, then done again.

Taken down from a call through the whole application: the payloads that it sealed, the rows that it inserted, the graphs
that it ran with their inputs, the answer. The server then does for each request: parse the body (msgspec), check one
signature (RS384, where asked), run the same graphs (ONNX Runtime), seal the same payloads with a key and a commitment
each (cryptography), hash each row, insert the same rows into tables without an index or trigger, commit them with those
of the requests that wait (SQLite, full sync), encode the answer. No reading of FHIR, no card, no canonical form, no
look-up, no check. No server that keeps this record in these libraries can be faster than that in one process.
"""

from __future__ import annotations

import argparse
import asyncio
import fcntl
import hashlib
import hmac
import itertools
import os
import pickle
import sqlite3
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import msgspec
import onnxruntime
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from fastapi import FastAPI, Request
from fastapi.responses import Response

from benchmarks._bodies import Bodies
from benchmarks._inside import application, call
from cds_server import logs
from cds_server.serve import run_app
from cds_server.store import vault, writer
from cds_server.store.tables import COLUMNS
from models import runtime

NONCE = bytes(12)


@dataclass
class Taken:
    """Of one call."""

    answer: bytes = b""
    sealed: list[bytes] = field(default_factory=list)
    """Payloads."""
    graphs: list[tuple[bytes, list[str], dict[str, Any]]] = field(default_factory=list)
    """File, outputs and inputs of each run."""
    rows: list[tuple[str, int, list[tuple[Any, ...]]]] = field(default_factory=list)
    """Table, number of columns and rows of each statement."""


def take(data_dir: Path) -> Taken:
    """One call on a new instance, after others that made it warm."""
    logs.configure("warning")
    taken, on = Taken(), [False]
    flush, enter, seal = writer.Tx.flush, writer.Tx.entry, vault.Vault.seal
    load, run = runtime.Session.__init__, runtime.Session.run

    def loaded(self: Any, path: Path, *args: Any, **options: Any) -> None:
        load(self, path, *args, **options)
        self.taken = path.read_bytes()

    def ran(self: Any, feeds: Any) -> Any:
        if on[0]:
            taken.graphs.append((self.taken, list(self._outputs), dict(feeds)))
        return run(self, feeds)

    def flushed(self: Any) -> None:
        if on[0]:
            for table, members in self._rows.items():
                columns = COLUMNS[table]
                taken.rows.append((table, len(columns), [tuple(map(row.get, columns)) for row in members]))
        flush(self)

    def entered(self: Any, *args: Any) -> Any:
        made = enter(self, *args)
        if on[0]:
            cells = (made.seq, made.body, made.leaf, made.chain, made.row_leaves)
            taken.rows.append(("ledger_entry", len(cells), [cells]))
        return made

    def sealing(self: Any, ref: bytes, payload: bytes, *args: Any) -> Any:
        if on[0]:
            taken.sealed.append(payload)
        return seal(self, ref, payload, *args)

    async def calls() -> None:
        bodies = Bodies(7)
        async with application(data_dir) as (app, _):
            for _ in range(20):
                await call(app, bodies.one())
            on[0] = True
            taken.answer = await call(app, bodies.one())
            on[0] = False

    with (
        mock.patch.object(runtime.Session, "__init__", loaded),
        mock.patch.object(runtime.Session, "run", ran),
        mock.patch.object(writer.Tx, "flush", flushed),
        mock.patch.object(writer.Tx, "entry", entered),
        mock.patch.object(vault.Vault, "seal", sealing),
    ):
        asyncio.run(calls())
    return taken


class Recorder:
    """Group commit, as plain as it can be."""

    def __init__(self, path: Path, taken: Taken) -> None:
        self._path, self._taken = path, taken
        self._turn = -1
        self._database: sqlite3.Connection | None = None
        self._ids = itertools.count(1)
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._draining: asyncio.Task[None] | None = None
        self._disk = ThreadPoolExecutor(1)
        self._statements = [
            (f'INSERT INTO "{table}" VALUES ({", ".join("?" * (columns + 1))})', rows)
            for table, columns, rows in taken.rows
        ]

    def _open(self) -> sqlite3.Connection:
        self._turn = os.open(self._path.with_suffix(".turn"), os.O_CREAT | os.O_RDWR, 0o600)
        database = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False, timeout=30)
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "wal_autocheckpoint=4000"):
            database.execute(f"PRAGMA {pragma}")
        for table, columns, _ in self._taken.rows:
            names = ", ".join(f"c{n}" for n in range(columns))
            database.execute(f'CREATE TABLE IF NOT EXISTS "{table}" (id INTEGER PRIMARY KEY, {names})')
        return database

    async def write(self) -> None:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        self._waiting.append(future)
        if self._draining is None or self._draining.done():
            self._draining = loop.create_task(self._drain())
        await future

    async def _drain(self) -> None:
        loop = asyncio.get_running_loop()
        database = self._database = self._database or self._open()
        first = os.getpid() << 32
        while self._waiting:
            group, self._waiting = self._waiting, deque()
            await loop.run_in_executor(self._disk, self._begin, database)
            for statement, rows in self._statements:
                database.executemany(statement, ((first + next(self._ids), *row) for _ in group for row in rows))
            await loop.run_in_executor(self._disk, self._commit, database)
            for future in group:
                future.set_result(None)

    def _begin(self, database: sqlite3.Connection) -> None:
        """SQLite's own waiting for another process sleeps longer each time; a lock on a file does not."""
        fcntl.flock(self._turn, fcntl.LOCK_EX)
        database.execute("BEGIN IMMEDIATE")

    def _commit(self, database: sqlite3.Connection) -> None:
        database.execute("COMMIT")
        fcntl.flock(self._turn, fcntl.LOCK_UN)


def create_app(taken: Taken, home: Path, *, signed: bool) -> FastAPI:
    app = FastAPI()
    recorder = Recorder(home / "ceiling.db", taken)
    sessions: list[tuple[Any, list[str], dict[str, Any]]] = []
    for graph, outputs, feeds in taken.graphs:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        sessions.append((session, outputs, feeds))
    check = _signature() if signed else None
    answer = msgspec.json.decode(taken.answer)
    encoded = [msgspec.msgpack.encode(row, enc_hook=str) for _, _, rows in taken.rows for row in rows]

    @app.post("/cds-services/{service}")
    async def call(request: Request) -> Response:
        msgspec.json.decode(await request.body())
        if check is not None:
            check()
        for session, outputs, feeds in sessions:
            session.run(outputs, feeds)
        for payload in taken.sealed:
            key = os.urandom(32)
            AESGCM(key).encrypt(NONCE, payload, b"")
            hmac.digest(hashlib.sha256(key).digest(), payload, "sha256")
        for row in encoded:
            hashlib.sha256(row).digest()
        await recorder.write()
        return Response(msgspec.json.encode(answer), media_type="application/json")

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    return app


def _signature() -> Callable[[], None]:
    """A check of a token of usual length by a key of 2,048 bits."""
    private, said = rsa.generate_private_key(65537, 2048), os.urandom(500)
    signature, public = private.sign(said, padding.PKCS1v15(), hashes.SHA384()), private.public_key()
    return lambda: public.verify(signature, said, padding.PKCS1v15(), hashes.SHA384())


def main() -> None:
    parser = argparse.ArgumentParser(description="what a recorded call asks of other people's code")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--taken", type=Path, required=True)
    parser.add_argument("--signed", action="store_true")
    parser.add_argument("--processes", type=int, default=1)
    args = parser.parse_args()
    taken: Taken = pickle.loads(args.taken.read_bytes())  # noqa: S301 (written by the script that starts this one)
    run_app(create_app(taken, args.taken.parent, signed=args.signed), "127.0.0.1", args.port, processes=args.processes)


if __name__ == "__main__":
    main()
