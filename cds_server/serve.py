"""Runs the HTTP servers: the one file that knows uvicorn.

One `cds serve` per instance: a lock on the data directory refuses a second and names the first. Several worker
processes share one listening socket and one store. A child process of low priority does the background work, so that it
never competes with a hook call.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import gc
import json
import multiprocessing
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.context import SpawnProcess
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import IO, Any, Protocol

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from adapters.terminology import units
from cds_server import logs
from cds_server.app import build, create_app
from cds_server.background import run as run_background
from cds_server.gathered import Gathered
from cds_server.lifetime import end_with_parent
from cds_server.logs import log
from cds_server.ops import SHARED
from cds_server.settings import Settings
from models.errors import Conflict, Misconfigured, PeerFailed

COLLECT = (10_000, 20, 50)
"""Generations of the collector: a call makes thousands of objects and hardly a cycle."""
HANDOVER = 0.0005
"""Seconds after which a thread that waits for the interpreter gets it: the thread that synced the disk must not wait
for Python's default of five milliseconds."""
STOP_WITHIN = 10
"""Seconds that open requests are given at the end."""


def _sources(settings: Settings) -> Callable[..., None] | None:
    """What is wrong with a source stops the start, not its first use. Gives what listens, where something does.

    Nothing of it is loaded where no source is configured: a server is ready half a second sooner.
    """
    if not settings.sources:
        return None
    from cds_server.bulk_sources import bulk_sources
    from cds_server.dicom_listening import beside, listens

    bulk_sources(settings)
    return beside if listens(settings) else None


def _destinations(settings: Settings) -> Callable[..., None] | None:
    """The same for where results go: what sends them, where anything does."""
    if not settings.destinations:
        return None
    from cds_server.destinations import check
    from cds_server.sending import beside

    check(settings)
    return beside


def _images(settings: Settings) -> Callable[..., None] | None:
    """What indexes images and puts studies together, where any source brings them."""
    if not any(source.kind.startswith("dicom") for source in settings.sources):
        return None
    from cds_server.imaging.work import run

    return run


@contextlib.contextmanager
def only_one(settings: Settings) -> Iterator[IO[str]]:
    """Hold this instance's serve lock, which is the open file. Raises Conflict, naming who holds it."""
    settings.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    with open(settings.data_dir / "serve.lock", "a+", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise Conflict(
                f"this instance is already served by {_holder(lock.read())}", where=settings.data_dir.name
            ) from None
        lock.truncate(0)
        lock.write(json.dumps({"pid": os.getpid(), "host": settings.host, "port": settings.port}))
        lock.flush()
        yield lock


def _holder(text: str) -> str:
    try:
        named = json.loads(text)
        return f"process {int(named['pid'])} on {named['host']}:{int(named['port'])}"
    except (ValueError, KeyError, TypeError):
        return "another process"


def serve(settings: Settings, *, workers: int = 1, background: bool = True) -> None:
    """Serve until SIGTERM or SIGINT."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # uvicorn raises it again once it has stopped: not the end
    feeds, sending = _sources(settings), _destinations(settings)
    with only_one(settings) as lock:
        listening = bind(settings.host, settings.port)
        parts = build(settings)  # the first open migrates and pins; workers then only join
        if sending is not None:
            from cds_server.sending import prepare

            prepare(settings, parts.store)
        parts.close()
        units.prepare()  # before the processes beside: they have it from here
        holds = (lock, listening)
        beside = [_Beside("feeds", feeds, settings, holds=holds)] if feeds is not None else []
        if sending is not None:
            beside.append(_Beside("sending", sending, settings, holds=holds))
        if background:
            beside.append(_Beside("background", run_background, settings, os.getpid(), holds=holds))
            if (imaging := _images(settings)) is not None:
                beside.append(_Beside("imaging", imaging, settings, os.getpid(), holds=holds))
        for each in beside:
            each.watch()
        try:
            if workers == 1:
                worker(settings, listening)
            else:
                _several(settings, listening, workers)
        finally:
            listening.close()
            for each in beside:
                each.stop()


def bind(host: str, port: int) -> socket.socket:
    """A listening socket. Raises Misconfigured when the address cannot be had."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listening = socket.socket(family, socket.SOCK_STREAM)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(1024)
        listening.setblocking(False)
        return listening
    except OSError as error:
        raise Misconfigured(f"cannot listen on {host}:{port}: {error.strerror}", where="host, port") from None


def worker(settings: Settings, listening: socket.socket) -> None:
    """One process's worth of server, on a socket that is already listening."""
    logs.configure(settings.log_level)
    sys.setswitchinterval(HANDOVER)
    parts = build(settings)
    app = create_app(parts)
    units.prepare()  # half a second that no patient's first unit should take
    parts.decisions.warm()
    gc.collect()
    gc.freeze()  # what is here now stays: going through it again and again would stop a call for a fifth of a second
    gc.set_threshold(*COLLECT)
    _run(app, listening)


def _one_of_several(settings: Settings, listening: socket.socket) -> None:
    """A worker that ends with its parent: it would hold the port, and nobody would know that it answers."""
    end_with_parent(signal.SIGTERM)
    worker(settings, listening)


def run_app(app: Any, host: str, port: int, *, processes: int = 1) -> None:
    """Serve another application (the sandbox) until stopped."""
    listening = bind(host, port)
    for _ in range(processes - 1):
        if os.fork() == 0:
            end_with_parent(signal.SIGTERM)
            break
    try:
        _run(app, listening)
    finally:
        listening.close()


class _Protocol(HttpToolsProtocol):
    """uvicorn's, with answers that leave in one piece."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(Gathered(transport, self.loop))


def _run(app: Any, listening: socket.socket) -> None:
    config = uvicorn.Config(
        app,
        loop="uvloop",
        http=_Protocol,
        ws="none",
        lifespan="on",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=STOP_WITHIN,
        timeout_keep_alive=65,
    )
    host, port = listening.getsockname()[:2]
    log().info("listening", host=host, port=port, pid=os.getpid())
    uvicorn.Server(config).run(sockets=[listening])


def _several(settings: Settings, listening: socket.socket, workers: int) -> None:
    """Parent of several workers: starts them, starts one again that died, stops them all."""
    shared = settings.data_dir / "metrics"
    shutil.rmtree(shared, ignore_errors=True)
    shared.mkdir(mode=0o700)
    os.environ[SHARED] = str(shared)  # a worker inherits it, and reads it when it imports the library
    context = multiprocessing.get_context("spawn")
    stopping = threading.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda *_: stopping.set())
    running: list[SpawnProcess] = []
    while not stopping.is_set():
        running = [process for process in running if process.is_alive()]
        while len(running) < workers:
            process = context.Process(target=_one_of_several, args=(settings, listening), daemon=True)
            process.start()
            running.append(process)
        stopping.wait(0.5)
    for process in running:
        process.terminate()
    for process in running:
        process.join(timeout=STOP_WITHIN)


class _Closes(Protocol):
    def close(self) -> None: ...


class _Beside:
    """A process beside the server, and a thread that starts it again when it died: that must not go unnoticed.

    The first one is forked, which spares it two seconds of loading what is loaded here, while this process has no
    thread but its main one; it closes `holds`, which else would outlive us in it: the port, the lock. A later one is
    spawned, because by then there are threads.
    """

    def __init__(self, what: str, run: Callable[..., None], *args: Any, holds: Sequence[_Closes] = ()) -> None:
        self._what, self._run, self._args = what, run, args
        self._stopping = threading.Event()
        self._process: BaseProcess = multiprocessing.get_context("fork").Process(
            target=_apart, args=(holds, run, *args)
        )
        self._process.start()

    def watch(self) -> None:
        threading.Thread(target=self._watch, name=f"cds-{self._what}", daemon=True).start()

    def stop(self) -> None:
        self._stopping.set()
        self._process.terminate()
        self._process.join(timeout=STOP_WITHIN)
        if self._process.is_alive():  # it may wait for a worker that is given no processor: what it does is durable
            self._process.kill()
            self._process.join()

    def _watch(self) -> None:
        while not self._stopping.wait(1.0):
            if not self._process.is_alive():
                log().error("a process beside the server died", job=self._what, status=self._process.exitcode)
                if not self._stopping.wait(5.0):
                    self._process = multiprocessing.get_context("spawn").Process(target=self._run, args=self._args)
                    self._process.start()


def _apart(holds: Sequence[_Closes], run: Callable[..., None], *args: Any) -> None:
    for each in holds:
        each.close()
    gc.freeze()  # the collector leaves alone what both processes share, so that it stays shared
    run(*args)


def wait_ready(url: str, process: subprocess.Popen[bytes], seconds: float = 20.0) -> float:
    """Seconds until `url` answers 200. Raises PeerFailed when the process ends first, or takes longer."""
    from cds_server.http import blocking_client

    began = time.monotonic()
    with blocking_client() as client:
        while time.monotonic() - began < seconds:
            if process.poll() is not None:
                raise PeerFailed("the process stopped while starting; its message stands above", where=url)
            with contextlib.suppress(Exception):
                if client.get(url).status_code == 200:
                    return time.monotonic() - began
            time.sleep(0.02)
    raise PeerFailed("the server did not become ready", where=url)


def program() -> list[str]:
    """The `cds` command of this very installation, for starting another process of it."""
    return [sys.executable, "-m", "cds_server"]


def fixtures() -> Path:
    """The folder of fixtures: beside the packages in a checkout, else in the working directory.

    Raises: Misconfigured when there is none.
    """
    for folder in (Path(__file__).resolve().parents[1] / "fixtures", Path("fixtures")):
        if (folder / "hooks").is_dir():
            return folder
    raise Misconfigured("the folder of fixtures is not here: run in a checkout, or where ./fixtures is")
