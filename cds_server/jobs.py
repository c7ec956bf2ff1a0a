"""Leased work that survives its process. A job is a row; where it stands is its last step; each step is an entry.

    lease     who does a kind of work until when: of several processes, one
    Jobs      queue, move along its kind's table of states, and what is to be known of jobs

A step carries what the job must remember from there on (the status URL before it is asked for the first time), sealed
in the vault: a process that is killed anywhere leaves a job that another one can take up.
"""

from __future__ import annotations

import os
import socket
import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from adapters.states import States
from cds_server.store.entropy import new_ref
from cds_server.store.store import Store
from cds_server.store.vault import object_ref
from cds_server.store.writer import Tx
from models import strict
from models.canonical import canonical
from models.errors import Conflict, Erased
from models.nouns import JSON, instant

LEASE = 30.0
"""Seconds. Who works longer renews it; who was killed is followed sooner where it can be seen that it is gone."""
JOB, STEP = b"j", b"t"


# ---- leases ----------------------------------------------------------------------------------------------------------


def holder() -> str:
    """A name for whoever holds leases in this process: machine, process, and something that nobody has had before."""
    return f"{socket.gethostname()}/{os.getpid()}/{uuid.uuid4().hex}"


def _gone(name: str) -> bool:
    """Whether a holder was a process of this machine that is no more."""
    machine, _, rest = name.partition("/")
    pid = rest.partition("/")[0]
    if machine != socket.gethostname() or not pid.isdecimal():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return _dead(int(pid))


def _dead(pid: int) -> bool:
    """Whether a process is a zombie: it was killed, and whoever should hear of that does not ask (in a container the
    first process often never does). proc(5): the state stands after the name in parentheses."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as stat:
            return stat.read().rpartition(b")")[2].split()[0] == b"Z"
    except (OSError, IndexError):
        return False


def lease(store: Store, name: str, holder: str) -> bool:
    """Take or keep the lease on a kind of work; False while another holds it."""
    moment = datetime.now(UTC)
    until = instant(moment + timedelta(seconds=LEASE))

    def act(tx: Tx) -> bool:
        held = tx.read("SELECT holder, until FROM lease WHERE name = ?", (name,))
        if not held:
            tx.execute("INSERT INTO lease (name, holder, until) VALUES (?, ?, ?)", (name, holder, until))
            return True
        if held[0][0] != holder and held[0][1] > instant(moment) and not _gone(held[0][0]):
            return False
        tx.execute("UPDATE lease SET holder = ?, until = ? WHERE name = ?", (holder, until, name))
        return True

    row = store.reads.one("SELECT holder, until FROM lease WHERE name = ?", (name,))
    if row and row[0] == holder and row[1] > instant(moment + timedelta(seconds=LEASE / 2)):
        return True
    return store.writer.submit(act).result()


def release(store: Store, name: str, holder: str) -> None:
    """Give a lease back before its time."""

    def act(tx: Tx) -> None:
        tx.execute("UPDATE lease SET until = ? WHERE name = ? AND holder = ?", (tx.now, name, holder))

    store.writer.submit(act).result()


# ---- jobs ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Job:
    id: int
    ref: str
    run: str
    kind: str
    source: str
    mode: str
    asked: JSON
    state: str
    cause: str | None
    remembers: JSON
    """What its steps kept, later ones over earlier ones."""
    queued_at: str
    at: str
    """Of its last step."""
    cursor: str | None


@dataclass(frozen=True, slots=True)
class Order:
    """A job that is to be queued."""

    mode: str
    scope: str
    """What its cursor is for; only its keyed digest is kept."""
    asked: JSON


class Jobs:
    """The jobs of one kind in one instance."""

    def __init__(self, store: Store, kind: str, states: States) -> None:
        self._store = store
        self._kind = kind
        self._states = states

    def queue(self, source: str, orders: Sequence[Order], actor: str) -> list[Job]:
        """The jobs of a new run, in the order in which they are to be done; one act."""
        run = new_ref()

        def act(tx: Tx) -> None:
            refs = [self.add(tx, source, run, order)[1] for order in orders]
            tx.entry("queue", actor, {"run": run, "jobs": refs, "kind": self._kind, "source": source})

        self._store.writer.submit(act).result()
        return self.of_run(run)

    def add(self, tx: Tx, source: str, run: str, order: Order, ref: str | None = None) -> tuple[int, str]:
        """A job, as part of an act that writes the entry; gives its row and its reference: a new one, unless it has to
        be found again by what it is for."""
        ref = ref or new_ref()
        sealed = tx.vault.seal(object_ref(JOB, ref), canonical(dict(order.asked)), tx.fresh_keys)
        job_id = tx.add(
            "job",
            ref=ref,
            run=run,
            kind=self._kind,
            source=source,
            mode=order.mode,
            scope=tx.vault.index("scope", order.scope),
            sealed=sealed.cipher,
            commitment=sealed.commitment,
            at=tx.now,
        )
        tx.add("job_step", job_id=job_id, state=self._states.first, ref=new_ref(), at=tx.now)
        return job_id, ref

    def move(
        self,
        job: Job,
        to: str,
        actor: str,
        *,
        cause: str | None = None,
        cursor: str | None = None,
        remember: JSON | None = None,
    ) -> Job:
        """The next step of a job, durable when this returns. Raises Conflict where somebody else moved it meanwhile, or
        where the table knows no such step; a step from a state to itself only remembers."""

        def act(tx: Tx) -> None:
            self.step(tx, job, to, cause=cause, cursor=cursor, remember=remember)
            tx.entry("job", actor, {"job": job.ref, "source": job.source, "state": to})

        self._store.writer.submit(act).result()
        return self.get(job.id)

    def step(
        self,
        tx: Tx,
        job: Job,
        to: str,
        *,
        cause: str | None = None,
        cursor: str | None = None,
        remember: JSON | None = None,
    ) -> None:
        """`move`, as part of an act that writes the entry."""
        if to != job.state and to not in self._states.moves[job.state]:
            raise Conflict(f"a job that is {job.state} cannot become {to}", where=f"job {job.ref}")
        last = tx.read("SELECT state FROM job_step WHERE job_id = ? ORDER BY id DESC LIMIT 1", (job.id,))
        if last[0][0] != job.state:
            raise Conflict(f"another process moved this job: it is {last[0][0]}", where=f"job {job.ref}")
        ref, sealed = new_ref(), None
        if remember:
            sealed = tx.vault.seal(object_ref(STEP, ref), canonical(dict(remember)), tx.fresh_keys).cipher
        tx.add("job_step", job_id=job.id, state=to, cause=cause, cursor=cursor, ref=ref, sealed=sealed, at=tx.now)

    # -- what is known -------------------------------------------------------------------------------------------------

    def get(self, job_id: int) -> Job:
        return self._jobs("j.id = ?", (job_id,))[0]

    def by_ref(self, ref: str) -> Job | None:
        return next(iter(self._jobs("j.ref = ?", (ref,))), None)

    def of_run(self, run: str) -> list[Job]:
        return self._jobs("j.run = ?", (run,))

    def unfinished(self, source: str) -> list[Job]:
        return [job for job in self._jobs("j.source = ?", (source,)) if job.state not in self._states.ends]

    def latest(self, source: str, runs: int) -> list[Job]:
        """The jobs of the last runs of a source, oldest first."""
        rows = self._store.reads.query(
            "SELECT run FROM job WHERE source = ? GROUP BY run ORDER BY MAX(id) DESC LIMIT ?", (source, runs)
        )
        return [job for (run,) in reversed(rows) for job in self.of_run(run)]

    def last_of(self, source: str, mode: str) -> Job | None:
        """The last job of a source and mode, whatever became of it."""
        row = self._store.reads.one(
            "SELECT MAX(id) FROM job WHERE kind = ? AND source = ? AND mode = ?", (self._kind, source, mode)
        )
        return self.get(row[0]) if row and row[0] else None

    def cursor(self, scope: str) -> Job | None:
        """The last job that advanced the cursor of a scope."""
        row = self._store.reads.one(
            "SELECT s.job_id FROM job_step s JOIN job j ON j.id = s.job_id "
            "WHERE j.scope = ? AND s.cursor IS NOT NULL ORDER BY s.id DESC LIMIT 1",
            (self._store.vault.index("scope", scope),),
        )
        return self.get(row[0]) if row else None

    def last(self, scope: str, mode: str, state: str) -> Job | None:
        """The last job of a scope and mode that came to a state."""
        row = self._store.reads.one(
            "SELECT s.job_id FROM job_step s JOIN job j ON j.id = s.job_id "
            "WHERE j.scope = ? AND j.mode = ? AND s.state = ? ORDER BY s.id DESC LIMIT 1",
            (self._store.vault.index("scope", scope), mode, state),
        )
        return self.get(row[0]) if row else None

    def _jobs(self, condition: str, values: tuple[Any, ...]) -> list[Job]:
        rows = self._store.reads.query(
            "SELECT j.id, j.ref, j.run, j.kind, j.source, j.mode, j.sealed, j.at, "
            "s.state, s.cause, s.cursor, s.ref, s.sealed, s.at "
            f"FROM job j JOIN job_step s ON s.job_id = j.id WHERE j.kind = ? AND {condition} ORDER BY j.id, s.id",
            (self._kind, *values),
        )
        found: dict[int, Job] = {}
        for job_id, ref, run, kind, source, mode, asked, queued_at, state, cause, cursor, step, sealed, at in rows:
            before = found.get(job_id)
            kept = self._opened(object_ref(STEP, step), sealed) if sealed else {}
            found[job_id] = Job(
                job_id,
                ref,
                run,
                kind,
                source,
                mode,
                before.asked if before else self._opened(object_ref(JOB, ref), asked),
                state,
                cause,
                {**before.remembers, **kept} if before else kept,
                queued_at,
                at,
                cursor or (before.cursor if before else None),
            )
        return list(found.values())

    def _opened(self, ref: bytes, sealed: bytes) -> dict[str, Any]:
        try:
            opened = strict.loads(self._store.vault.open(ref, sealed))
        except Erased:
            return {}  # of a job that is over: whom it was about was erased, or its time was
        assert isinstance(opened, dict)  # noqa: S101 (we sealed it)
        return opened


def is_due(jobs: Jobs, states: States, source: str, every: timedelta) -> bool:
    """Whether a source is to be run again: its last run began that long ago, did not come to an end, or never was."""
    latest = jobs.latest(source, 1)
    if not latest or any(job.state not in states.ends for job in latest):
        return True
    return datetime.now(UTC) - datetime.fromisoformat(latest[0].queued_at) >= every


@dataclass(frozen=True, slots=True)
class PullState:
    """What is known of a source that is pulled."""

    source: str
    kind: str
    cursor: str | None
    states: dict[str, int]
    """How many jobs of its last run are in which state."""


def pull_states(store: Store) -> list[PullState]:
    """Of each source that was pulled."""
    rows = store.reads.query(
        "SELECT j.source, j.kind, j.run, j.id, s.state, s.cursor FROM job j JOIN job_step s ON s.job_id = j.id "
        "WHERE j.kind <> 'send' ORDER BY j.id, s.id"
    )
    cursors: dict[str, str | None] = {}
    runs: dict[str, tuple[str, str, dict[int, str]]] = {}
    for source, kind, run, job_id, state, cursor in rows:
        cursors[source] = cursor or cursors.get(source)
        if source not in runs or runs[source][1] != run:
            runs[source] = (kind, run, {})
        runs[source][2][job_id] = state
    return [
        PullState(source, kind, cursors[source], dict(Counter(states.values())))
        for source, (kind, _, states) in runs.items()
    ]
