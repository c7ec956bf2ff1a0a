"""What an archive is asked by the clock (`every`): its studies since the last time, and when that is due again.

A question goes back `look_back_days` behind the cursor: a study is dated by when it was made, and may reach the archive
days later; and one that grew is asked for again. What is stored is not moved again (`adapters.dicom.reconcile`).

Nothing here speaks to an archive: the server looks at what is due every few seconds.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from adapters.dicom.states import PULL, State
from cds_server.dicom_sources import KIND, DicomSource
from cds_server.jobs import Job, Jobs
from cds_server.store.store import Store
from models.nouns import instant

NEW = "new"
"""Mode of a job that the clock began."""
HELD = timedelta(days=7)
"""How long a study that did not come whole holds the cursor back: each run asks for it again. One that never comes
whole must not make the question longer for ever; its job is `partial`, for people."""


def scope(source: DicomSource) -> str:
    """What its cursor is for: other modalities are another question, from its own beginning."""
    return ":".join((KIND, source.name, NEW, *sorted(source.modalities)))


def is_due(store: Store, source: DicomSource, moment: datetime | None = None) -> bool:
    """Whether a run is to be started: something is left unfinished, or the last one began long ago; and the archive's
    hours allow retrievals."""
    moment = moment or datetime.now(UTC)
    if source.every is None or not source.peer.open_at(moment.astimezone()):
        return False
    jobs = Jobs(store, KIND, PULL)
    return bool(jobs.unfinished(source.name)) or begins(jobs, source, moment)


def begins(jobs: Jobs, source: DicomSource, moment: datetime) -> bool:
    """Whether new studies are to be asked for again."""
    if source.every is None:
        return False
    last = jobs.last_of(source.name, NEW)
    if last is None:
        return True
    return last.state in PULL.ends and moment - datetime.fromisoformat(last.queued_at) >= source.every


def question(jobs: Jobs, source: DicomSource, moment: datetime) -> dict[str, Any]:
    """As `adapters.sources.dicom_move.Ask.plain`."""
    before = jobs.cursor(scope(source))
    if before is None or before.cursor is None:
        since = source.since or f"{moment - timedelta(days=source.look_back_days):%Y%m%d}"
    else:
        since = f"{datetime.fromisoformat(before.cursor) - timedelta(days=source.look_back_days):%Y%m%d}"
    return {"since": since, **({"modalities": list(source.modalities)} if source.modalities else {})}


def cursor_after(jobs: Jobs, source: DicomSource, job: Job, state: str) -> str | None:
    """Up to when studies need not be asked for again, once a job of the clock came to its end; None: as before."""
    asked_at = datetime.fromisoformat(job.queued_at)
    if state == State.PARTIAL:
        asked_at -= HELD
    elif state != State.COMPLETE:
        return None
    before = jobs.cursor(scope(source))
    if before is not None and before.cursor is not None and datetime.fromisoformat(before.cursor) >= asked_at:
        return None
    return instant(asked_at)
