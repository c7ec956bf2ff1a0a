"""Inferences as FHIR, one by one or all as NDJSON. Nothing is sent anywhere: it is printed, or written to a file.

A resource names its patient as the patient's own EHR does, or, pseudonymously, by the random reference of our record;
then it also lacks the references to what it rests on, and the words of its cards.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson

from adapters.fhir_out.assessment import Assessed, Proof, Resource, resources
from cds_server.checkpoints import Checkpoints
from cds_server.proving import prove
from cds_server.registry import Registry
from cds_server.reproduce import Recorded, cards_of, load
from cds_server.settings import Settings
from cds_server.store.reads import RecordRow
from cds_server.store.store import Store
from cds_server.what_if import WHAT_IF
from models import codes
from models.errors import BadInput, CdsError, KeysUnavailable, Misconfigured
from models.nouns import Fact

RECORD = "urn:cds-server:record"
_CANCER = codes.BREAST_CANCER.tokens | codes.IN_SITU.tokens
_COMMITTED = "SELECT s.commitment FROM inference i JOIN snapshot s ON s.id = i.snapshot_id WHERE i.ref = ?"


class Guidance:
    """Makes the resources. One a process."""

    def __init__(
        self,
        store: Store,
        registry: Registry,
        settings: Settings,
        checkpoints: Checkpoints | None = None,
        *,
        pseudonyms: bool = False,
        relative: bool = False,
    ) -> None:
        """`relative`: for the patient's own server, which resolves references itself."""
        self._store, self._registry, self._settings = store, registry, settings
        self._checkpoints, self._pseudonyms, self._relative = checkpoints, pseudonyms, relative

    def of(self, named: str) -> list[Resource]:
        """Of an inference by its id, or the uuid of one of its cards.

        Errors: NotFound, KeysUnavailable (erased), BadInput (a what-if: it says nothing of the patient).
        """
        recorded = load(self._store, named)
        if recorded.service.startswith(WHAT_IF):
            raise BadInput("a what-if says nothing of the patient: it has no form for others")
        (record_id,) = self._store.reads.query("SELECT record_id FROM inference WHERE id = ?", (recorded.id,))[0]
        (record,) = self._store.reads.records([int(record_id)])
        return resources(replace(self.assessed(recorded, record), proof=self._proof(recorded.seq)))

    def assessed(
        self, recorded: Recorded, record: RecordRow, *, named: str | None = None, status: str | None = None
    ) -> Assessed:
        """All that the resources of an inference name, without its proof; the patient as the namespace of `record`
        knows them."""
        judged = orjson.loads(recorded.judged)
        (commitment,) = self._store.reads.query(_COMMITTED, (recorded.ref,))[0]
        used = _used(recorded, judged)
        cancer = next((f for f in recorded.snapshot.facts if f.kind == "condition" and f.code.token in _CANCER), None)
        cards = (
            () if self._pseudonyms else [str(each["card"]["summary"]) for each in cards_of(self._store, recorded.id)]
        )
        return Assessed(
            inference=recorded.ref,
            seq=recorded.seq,
            at=recorded.at,
            service_url=f"{self._settings.public_url}/cds-services/{recorded.service}",
            patient=self._patient(record),
            condition=None if cancer is None else self._reference(cancer, record),
            basis=() if self._pseudonyms else [self._reference(fact, record) for fact in used],
            landings=list(dict.fromkeys(fact.source.landing for fact in recorded.snapshot.facts)),
            snapshot=bytes(commitment).hex(),
            facts=len(recorded.snapshot.facts),
            model=recorded.model,
            manifest_digest=recorded.model_digest,
            manifest=self._manifest(recorded),
            score=judged["score"],
            cards=cards,
            server=self._settings.public_url,
            proof=None,
            named=named,
            status=status,
        )

    def _patient(self, record: RecordRow) -> dict[str, Any]:
        if self._pseudonyms:
            return {"type": "Patient", "identifier": {"system": RECORD, "value": record.ref}}
        return {"reference": self._at(record.namespace, f"Patient/{self._store.reads.local_id(record)}")}

    def _reference(self, fact: Fact, record: RecordRow) -> dict[str, Any]:
        """As the patient's own EHR would follow it; what another system said, by that system's name for it."""
        kind, named = fact.source.resource.partition("/")[0], fact.source.resource
        if self._pseudonyms:
            return {"type": kind, "display": "withheld"}
        if fact.record == record.ref:
            return {"type": kind, "reference": self._at(record.namespace, named)}
        other = self._store.reads.record_by_ref(fact.record)
        namespace = other.namespace if other is not None else "unknown"
        return {"type": kind, "identifier": {"system": f"urn:cds-server:namespace:{namespace}", "value": named}}

    def _at(self, namespace: str, reference: str) -> str:
        base = None if self._relative else self._settings.ehr(namespace).fhir_base
        return f"{base}/{reference}" if base else reference

    def _manifest(self, recorded: Recorded) -> Mapping[str, Any]:
        name, _, version = recorded.model.partition("@")
        try:
            return self._registry.version_then(name, version, recorded.model_digest)[0].manifest
        except CdsError:
            return {}

    def _proof(self, seq: int) -> Proof | None:
        signed = self._checkpoints.last() if self._checkpoints is not None else None
        if self._checkpoints is None or signed is None or signed.checkpoint.size < seq:
            return None
        (at,) = self._store.reads.query("SELECT at FROM ledger_checkpoint WHERE size = ?", (signed.checkpoint.size,))[0]
        return Proof(signed.checkpoint.origin, at, prove(self._store, self._checkpoints, seq))


def _used(recorded: Recorded, judged: Mapping[str, Any]) -> list[Fact]:
    """The facts that features were taken from, one of each resource."""
    used = {
        fact for vector in judged["vectors"] for each in vector.get("features", ()) for fact in each.get("facts", ())
    }
    found = {(f.record, f.source.resource): f for f in recorded.snapshot.facts if f.id in used}
    return list(found.values())


def inferences(store: Store, since: str, until: str) -> Iterator[str]:
    """Ids of the inferences made between two instants, oldest first, some at a time; no what-ifs."""
    last = 0
    while True:
        rows = store.reads.query(
            "SELECT id, ref, service FROM inference WHERE id > ? AND at >= ? AND at <= ? ORDER BY id LIMIT 500",
            (last, since, until),
        )
        if not rows:
            return
        yield from (str(row[1]) for row in rows if not row[2].startswith(WHAT_IF))
        last = int(rows[-1][0])


def export(guidance: Guidance, store: Store, to: Path, since: str, until: str) -> dict[str, int]:
    """Write the resources of all inferences as NDJSON, a resource a line; gives type -> how many, and the erased ones.

    Errors: Misconfigured (there is a file of that name already)."""
    counts: Counter[str] = Counter()
    try:
        with to.open("x", encoding="utf-8") as file:
            for ref in inferences(store, since, until):
                try:
                    found = guidance.of(ref)
                except KeysUnavailable:
                    counts["erased"] += 1
                    continue
                for each in found:
                    file.write(json.dumps(each, ensure_ascii=False, separators=(",", ":")) + "\n")
                    counts[each["resourceType"]] += 1
    except FileExistsError:
        raise Misconfigured("there is a file of that name: an export does not write over it", where="--out") from None
    return dict(counts)
