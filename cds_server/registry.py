"""Which ModelVersion each service uses now, and whether the service is on: read from the record, kept for a moment.

Switches are made by other processes too (`cds models use`, `cds service stop`), so what is kept is asked for again
after a quarter of a second: a stopped service is silent within one.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from cds_server.hooks.service import ServiceSpec
from cds_server.kept import Kept
from cds_server.store.store import Store
from cds_server.store.writer import Tx
from models.errors import CdsError, ModelFault, NotFound
from models.nouns import ModelVersion
from models.scoring import Scorer
from models.shelf import Shelf

FRESH = 0.25
"""Seconds."""
_MODEL = "model:"
"""Before the name of a model where it stands among the services (no service's id has a colon)."""


class Registry:
    def __init__(self, store: Store, shelf: Shelf, specs: Sequence[ServiceSpec]) -> None:
        self._store = store
        self._shelf = shelf
        self.specs = tuple(specs)
        self._kept = Kept(store.data_dir)
        self._scorers: dict[str, Scorer] = {}
        self._then: dict[tuple[str, str, str, bool], Scorer] = {}
        """By name, version and digest of the manifest; whether they encode."""
        self._pins: Mapping[tuple[str, str], str] = {}
        """(service, model) -> version."""
        self._stopped: frozenset[str] = frozenset()
        self._stopped_models: frozenset[str] = frozenset()
        """`NAME`, or `NAME@VERSION`."""
        self._asked = float("-inf")

    @property
    def shelf(self) -> Shelf:
        return self._shelf

    def scorer(self, service: str, model: str | None = None) -> Scorer:
        """The scorer of the version pinned for a service: of its own model, or of one beside it.

        Raises: ModelFault when none is, or its files are not the ones that the manifest names.
        """
        self._refresh()
        name = model or next((spec.model for spec in self.specs if spec.id == service), "")
        version = self._pins.get((service, name))
        if version is None:
            raise ModelFault("no model version is pinned for this service", where=service)
        found = self.scorer_of(name, version)
        if not self._kept.holds(found.model):  # before anything is inferred by it
            self._kept.keep(found.model, self._shelf.path(found.model))
        return found

    def scorer_then(self, name: str, version: str, digest: str, *, encoding: bool = True) -> Scorer:
        """The very version whose manifest has this SHA-256: from the shelf, or the copy that was kept of it.

        Without `encoding`, one that only fuses features which were encoded before: also where the encoder is another
        one by now. Raises: ModelFault when it is gone, ContractMismatch when its encoder is not of this program.
        """
        named = (name, version, digest, encoding)
        known = self._then.get(named)
        if known is None:
            model, directory = self.version_then(name, version, digest)
            known = self._then[named] = Scorer(model, directory, encoding=encoding)
        return known

    def version_then(self, name: str, version: str, digest: str) -> tuple[ModelVersion, Path]:
        """The version whose manifest has this SHA-256, and its directory. Raises: ModelFault when it is gone."""
        on_shelf = "no model of this name and version is on the shelf"
        with contextlib.suppress(CdsError):
            model = self._shelf.get(name, version)
            if model.manifest_digest == digest:
                return model, self._shelf.path(model)
            on_shelf = "the model on the shelf under this name is another one than then"
        try:
            return self._kept.find(name, version, digest)
        except ModelFault as error:
            raise ModelFault(f"{on_shelf}, and {error.what}") from None

    def pinned_at(self, service: str, model: str, at: str) -> tuple[str, str] | None:
        """Version and digest that were pinned for a service at an instant; None before the first."""
        row = self._store.reads.one(
            "SELECT version, digest FROM pin WHERE service = ? AND model = ? AND at <= ? ORDER BY id DESC LIMIT 1",
            (service, model, at),
        )
        return (str(row[0]), str(row[1])) if row else None

    def stopped_at(self, service: str, at: str) -> bool:
        """Whether a service was stopped at an instant (not: the model that it speaks by)."""
        row = self._store.reads.one(
            "SELECT state FROM service_state WHERE service = ? AND at <= ? ORDER BY id DESC LIMIT 1", (service, at)
        )
        return row is not None and row[0] == "stopped"

    def scorer_of(self, name: str, version: str) -> Scorer:
        known = self._scorers.get(f"{name}@{version}")
        if known is None:
            model = self._shelf.get(name, version)
            known = self._scorers[model.id] = Scorer(model, self._shelf.path(model))
        return known

    def stopped(self, service: str) -> bool:
        """Whether a service is silent: it was stopped, or the model that it speaks by was."""
        self._refresh()
        return service in self._stopped

    def model_stopped(self, service: str, model: str) -> bool:
        """Whether a model of a service was stopped, under its name or as the version that is pinned here."""
        self._refresh()
        return bool(self._stopped_models) and self._model_stopped(service, model)

    def pins(self) -> Mapping[tuple[str, str], str]:
        """(service, model) -> version."""
        self._refresh()
        return self._pins

    def needed(self) -> tuple[tuple[str, str], ...]:
        """(service, model) of each model that some service speaks by."""
        return tuple(dict.fromkeys((spec.id, model) for spec in self.specs for model in spec.models))

    def service_ids(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(spec.id for spec in self.specs))

    def _refresh(self) -> None:
        if time.monotonic() - self._asked < FRESH:
            return
        pins = self._store.reads.query("SELECT service, model, version FROM pin ORDER BY id")
        states = self._store.reads.query("SELECT service, state FROM service_state ORDER BY id")
        self._pins = {(service, model): version for service, model, version in pins}
        off = {name for name, state in dict(map(tuple, states)).items() if state == "stopped"}
        self._stopped_models = frozenset(name.removeprefix(_MODEL) for name in off if name.startswith(_MODEL))
        silent = {spec.id for spec in self.specs if self._model_stopped(spec.id, spec.model)}
        self._stopped = frozenset(off | silent)
        self._asked = time.monotonic()

    def _model_stopped(self, service: str, model: str) -> bool:
        return not self._stopped_models.isdisjoint((model, f"{model}@{self._pins.get((service, model))}"))

    # -- switches: each is an entry ------------------------------------------------------------------------------------

    def pin_defaults(self, actor: str) -> None:
        """Pin the newest shipped version for each service that has no pin yet: the first start of an instance."""
        for service, model in self.needed():
            if (service, model) not in self.pins():
                self.use(service, self._shelf.get(model, None), actor)

    def use(self, service: str, model: ModelVersion, actor: str) -> int:
        """From now on the service uses this version; gives the entry's sequence number."""
        spec = next((spec for spec in self.specs if spec.id == service), None)
        if spec is None:
            raise NotFound("there is no such service", where="service")
        if model.name not in spec.models:
            raise NotFound(f"this service is written for the model {' and '.join(spec.models)}", where="model")
        self.scorer_of(model.name, model.version)  # a version that cannot be loaded cannot be pinned

        def act(tx: Tx) -> int:
            tx.add(
                "pin", service=service, model=model.name, version=model.version, digest=model.manifest_digest, at=tx.now
            )
            return tx.entry("pin", actor, {"service": service, "model": model.id, "digest": model.manifest_digest}).seq

        seq = self._store.writer.submit(act).result()
        self._asked = float("-inf")
        return seq

    def switch(self, service: str, state: str, reason: str | None, actor: str) -> int:
        """Stop or start a service."""
        if service not in self.service_ids():
            raise NotFound("there is no such service", where="service")
        return self._switch("service", service, service, state, reason, actor)

    def switch_model(self, name: str, state: str, reason: str | None, actor: str) -> int:
        """Stop or start a model, `NAME` (all its versions) or `NAME@VERSION`, in every service that speaks by it."""
        if name.partition("@")[0] not in {model for _, model in self.needed()}:
            raise NotFound("no service speaks by this model", where="model")
        return self._switch("model", f"{_MODEL}{name}", name, state, reason, actor)

    def _switch(self, kind: str, key: str, name: str, state: str, reason: str | None, actor: str) -> int:
        def act(tx: Tx) -> int:
            tx.add("service_state", service=key, state=state, reason=reason, at=tx.now)
            return tx.entry(f"{kind}-{state}", actor, {kind: name}).seq

        seq = self._store.writer.submit(act).result()
        self._asked = float("-inf")
        return seq
