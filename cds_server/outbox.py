"""Results on their way out: a job each, with its exact bytes, from before the first try until its receiver said yes.

    Line      what waits for one destination, in order; a patient's results stay behind one of theirs that was refused
    ended     what its receiver said becomes the job's last step, or a dead letter that a person looks at
    again     a person sends a refused one once more; drop: or says that it is not to be sent
    waiting   of each destination, for people and for metrics

In order means: as the inferences were recorded. A kill at any point sends the same bytes with the same number again.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from adapters.hl7v2.composed import Status
from adapters.sinks.states import SEND, State
from cds_server.jobs import Job, Jobs
from cds_server.outgoing import Composed, Composer, Held
from cds_server.reproduce import load
from cds_server.store.store import Store
from cds_server.store.writer import Tx
from models.errors import Conflict, NotAllowed, NotFound

KIND = "send"
REFUSED = "not-taken"
"""Reason of the flag of a parked result; `pointer` names the job."""
_POINTER = "job/"


def jobs_of(store: Store) -> Jobs:
    return Jobs(store, KIND, SEND)


def message_of(job: Job) -> bytes:
    """The bytes that are sent, the same at every try."""
    last = job.remembers if "message" in job.remembers or "object" in job.remembers else job.asked
    return b64decode(str(last["object"])) if "object" in last else str(last["message"]).encode()


def remembered(made: Composed) -> dict[str, str]:
    """How a job remembers what is sent: an HL7 v2 message as it reads, a DICOM object in base64."""
    return {"object": b64encode(made.message).decode()} if made.binary else {"message": made.message.decode()}


# ---- which are due ---------------------------------------------------------------------------------------------------


def begin(store: Store, names: Iterable[str]) -> None:
    """From here on results go to destinations that were never heard of before: nothing of what was before it."""
    for name in names:
        cursor = due_cursor(name)

        def act(tx: Tx, cursor: str = cursor) -> None:
            if not tx.read("SELECT 1 FROM cursor WHERE name = ?", (cursor,)):
                keep(tx, cursor, newest(store))

        if store.reads.one("SELECT 1 FROM cursor WHERE name = ?", (cursor,)) is None:
            store.writer.submit(act).result()


def due_cursor(destination: str) -> str:
    """How far inferences and flags were looked at for a destination."""
    return f"send:{destination}"


def newest(store: Store) -> int:
    """The last row of an inference or a flag."""
    rows = store.reads.query("SELECT MAX(id) FROM inference UNION ALL SELECT MAX(id) FROM flag")
    return max(int(row[0] or 0) for row in rows)


def stands(store: Store, cursor: str) -> int:
    row = store.reads.one("SELECT at FROM cursor WHERE name = ?", (cursor,))
    return int(row[0]) if row else 0


def keep(tx: Tx, name: str, at: int) -> None:
    if tx.execute("UPDATE cursor SET at = ? WHERE name = ?", (at, name)) == 0:
        tx.execute("INSERT INTO cursor (name, at) VALUES (?, ?)", (name, at))


# ---- what waits ------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Open:
    state: str
    lane: str
    queued_at: str
    cause: str | None


class Line:
    """What waits for one destination: the steps of its jobs, read once each, from the oldest that is still open."""

    def __init__(self, store: Store, destination: str) -> None:
        self._store, self._destination = store, destination
        self._jobs = jobs_of(store)
        self._open: dict[int, _Open] = {}
        self._seen = stands(store, self._cursor)

    def look(self) -> None:
        """Read what happened since the last look, here or in another process."""
        for step, job_id, state, cause, queued_at in self._store.reads.query(
            "SELECT s.id, s.job_id, s.state, s.cause, j.at FROM job_step s JOIN job j ON j.id = s.job_id "
            "WHERE s.id > ? AND j.kind = ? AND j.source = ? ORDER BY s.id",
            (self._seen, KIND, self._destination),
        ):
            self._seen = step
            if state in SEND.ends:
                self._open.pop(job_id, None)
            elif job_id in self._open:
                self._open[job_id].state, self._open[job_id].cause = state, cause
            else:
                self._open[job_id] = _Open(state, str(self._jobs.get(job_id).asked.get("lane", "")), queued_at, cause)

    def next(self) -> Job | None:
        """The oldest that waits and stands behind no refused one of its patient."""
        self.look()
        held: set[str] = set()
        for job_id in sorted(self._open):
            each = self._open[job_id]
            if each.state == State.PARKED:
                held.add(each.lane)
            elif each.lane not in held:
                return self._jobs.get(job_id)
        return None

    def counted(self) -> Counted:
        self.look()
        waiting = [each for each in self._open.values() if each.state == State.WAITING]
        oldest = min((each.queued_at for each in waiting), default=None)
        trouble = next((each.cause for _, each in sorted(self._open.items()) if each.cause), None)
        return Counted(self._destination, len(waiting), len(self._open) - len(waiting), oldest, self._heard(), trouble)

    def _heard(self) -> str | None:
        row = self._store.reads.one(
            "SELECT s.at FROM job_step s JOIN job j ON j.id = s.job_id "
            "WHERE j.kind = ? AND j.source = ? AND s.state = ? ORDER BY s.id DESC LIMIT 1",
            (KIND, self._destination, State.ACKNOWLEDGED),
        )
        return str(row[0]) if row else None

    # -- where the next process begins to read --

    @property
    def _cursor(self) -> str:
        return f"sent:{self._destination}"

    def done(self, tx: Tx, job: Job) -> None:
        """As part of the act that ends a job: every job before the oldest open one is at its end, and so are their
        steps (a job's steps have higher numbers than the job)."""
        oldest = min((each for each in self._open if each != job.id), default=job.id + 1)
        keep(tx, self._cursor, oldest - 1)


@dataclass(frozen=True, slots=True)
class Counted:
    """What is known of one destination."""

    destination: str
    waiting: int
    parked: int
    oldest: str | None
    """When the oldest that waits was queued."""
    heard: str | None
    """When a result was last acknowledged."""
    trouble: str | None
    """Why the first one was not taken at its last try, in our words."""

    @property
    def seconds(self) -> float:
        """Age of the oldest that waits; 0 where nothing does."""
        if self.oldest is None:
            return 0.0
        return (datetime.now(UTC) - datetime.fromisoformat(self.oldest)).total_seconds()


def waiting(store: Store, names: Iterable[str]) -> list[Counted]:
    return [Line(store, name).counted() for name in names]


# ---- what its receiver said ------------------------------------------------------------------------------------------


def acknowledged(store: Store, line: Line, job: Job, actor: str) -> None:
    """Durable when this returns. Raises: Conflict (another process ended it)."""

    def act(tx: Tx) -> None:
        jobs_of(store).step(tx, job, State.ACKNOWLEDGED)
        line.done(tx, job)
        tx.entry("send", actor, {"job": job.ref, "destination": job.source, "state": State.ACKNOWLEDGED})

    store.writer.submit(act).result()


def parked(store: Store, job: Job, code: str, actor: str) -> None:
    """The receiver refuses the content: a dead letter, and no further try. Raises: Conflict."""

    def act(tx: Tx) -> None:
        jobs_of(store).step(tx, job, State.PARKED, cause=f"answered {code}")
        rows = tx.read("SELECT id, record_id FROM inference WHERE ref = ?", (str(job.asked["inference"]),))
        tx.add(
            "flag",
            kind="dead-letter",
            reason=REFUSED,
            pointer=_POINTER + job.ref,
            inference_id=rows[0][0] if rows else None,
            record_id=rows[0][1] if rows else None,
            detail=f"{job.source} answered {code}: it does not take a result as it is",
            at=tx.now,
        )
        tx.entry("send", actor, {"job": job.ref, "destination": job.source, "state": State.PARKED})

    store.writer.submit(act).result()


def troubled(store: Store, job: Job, cause: str, actor: str) -> None:
    """Remember why a try failed, once for each cause: it is tried again and again. Raises: Conflict."""
    if job.cause != cause:
        jobs_of(store).move(job, State.WAITING, actor, cause=cause)


# ---- what a person said ----------------------------------------------------------------------------------------------


def job_of(pointer: str | None) -> str | None:
    """The job that a flag is about; None for a flag about something else."""
    return pointer.removeprefix(_POINTER) if pointer is not None and pointer.startswith(_POINTER) else None


def again(store: Store, composer: Composer, ref: str, flag_id: int, actor: str) -> None:
    """Send a refused result once more: composed anew by the present configuration, under a number of its own, because
    its receiver has answered the old one for good. OBR-3 stays.

    Raises: NotFound, NotAllowed (it cannot be composed now), Conflict (it is not parked any more).
    """
    jobs = jobs_of(store)
    job = jobs.by_ref(ref)
    if job is None:
        raise NotFound("there is no such result on its way out")
    destination = composer.destinations.get(job.source)
    if destination is None:
        raise NotFound("its destination is not in the configuration any more", where=job.source)
    if job.state != State.PARKED:
        raise Conflict(f"this result is {job.state}", where=f"job {ref}")
    recorded = load(store, str(job.asked["inference"]))
    earlier = [each for each in jobs.of_run(job.run) if each.source == job.source and each.id < job.id]
    made = composer.compose(
        destination,
        recorded,
        number=str(job.asked["number"]),
        status=Status(str(job.asked["status"])),
        earlier=[message_of(each) for each in earlier],
    )
    if not isinstance(made, Composed):
        raise NotAllowed(
            made.why if isinstance(made, Held) else "the destination is not for this result", where=job.source
        )

    def act(tx: Tx) -> None:
        jobs.step(tx, job, State.WAITING, remember=remembered(made))
        tx.add("flag_closing", flag_id=flag_id, resolution="sent again", at=tx.now)
        tx.entry("send", actor, {"job": job.ref, "destination": job.source, "state": State.WAITING})

    store.writer.submit(act).result()


def drop(store: Store, tx: Tx, ref: str) -> None:
    """As part of the act that resolves its flag: it is not sent, and what waited behind it goes on."""
    job = jobs_of(store).by_ref(ref)
    if job is not None and job.state == State.PARKED:
        jobs_of(store).step(tx, job, State.DROPPED)
