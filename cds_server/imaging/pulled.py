"""What pulls said of the studies that they brought: whether all that the archive has is stored (D9)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from adapters.dicom.states import PULL
from cds_server.jobs import Jobs
from cds_server.store.reads import marks
from cds_server.store.store import Store

KINDS = ("dicom", "dicomweb")
AT_FIRST = 500
"""Ended jobs that are looked at by a process that just began."""


@dataclass(frozen=True, slots=True)
class Brought:
    """Of one study, by the pull that ended last."""

    complete: bool
    missing: int
    """Objects that the archive has and would not send."""


class Pulled:
    """Remembers the last word on each study."""

    def __init__(self, store: Store, namespaces: Mapping[str, str]) -> None:
        """`namespaces`: by name of the source."""
        self._store, self._namespaces = store, namespaces
        self._jobs = {kind: Jobs(store, kind, PULL) for kind in KINDS}
        self._cursor: int | None = None
        self.said: dict[bytes, Brought] = {}
        """Study (keyed digest of namespace and UID) -> what was brought of it."""

    def look(self) -> list[bytes]:
        """Take note of pulls that ended since the last look; gives their studies."""
        ends = tuple(sorted(PULL.ends))
        rows = self._store.reads.query(
            "SELECT s.id, j.id, j.kind, j.source FROM job_step s JOIN job j ON j.id = s.job_id "
            f"WHERE s.id > ? AND j.kind IN ({marks(KINDS)}) AND s.state IN ({marks(ends)}) ORDER BY s.id DESC LIMIT ?",
            (self._cursor or 0, *KINDS, *ends, AT_FIRST),
        )
        found: list[bytes] = []
        for step, job, kind, source in reversed(rows):
            self._cursor = step
            namespace = self._namespaces.get(source)
            if namespace is None:
                continue
            for each in self._jobs[kind].get(job).remembers.get("results") or ():
                study = self._store.vault.index("study", namespace, each["study"])
                self.said[study] = Brought(bool(each["complete"]), int(each["expected"]) - int(each["stored"]))
                found.append(study)
        return found
