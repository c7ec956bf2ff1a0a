"""What shows an auditor that a model version did what is said of it: one ZIP file, made of the log, the same each time.

Everything in it follows from the log up to one checkpoint, from the model version whose digest stands in its entries,
and from what witnesses and anchors gave. Times, order and compression are fixed, signatures are Ed25519: so the same
record gives the same bytes. No payload is in it, unless one card is opened by name.
"""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from cds_server.checkpoints import Checkpoints, Signed
from cds_server.decisions import INFERENCE, SNAPSHOT
from cds_server.kept import Kept
from cds_server.ledger import evidence_check, verifier
from cds_server.ledger.evidence_check import APPROVED, CONTENTS, HEAD, acts, count
from cds_server.proving import export, prove
from cds_server.shown import CARD
from cds_server.store.store import Store
from cds_server.store.vault import commitment_key, object_ref
from models.canonical import canonical
from models.errors import BadInput, Misconfigured, ModelFault, NotFound
from models.nouns import ModelVersion
from models.shelf import MANIFEST, Shelf

PROVED = 16
"""Inferences that are proved one by one, the newest ones: the log in the package holds them all."""
_WHEN = (1980, 1, 1, 0, 0, 0)
"""The oldest time that a ZIP file can carry."""
_BUILD = "urn:cds-server:models.training"
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Made:
    size: int
    """Entries of the log that the package rests on."""
    files: int
    digest: str
    """SHA-256 of the package."""
    inferences: int


def evidence(
    store: Store, checkpoints: Checkpoints, shelf: Shelf, named: str, to: Path, *, card: str | None = None, at: int = 0
) -> Made:
    """Write the package about `NAME@VERSION` to a file that is not there yet. `card`: open this card in it, with what
    it rests on. `at`: as of the checkpoint of that size; 0: the newest.

    Errors: NotFound (no such version, card or checkpoint), BadInput (the card is another model's), Erased,
    Misconfigured (the file is there), ModelFault (the files of then are gone).
    """
    if to.exists():
        raise Misconfigured("the file is there already", where="--out")
    signed = checkpoints.at(at) if at else checkpoints.last()
    if signed is None:
        raise NotFound("there is no checkpoint of that size" if at else "the log was not signed yet")
    size = signed.checkpoint.size
    statistics = count(_bodies(store, size), named)
    model, directory = _model(store, shelf, named, statistics["by_manifest"])
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        export(store, checkpoints, folder / "ledger", signed)
        _model_files(model, directory, folder / "model")
        _write(folder / "statistics.json", {**statistics, "runtimes": _runtimes(store, named, size)})
        _write(folder / "validation.json", _validation(model))
        _write(folder / "approvals.json", _approvals(store, model, size))
        _write(folder / "provenance.json", _provenance(model, folder))
        for seq in _to_prove(store, named, size):
            (folder / "proofs").mkdir(exist_ok=True)
            (folder / "proofs" / f"{seq}.tlog-proof").write_bytes(prove(store, checkpoints, seq, signed=signed))
        if card is not None:
            _open_card(store, named, card, size, folder / "card")
        shutil.copyfile(str(verifier.__file__), folder / "verifier.py")
        shutil.copyfile(str(evidence_check.__file__), folder / "check.py")
        (folder / "README.md").write_text(_readme(model, signed, statistics, card), encoding="utf-8")
        names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
        listed = "".join(f"{_digest(folder / name)}  {name}\n" for name in names)
        checkpoint = signed.checkpoint
        root = base64.b64encode(checkpoint.root).decode()
        head = f"{HEAD}\n{checkpoint.origin}\n{named}\n{size}\n{root}\n"
        (folder / CONTENTS).write_bytes(checkpoints.attest(head + listed, size))
        _zip(folder, [CONTENTS, *names], to)
    return Made(size, len(names) + 1, _digest(to), statistics["inferences"])


# ---- the model -------------------------------------------------------------------------------------------------------


def _model(store: Store, shelf: Shelf, named: str, used: dict[str, int]) -> tuple[ModelVersion, Path]:
    """The version by the manifest that the log's entries name, wherever it still stands."""
    name, _, version = named.partition("@")
    if not version:
        raise BadInput("a model version is named NAME@VERSION", where="MODEL")
    try:
        model = shelf.get(name, version)
    except NotFound:
        model = None
    if model is not None and (not used or model.manifest_digest in used):
        return model, shelf.path(model)
    if not used:
        raise NotFound("no such model version on the shelf")
    kept = Kept(store.data_dir)
    for digest in sorted(used, key=lambda each: -used[each]):
        try:
            return kept.find(name, version, digest)
        except ModelFault:
            continue
    raise ModelFault("the files by which it scored are gone", where=named)


def _model_files(model: ModelVersion, directory: Path, to: Path) -> None:
    to.mkdir()
    for name in sorted({MANIFEST, *model.files}):
        shutil.copyfile(directory / name, to / name)


def _validation(model: ModelVersion) -> dict[str, Any]:
    """What was measured of it, and where it must not be used, out of its manifest."""
    manifest = model.manifest
    wanted = ("title", "endpoint", "population", "metrics", "operating_points", "evidence", "limits", "intended_use")
    found = {key: manifest[key] for key in wanted if key in manifest}
    return {"model": model.id, "manifest": model.manifest_digest, "source": "model/manifest.json", **found}


def _provenance(model: ModelVersion, folder: Path) -> dict[str, Any]:
    """How it was made: in-toto Statement v1 with the SLSA provenance predicate v1, out of its manifest."""
    training = dict(model.manifest.get("training") or {})
    data = training.pop("data", {})
    sources = training.pop("sources", {})
    materials = [
        {"uri": f"{kind}:{name}", "digest": {"sha256": digest}}
        for kind, of_kind in (("data", data), ("source", sources))
        for name, digest in sorted(of_kind.items() if isinstance(of_kind, dict) else ())
        if isinstance(digest, str)
    ]
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [
            {"name": f"model/{name}", "digest": {"sha256": _digest(folder / "model" / name)}}
            for name in sorted({MANIFEST, *model.files})
        ],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": _BUILD,
                "externalParameters": {"model": model.id, "command": training.pop("command", None)},
                "internalParameters": training,
                "resolvedDependencies": materials,
            },
            "runDetails": {
                "builder": {"id": "manifest"},
                "metadata": {"invocationId": model.manifest_digest},
            },
        },
    }


def _approvals(store: Store, model: ModelVersion, size: int) -> dict[str, Any]:
    """Who enrolled it, and who put it to use where: entries of the log. Signed approvals, where there are any."""
    found = acts(_bodies(store, size), model.id)
    signed = [each for each in found if each["act"] in APPROVED]
    return {"acts": found, "approvals": signed, "said": "" if signed else "no approval stands on record"}


# ---- what it did -----------------------------------------------------------------------------------------------------


def _bodies(store: Store, size: int) -> Iterator[dict[str, Any]]:
    for entry in store.reads.entries(upto=size):
        yield orjson.loads(entry.body)


def _runtimes(store: Store, named: str, size: int) -> dict[str, int]:
    asked = "SELECT runtime, COUNT(*) FROM inference WHERE model = ? AND entry <= ? GROUP BY runtime ORDER BY runtime"
    return {row[0]: int(row[1]) for row in store.reads.query(asked, (named, size))}


def _to_prove(store: Store, named: str, size: int) -> list[int]:
    asked = "SELECT DISTINCT entry FROM inference WHERE model = ? AND entry <= ? ORDER BY entry DESC LIMIT ?"
    pins = "SELECT entry, model, version FROM pin WHERE entry <= ? ORDER BY entry"
    found = {int(row[0]) for row in store.reads.query(asked, (named, size, PROVED))}
    found |= {int(row[0]) for row in store.reads.query(pins, (size,)) if f"{row[1]}@{row[2]}" == named}
    return sorted(found)


def _open_card(store: Store, named: str, uuid: str, size: int, to: Path) -> None:
    """A card, its judgement and its snapshot in the clear, and what opens their commitments: an HMAC key each, which
    is derived from the sealing key and does not give it away."""
    row = store.reads.one(
        "SELECT c.uuid, c.sealed, i.ref, i.sealed, s.ref, s.sealed, i.entry, i.model FROM card c "
        "JOIN inference i ON i.id = c.inference_id JOIN snapshot s ON s.id = i.snapshot_id WHERE c.uuid = ?",
        (uuid,),
    )
    if row is None or int(row[6]) > size:
        raise NotFound("no card of that name is on record, up to this checkpoint")
    if row[7] != named:
        raise BadInput("this card is another model's", where="--card")
    to.mkdir()
    keys = {}
    for name, ref, sealed in (
        ("card.json", object_ref(CARD, row[0]), row[1]),
        ("judged.json", object_ref(INFERENCE, row[2]), row[3]),
        ("snapshot.json", object_ref(SNAPSHOT, row[4]), row[5]),
    ):
        (to / name).write_bytes(store.vault.open(ref, bytes(sealed)))
        key = store.vault.key(ref)
        keys[name] = commitment_key(key).hex() if key is not None else ""
    _write(to / "opening.json", {"entry": int(row[6]), "card": row[0], "inference": row[2], "keys": keys})


# ---- files -----------------------------------------------------------------------------------------------------------


def _write(path: Path, value: Any) -> None:
    """Canonical JSON, broken into lines for people where that keeps it the same each time."""
    path.write_text(json.dumps(json.loads(canonical(value)), indent=1, sort_keys=True, ensure_ascii=False) + "\n")


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _zip(folder: Path, names: list[str], to: Path) -> None:
    """Stored, not compressed: what a compressor makes depends on its version. In this order, with one time and mode."""
    staged = to.with_name(f"{to.name}.new")
    with zipfile.ZipFile(staged, "w", zipfile.ZIP_STORED) as archive:
        for name in names:
            info = zipfile.ZipInfo(name, _WHEN)
            info.create_system, info.external_attr = 3, 0o100644 << 16
            info.file_size = (folder / name).stat().st_size
            with open(folder / name, "rb") as source, archive.open(info, "w") as target:
                shutil.copyfileobj(source, target, _CHUNK)
    staged.rename(to)


def _readme(model: ModelVersion, signed: Signed, statistics: dict[str, Any], card: str | None) -> str:
    checkpoint = signed.checkpoint
    judged, shown = statistics["inferences"], statistics["cards"]
    holds = "One card is opened." if card else "No payload and nothing of a patient is in it."
    opened = f"\nThe card `{card}` is opened in `card/`: treat this package as the patient's data.\n" if card else ""
    return f"""# Evidence about {model.id}

{model.manifest["title"]}: {model.manifest["endpoint"]}

Made of the log `{checkpoint.origin}` as of {checkpoint.size} entries. It says that this model judged
{judged} times, and that {shown} cards were shown. {holds}
{opened}
## Check it, offline

With Python 3.11 or newer, the package `cryptography`, and the log's public key as you were given it when you began to
trust the log. Never take the key from this package. Better take `check.py` and `verifier.py` from the source, too.

```
python check.py . --key KEY                    # everything below; add --witness KEY for each witness that you know
python verifier.py ledger --key KEY            # the log alone
python verifier.py proofs/N.tlog-proof --key KEY
openssl ts -verify -in ledger/anchors/N.NAME.tsr -data ledger/anchors/N.note -CAfile CA.pem    # where there are any
```

Exit code 0: everything holds. Else a sentence names what does not.

## What is in it, and what vouches for it

| File | what | vouched for by |
|---|---|---|
| `CONTENTS` | every file with its SHA-256, and the checkpoint | the log's signature |
| `model/` | manifest, graphs, model card, SBOM (CycloneDX): what scored | the manifest's digest in the log |
| `provenance.json` | in-toto Statement v1, SLSA provenance v1: how it was made | `CONTENTS`; said by the manifest |
| `validation.json` | what was measured, and the limits | `CONTENTS`; said by the manifest |
| `approvals.json` | who enrolled it and put it to use, by entry | listed anew from the log by `check.py` |
| `statistics.json` | how often it judged, abstained, showed cards | counted anew from the log by `check.py` |
| `ledger/` | every entry of the log, tree, checkpoints, receipts; no payload | checkpoints, witnesses, time stamps |
| `proofs/` | its newest inferences and its pins, each by itself | checkpoints |
| `card/` | a card with its judgement and snapshot, if one was opened | commitments in its entry |

## What it does not show

That the entries were true when they were written; that a score was right; whether the machine that wrote the log was
honest from its first entry. A witness or a kept checkpoint shows that nothing was changed since.
"""
