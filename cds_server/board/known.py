"""What is known of a board's case: facts of the kinds that the screen has room for, the newest score of each model, the
words of reports and notes, pictures. Reads only, and only what was let through by an access entry."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from cds_server.decisions import INFERENCE
from cds_server.imaging.pictures import Shown, png
from cds_server.imaging.pictures import pictures as pictures_of
from cds_server.reading import read_part
from cds_server.registry import Registry
from cds_server.services.breast_cancer_prognosis import INPUTS
from cds_server.shown import CARD
from cds_server.store.reads import RecordRow
from cds_server.store.store import Store
from models import features
from models.errors import CdsError, NotFound
from models.features import Definition
from models.nouns import JSON, Fact, Part
from smart_app.board_sorting import CODES
from smart_app.board_summary import Note, Picture, ScoreView, Voice

MOST_NOTES = 3
MOST_WORDS = 320
"""Characters of a note on the screen; the rest is on the timeline."""
MOST_PICTURES = 2
_HOLD_NOTES = frozenset({"report", "document"})
TITLES = {each.name: each.title for each in vars(features).values() if isinstance(each, Definition)} | dict(INPUTS)

_OPEN = (
    "SELECT r.facts FROM resource r LEFT JOIN resource_closing c ON c.resource_id = r.id "
    "WHERE r.record_id = ? AND r.code IS NOT NULL AND c.id IS NULL"
)
_WHOLE = (
    " AND (r.code = '*' OR r.code LIKE 'http://www.ncbi.nlm.nih.gov/gtr|%' OR r.code LIKE 'urn:cds-server:%' "
    "OR r.type IN ('AllergyIntolerance', 'Condition', 'DiagnosticReport', 'DocumentReference', 'ImagingStudy', "
    "'MedicationAdministration', 'MedicationRequest', 'MedicationStatement', 'Procedure'))"
)
"""Of these types all; of observations those with several codes, panels and our own. Others are asked for by code."""
_CONDITIONS = " AND r.type = 'Condition'"
_INFERENCES = (
    "SELECT i.id, i.ref, i.entry, i.service, i.model, i.model_digest, i.sealed, s.as_of FROM inference i "
    "JOIN call c ON c.id = i.call_id JOIN snapshot s ON s.id = i.snapshot_id WHERE i.record_id = ? "
    "AND c.outcome IN ('answered', 'abstained', 'suppressed', 'unasked') ORDER BY i.id DESC LIMIT 60"
)
"""Those that came of a call or of new facts: never a what-if."""
_CARD = "SELECT uuid, sealed FROM card WHERE inference_id = ? ORDER BY id LIMIT 1"


class Known:
    def __init__(self, store: Store, registry: Registry) -> None:
        self._store = store
        self._registry = registry
        self._manifests: dict[str, JSON] = {}

    # -- facts ---------------------------------------------------------------------------------------------------------

    def facts(self, records: Sequence[RecordRow]) -> list[Fact]:
        """Of these records, everything that a case's screen reads."""
        return self._facts(records, _OPEN + _WHOLE)

    def few(self, records: Sequence[RecordRow]) -> list[Fact]:
        """Diagnoses, and what is asked for by code: for a line of a worklist."""
        return self._facts(records, _OPEN + _CONDITIONS)

    def _facts(self, records: Sequence[RecordRow], asked: str) -> list[Fact]:
        reads, vault = self._store.reads, self._store.vault
        found = {fact.id: fact for fact in reads.facts([record.id for record in records], CODES)}
        for record in records:
            for (sealed,) in reads.query(asked, (record.id,)):
                found |= {fact.id: fact for fact in vault.open_facts(record.ref, sealed)}
        return list(found.values())

    # -- scores --------------------------------------------------------------------------------------------------------

    def scores(self, records: Sequence[RecordRow], arrived: Iterable[str] = ()) -> tuple[ScoreView, ...]:
        """The newest inference of each model: those that speak first, the widest first. `arrived`: instants since when
        the facts on the screen are known."""
        since = sorted(arrived)
        newest: dict[str, tuple[Any, ...]] = {}
        for record in records:
            for row in self._store.reads.query(_INFERENCES, (record.id,)):
                name = row[4].partition("@")[0]
                if name not in newest or newest[name][0] < row[0]:
                    newest[name] = tuple(row)
        views = [self._view(row, sum(at > row[7] for at in since)) for row in newest.values()]
        return tuple(sorted(views, key=lambda view: (view.abstained is not None, -len(view.voices), view.model)))

    def _view(self, row: tuple[Any, ...], since: int) -> ScoreView:
        row_id, ref, entry, service, model, digest, sealed, as_of = row
        judged = self._store.reads.open_payload(INFERENCE, ref, sealed)
        score, vectors = judged["score"], judged["vectors"]
        manifest = self._manifest(model, digest)
        probability, abstained = score.get("probability"), score.get("abstained")
        title = str(manifest.get("title", model))
        return ScoreView(
            inference=ref,
            seq=entry,
            service=service,
            model=model,
            endpoint=title,
            said=self._said(row_id) or _sentence(title, probability, abstained),
            at=as_of,
            abstained=abstained,
            probability=probability,
            interval=_pair(score.get("interval")),
            band=_pair(score.get("band")),
            validated=score.get("validated", True),
            voices=_voices(score, vectors),
            missing=_missing(vectors) if abstained is None else (),
            cautions=tuple(dict.fromkeys(each for vector in vectors for each in vector.get("cautions", ()))),
            since=since,
        )

    def _said(self, inference_id: int) -> str | None:
        """The summary of the inference's own card."""
        row = self._store.reads.one(_CARD, (inference_id,))
        return str(self._store.reads.open_payload(CARD, row[0], row[1])["summary"]) if row else None

    def _manifest(self, model: str, digest: str) -> JSON:
        if digest not in self._manifests:
            name, _, version = model.partition("@")
            try:
                found = self._registry.version_then(name, version, digest)[0].manifest
            except CdsError:  # gone from the shelf: the inference stands as it was
                found = {}
            self._manifests[digest] = found
        return self._manifests[digest]

    # -- words ---------------------------------------------------------------------------------------------------------

    def notes(self, facts: Iterable[Fact]) -> tuple[Note, ...]:
        """The newest reports and notes that have words; of others, nothing."""
        found: list[Note] = []
        seen: set[str] = set()
        holding = sorted((fact for fact in facts if fact.kind in _HOLD_NOTES), key=lambda fact: fact.effective or "")
        for fact in reversed(holding[-12:]):
            if fact.source.resource in seen:
                continue
            seen.add(fact.source.resource)
            words = _words(self._body(fact))
            if words:
                title = fact.code.display or fact.source.resource.partition("/")[0]
                cut = len(words) > MOST_WORDS
                told = words[:MOST_WORDS].rsplit(" ", 1)[0] + "…" if cut else words
                found.append(Note(title, told, fact.effective, fact.source.resource, cut))
            if len(found) == MOST_NOTES:
                break
        return tuple(found)

    def _body(self, fact: Fact) -> Mapping[str, Any]:
        """The resource behind a fact, as its part states it; nothing where that cannot be read any more."""
        landing = self._store.reads.landing_by_ref(fact.source.landing)
        if landing is None:
            return {}
        try:
            body = self._store.part(landing, fact.source.part)
        except CdsError:
            return {}
        part = Part(landing.ref, fact.source.part, landing.namespace, landing.media_type, landing.received_at, body)
        named = fact.source.resource
        for read in read_part(part).reads:
            statement = read.statement
            if f"{statement.resource_type}/{statement.local_id}" == named and statement.body is not None:
                return statement.body
        return {}

    # -- pictures ------------------------------------------------------------------------------------------------------

    def pictures(self, records: Collection[RecordRow]) -> tuple[Picture, ...]:
        shown = self._pictures(records)[:MOST_PICTURES]
        return tuple(Picture(number, each.title, each.note) for number, each in enumerate(shown, 1))

    def picture(self, records: Collection[RecordRow], number: int) -> bytes:
        """PNG. Errors: NotFound."""
        shown = self._pictures(records)
        if not 1 <= number <= len(shown):
            raise NotFound("there is no such picture")
        return png(self._store, shown[number - 1])

    def _pictures(self, records: Collection[RecordRow]) -> list[Shown]:
        return pictures_of(self._store, [record.id for record in records])


def _voices(score: JSON, vectors: Sequence[JSON]) -> tuple[Voice, ...]:
    absent = {vector["modality"]: vector.get("absent") for vector in vectors}
    named = {each["modality"] for each in score.get("contributions", ())}
    told = [
        Voice(each["modality"], each.get("z"), float(each["amount"]), absent.get(each["modality"]))
        for each in score.get("contributions", ())
    ]
    told += [Voice(name, None, 0.0, why) for name, why in absent.items() if why and name not in named]
    return tuple(told)


def _missing(vectors: Sequence[JSON]) -> tuple[str, ...]:
    """Inputs of the modalities that spoke, that nobody recorded."""
    speaking = (vector for vector in vectors if not vector.get("absent"))
    names = (each["name"] for vector in speaking for each in vector.get("features", ()) if each["missing"])
    return tuple(dict.fromkeys(TITLES.get(name, name.replace("_", " ")) for name in names))


def _pair(ends: Sequence[float] | None) -> tuple[float, float] | None:
    return (float(ends[0]), float(ends[1])) if ends else None


def _sentence(title: str, probability: float | None, abstained: str | None) -> str:
    if abstained is not None:
        return f"{title}: no estimate"
    return f"{title}: {100 * probability:.0f} %" if probability is not None else title


def _words(resource: Mapping[str, Any]) -> str:
    """What a report concludes, or the plain text that it carries; never markup."""
    told: Callable[[Any], str] = lambda value: " ".join(value.split()) if isinstance(value, str) else ""  # noqa: E731
    if conclusion := told(resource.get("conclusion")):
        return conclusion
    held = [each.get("attachment") for each in _objects(resource.get("content"))]
    for attachment in (*held, *_objects(resource.get("presentedForm"))):
        if not isinstance(attachment, Mapping) or not isinstance(attachment.get("data"), str):
            continue
        if str(attachment.get("contentType", "")).partition(";")[0].strip() == "text/plain":
            try:
                return told(base64.b64decode(attachment["data"], validate=True).decode())
            except (binascii.Error, UnicodeDecodeError):
                continue
    return told(resource.get("description"))


def _objects(value: Any) -> list[Mapping[str, Any]]:
    return [each for each in value if isinstance(each, Mapping)] if isinstance(value, list) else []
