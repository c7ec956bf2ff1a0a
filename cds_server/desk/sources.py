"""Where values came from: of a fact, the document, the source that delivered it and when, file and line."""

from __future__ import annotations

from cds_server.origins import place_of
from cds_server.reception import EHR_SOURCE
from cds_server.store.store import Store
from models.errors import CdsError
from models.nouns import Fact
from smart_app.cases import Origin
from smart_app.texts import t


class Sources:
    """Of one page: what it opened is forgotten with it, for a manifest may name a patient."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: dict[str, tuple[str, str, str, bytes]] = {}

    def of(self, fact: Fact, namespace: str) -> Origin:
        """The origin of a fact, as a reader in `namespace` calls it."""
        source, of, at, manifest = self._landing(fact.source.landing)
        label = t("case.ehr_request") if source == EHR_SOURCE else source
        converted = fact.number is not None and fact.original and fact.original != f"{fact.number} {fact.unit}"
        return Origin(
            document=fact.source.resource,
            source=label if of in (namespace, "") else t("case.source_of", source=label, namespace=of),
            at=at,
            landing=fact.source.landing,
            part=fact.source.part,
            pointer=fact.source.pointer,
            place=place_of(manifest, fact.source.part),
            original=fact.original if converted else None,
        )

    def label(self, landing: str) -> str:
        source, _, _, _ = self._landing(landing)
        return t("case.ehr_request") if source == EHR_SOURCE else source

    def _landing(self, ref: str) -> tuple[str, str, str, bytes]:
        known = self._known.get(ref)
        if known is None:
            row = self._store.reads.landing_by_ref(ref)
            if row is None:
                known = (t("case.the_record"), "", "", b"{}")
            else:
                try:
                    manifest = self._store.manifest(row)
                except CdsError:  # erased
                    manifest = b"{}"
                known = (row.source, row.namespace, row.received_at, manifest)
            self._known[ref] = known
        return known
