"""Checks an evidence package by itself: this file, `verifier.py` beside it, Python and `cryptography`.

    python check.py PACKAGE --key KEY [--key KEY] [--witness KEY] [--quorum N]

PACKAGE is the ZIP file, or the folder that it was unpacked into. KEY is the log's public key as you were given it when
you began to trust the log; never take it from the package. Exit code 0: everything holds; 1: something does not, and a
sentence names it.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import hmac
import json
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

if __package__:
    from cds_server.ledger import verifier
else:
    import verifier  # type: ignore[import-not-found,no-redef]

HEAD = "cds evidence v1"
CONTENTS = "CONTENTS"
MOST_BYTES = 1 << 34
"""Of an unpacked package."""
ASSERTED = ("enrol", "pin", "infer")
ACTS = ("pin", "enrol", "recalibrate", "approve", "promote", "retire")
APPROVED = ("approve", "promote")


class Package:
    """A folder of evidence. Each check gives a sentence, or raises `verifier.Wrong` with another one."""

    def __init__(
        self, folder: Path, keys: list[verifier.Key], witnesses: Sequence[verifier.Key] = (), quorum: int = 0
    ) -> None:
        self.folder, self.keys, self.witnesses, self.quorum = folder, keys, witnesses, quorum
        self.size, self.model = 0, ""
        self._listed: dict[str, str] = {}

    def checks(self) -> list[Callable[[], str]]:
        return [
            self.contents,
            self.files,
            self.log,
            self.artifacts,
            self.provenance,
            self.statistics,
            self.approvals,
            self.proofs,
            self.receipts,
            self.card,
        ]

    # -- what is there -------------------------------------------------------------------------------------------------

    def contents(self) -> str:
        """The list of files is signed by the log's key."""
        for raw in verifier._notes(self.folder / "ledger" / "rotations"):
            verifier.follow(raw, self.keys)
        raw = self._read(CONTENTS)
        head, origin, model, size, root, *lines = verifier.parse_note(raw).text.splitlines() + [""] * 5
        self._listed = {line[66:]: line[:64] for line in lines if line}
        self.model, self.size = model, int(size) if size.isdecimal() else 0
        verifier.open_note(raw, [key for key in self.keys if key.name == origin])
        if head != HEAD:
            raise verifier.Wrong("the list of files is not one of an evidence package")
        last = verifier.parse_checkpoint(verifier.open_note(self._read("ledger/checkpoint"), self.keys).text)
        if (last.origin, str(last.size), base64.b64encode(last.root).decode()) != (origin, size, root):
            raise verifier.Wrong("the package was made of another log, or at another size, than it carries")
        return f"signed by {origin}, about {model}, as of {size} entries"

    def files(self) -> str:
        """Each listed file is there and unchanged, and no other."""
        there = {
            path.relative_to(self.folder).as_posix()
            for path in self.folder.rglob("*")
            if path.is_file() and "__pycache__" not in path.parts
        } - {CONTENTS}
        wrong = [f"{name} is missing" for name in sorted(self._listed.keys() - there)]
        wrong += [f"{name} was added" for name in sorted(there - self._listed.keys())]
        wrong += [
            f"{name} was changed"
            for name in sorted(there & self._listed.keys())
            if hashlib.sha256(self._read(name)).hexdigest() != self._listed[name]
        ]
        if wrong or not there:
            raise verifier.Wrong("; ".join(wrong[:20]) or "no file is there")
        return f"{len(there)} files are the ones that were signed"

    def log(self) -> str:
        """Every entry, its place, its chain, and what every checkpoint signed."""
        found = verifier.verify_export(self.folder / "ledger", self.keys, self.witnesses, self.quorum)
        last = max(found, key=lambda each: each.size)
        if self.size and last.size != self.size:
            raise verifier.Wrong(f"the log was signed at {last.size} entries, the package at {self.size}")
        return f"{last.size} entries are the ones that {len(found)} checkpoints signed"

    # -- the model -----------------------------------------------------------------------------------------------------

    def artifacts(self) -> str:
        """The model's files are those of its manifest, and the manifest is the one that the log's entries name."""
        raw = self._read("model/manifest.json")
        manifest = _parsed(raw, "model/manifest.json")
        if f"{manifest.get('name')}@{manifest.get('version')}" != self.model:
            raise verifier.Wrong("model/manifest.json is of another model")
        for name, digest in sorted(manifest["files"].items()):
            if hashlib.sha256(self._read(f"model/{name}")).hexdigest() != digest:
                raise verifier.Wrong(f"model/{name} is not the file that the manifest names")
        found = hashlib.sha256(raw).hexdigest()
        named = {digest for _, digest in self._naming()}
        if named and found not in named:
            raise verifier.Wrong("model/manifest.json is not the manifest that the log's entries name")
        return f"{len(manifest['files'])} files of manifest {found[:16]}…, " + (
            "which the log's entries name" if named else "which no entry names yet"
        )

    def provenance(self) -> str:
        """The in-toto statement is about these very files."""
        statement = _parsed(self._read("provenance.json"), "provenance.json")
        if statement.get("_type") != "https://in-toto.io/Statement/v1":
            raise verifier.Wrong("provenance.json is no in-toto statement")
        for subject in statement["subject"]:
            if hashlib.sha256(self._read(subject["name"])).hexdigest() != subject["digest"]["sha256"]:
                raise verifier.Wrong(f"provenance.json is about another {subject['name']}")
        return f"in-toto statement about {len(statement['subject'])} files"

    # -- what it did ---------------------------------------------------------------------------------------------------

    def entries(self) -> Iterator[dict[str, Any]]:
        size = verifier.parse_checkpoint(verifier.parse_note(self._read("ledger/checkpoint")).text).size
        for n, body in enumerate(verifier.bodies(self.folder / "ledger", size)):
            yield _parsed(body, f"entry {n + 1}")

    def _naming(self) -> Iterator[tuple[int, str]]:
        """(entry, digest) of each entry that names this model's manifest."""
        for entry in self.entries():
            detail = entry.get("detail", {})
            if entry.get("kind") in ASSERTED and detail.get("model") == self.model:
                yield entry["seq"], str(detail.get("model_digest") or detail.get("digest"))

    def statistics(self) -> str:
        """Counted anew from the entries."""
        said = _parsed(self._read("statistics.json"), "statistics.json")
        found = count(self.entries(), self.model)
        for key, value in found.items():
            if said.get(key) != value:
                raise verifier.Wrong(f"statistics.json: {key} is not what the log's entries say")
        return f"{found['inferences']} inferences and {found['cards']} cards, counted anew"

    def approvals(self) -> str:
        """Every act on this model that the log names, and no other."""
        said = _parsed(self._read("approvals.json"), "approvals.json")
        found = acts(self.entries(), self.model)
        if said.get("acts") != found:
            raise verifier.Wrong("approvals.json: its acts are not the ones that the log's entries name")
        if said.get("approvals") != [each for each in found if each["act"] in APPROVED]:
            raise verifier.Wrong("approvals.json: its approvals are not the ones that the log's entries name")
        return f"{len(found)} acts on the model, of which {len(said['approvals'])} approve it"

    def proofs(self) -> str:
        """Each proof leads to a checkpoint of this log, and is of an entry about this model."""
        done = 0
        for path in sorted((self.folder / "proofs").glob("*.tlog-proof")):
            try:
                verifier.check_file(path, self.keys, self.witnesses, self.quorum)
            except verifier.Wrong as wrong:
                raise verifier.Wrong(f"proofs/{path.name}: {wrong}") from None
            body = verifier.parse_proof(path.read_bytes()).body or b"{}"
            if _parsed(body, path.name).get("detail", {}).get("model") != self.model:
                raise verifier.Wrong(f"proofs/{path.name}: its entry is not about {self.model}")
            done += 1
        return f"{done} entries proved one by one"

    def receipts(self) -> str:
        """Each anchor's receipt carries the digest of its checkpoint; its signature: openssl ts -verify."""
        folder, done = self.folder / "ledger" / "anchors", 0
        for path in sorted(folder.glob("*.tsr")) if folder.is_dir() else ():
            note = self._read(f"ledger/anchors/{path.name.partition('.')[0]}.note")
            verifier.open_note(note, self.keys)
            if hashlib.sha256(note).digest() not in path.read_bytes():
                raise verifier.Wrong(f"ledger/anchors/{path.name} is not over its checkpoint")
            done += 1
        return f"{done} time stamps are over checkpoints of this log"

    def card(self) -> str:
        """One card, end to end: its text, what it rests on, and the model are what an entry committed to."""
        if not (self.folder / "card").is_dir():
            return "the package opens no card"
        opening = _parsed(self._read("card/opening.json"), "card/opening.json")
        entry = next((each for each in self.entries() if each["seq"] == opening["entry"]), None)
        if entry is None or entry["kind"] != "infer":
            raise verifier.Wrong("card/opening.json names an entry that is no inference")
        detail = entry["detail"]
        if detail.get("model") != self.model:
            raise verifier.Wrong("card/opening.json names an inference of another model")
        wanted = {
            "card.json": detail["cards"].get(opening["card"]),
            "judged.json": detail["judged"],
            "snapshot.json": detail["snapshot"],
        }
        for name, committed in wanted.items():
            found = hmac.digest(bytes.fromhex(opening["keys"][name]), self._read(f"card/{name}"), "sha256").hex()
            if found != committed:
                raise verifier.Wrong(f"card/{name} is not what entry {opening['entry']} committed to")
        if _parsed(self._read("card/card.json"), "card/card.json").get("uuid") != opening["card"]:
            raise verifier.Wrong("card/card.json is another card")
        return f"card {opening['card']} is the one of entry {opening['entry']}, with what it rests on"

    def _read(self, name: str) -> bytes:
        try:
            return (self.folder / name).read_bytes()
        except OSError:
            raise verifier.Wrong(f"{name} is missing or cannot be read") from None


def count(entries: Iterator[dict[str, Any]], model: str) -> dict[str, Any]:
    """What a log's entries say that a model did. The server counts by this very function."""
    services: dict[str, int] = {}
    months: dict[str, int] = {}
    digests: dict[str, int] = {}
    inferences = abstained = cards = 0
    first = last = None
    for entry in entries:
        detail = entry.get("detail", {})
        if entry.get("kind") != "infer" or detail.get("model") != model:
            continue
        inferences += 1
        abstained += bool(detail.get("abstained"))
        cards += len(detail.get("cards", {}))
        for counts, name in (
            (services, detail["service"]),
            (months, entry["at"][:7]),
            (digests, detail["model_digest"]),
        ):
            counts[name] = counts.get(name, 0) + 1
        first, last = first or entry["at"], entry["at"]
    return {
        "model": model,
        "inferences": inferences,
        "abstained": abstained,
        "cards": cards,
        "by_service": services,
        "by_month": months,
        "by_manifest": digests,
        "first": first,
        "last": last,
    }


def acts(entries: Iterator[dict[str, Any]], model: str) -> list[dict[str, Any]]:
    """Who enrolled a model, put it to use, approved it: by entry. The server lists by this very function."""
    return [
        {"entry": each["seq"], "at": each["at"], "by": each["actor"], "act": each["kind"], **each["detail"]}
        for each in entries
        if each.get("kind") in ACTS and each.get("detail", {}).get("model") == model
    ]


def _parsed(raw: bytes, name: str) -> dict[str, Any]:
    try:
        found = json.loads(raw)
    except ValueError:
        raise verifier.Wrong(f"{name} is not JSON") from None
    if not isinstance(found, dict):
        raise verifier.Wrong(f"{name} is not an object")
    return found


def check(
    folder: Path, keys: list[verifier.Key], witnesses: Sequence[verifier.Key] = (), quorum: int = 0
) -> tuple[list[str], list[str]]:
    """(what holds, what does not): a sentence each."""
    package = Package(folder, keys, witnesses, quorum)
    good, bad = [], []
    for one in package.checks():
        try:
            good.append(f"{one.__name__}: {one()}")
        except verifier.Wrong as wrong:
            bad.append(f"{one.__name__}: {wrong}")
        except (KeyError, TypeError, ValueError, AttributeError, IndexError):
            bad.append(f"{one.__name__}: a file is not written as it must be")
    return good, bad


def unpack(package: Path, to: Path) -> None:
    """Raises Wrong: no ZIP file, names that lead elsewhere, too much."""
    try:
        with zipfile.ZipFile(package) as archive:
            if sum(each.file_size for each in archive.infolist()) > MOST_BYTES:
                raise verifier.Wrong("the package unpacks to too much")
            for name in archive.namelist():
                if name.startswith(("/", "\\")) or ".." in Path(name).parts or "\\" in name:
                    raise verifier.Wrong("a name in the package leads out of it")
            if len(set(archive.namelist())) != len(archive.namelist()):
                raise verifier.Wrong("the package has two files of one name")
            archive.extractall(to)
    except (OSError, zipfile.BadZipFile, EOFError, NotImplementedError):
        raise verifier.Wrong("the package is damaged, or no ZIP file") from None


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Check an evidence package, offline.")
    parser.add_argument("package", metavar="PACKAGE", type=Path)
    parser.add_argument("--key", action="append", required=True, help="public key of the log, or a file of such lines")
    parser.add_argument("--witness", action="append", default=[], metavar="KEY", help="the same of a witness")
    parser.add_argument("--quorum", type=int, help="how many of the witnesses must have signed (default: all)")
    args = parser.parse_args(argv)
    good, bad = list[str](), list[str]()
    with tempfile.TemporaryDirectory() as place:
        try:
            keys, witnesses = verifier._keys(args.key), verifier._keys(args.witness)
            folder = args.package
            if not folder.is_dir():
                folder = Path(place)
                unpack(args.package, folder)
            good, bad = check(folder, keys, witnesses, len(witnesses) if args.quorum is None else args.quorum)
        except verifier.Wrong as wrong:
            bad = [str(wrong)]
    sys.stdout.write("".join(f"{each}\n" for each in good) + "".join(f"NO: {each}\n" for each in bad))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
