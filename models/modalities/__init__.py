"""One file per modality. A module that declares NAME and follows `Modality` is found by `discover`."""

from __future__ import annotations

from typing import Protocol

from models.nouns import JSON, FeatureVector, Snapshot


class Modality(Protocol):
    """What a modality's module offers.

    1. `NAME` is how manifests and heads call it.
    2. `ENCODER` is the digest of its source and feature definitions; a manifest names the one it was made with.
    3. `facts_wanted` lists the code tokens (`system|code`) that a snapshot must ask for.
    4. `encode` turns a snapshot into numbers in the order of the manifest's columns; it never raises for what a record
       lacks: a modality that cannot speak says why in `absent`. BadInput: the request's own what-if values are wrong.
    """

    NAME: str
    ENCODER: str

    def facts_wanted(self, manifest: JSON) -> frozenset[str]: ...

    def encode(self, snapshot: Snapshot, manifest: JSON) -> FeatureVector: ...
