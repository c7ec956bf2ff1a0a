"""Checks what a log gave away, by itself: this one file, Python's standard library, and `cryptography` for Ed25519.

    python verifier.py FILE... --key KEY [--key KEY] [--witness KEY [--witness KEY]] [--quorum N]

FILE is a proof of one entry (`.tlog-proof`), a checkpoint, a key rotation, or the folder of a whole export. KEY is the
log's public key as you were given it when you began to trust the log, `name+hash+base64`, or a file with such lines;
never take it from the log itself at the time of checking. Exit code 0: everything holds; 1: something does not, and
a sentence says what.

After c2sp.org/signed-note, /tlog-checkpoint, /tlog-cosignature, /tlog-proof, /tlog-tiles; RFC 9162 2.1.3.2 and 2.1.4.2.
Several files are also held against each other: all their checkpoints must be of one log.
"""

from __future__ import annotations

import argparse
import base64
import binascii
import hashlib
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

LOG, WITNESS = 0x01, 0x04
"""Signature types: Ed25519 over the text; Ed25519 over a time and the text."""
PROOF = "c2sp.org/tlog-proof@v1"
GENESIS = hashlib.sha256(b"cds-server ledger v1").digest()
"""What the first entry is chained to."""
MOST_SIGNATURES, MOST_LINES = 64, 63
"""Of a note; hashes of a proof (a tree has no more levels)."""


class Wrong(Exception):
    """What does not hold, in one sentence."""


# ---- keys and notes --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Key:
    """A public key as it is pinned: whose, which type of signature, 32 bytes."""

    name: str
    kind: int
    raw: bytes

    @property
    def id(self) -> bytes:
        return hashlib.sha256(self.name.encode() + b"\n" + bytes([self.kind]) + self.raw).digest()[:4]

    def __str__(self) -> str:
        return f"{self.name}+{self.id.hex()}+{base64.b64encode(bytes([self.kind]) + self.raw).decode()}"


def parse_key(text: str) -> Key:
    """From `name+hash+base64(type || key)`; the hash must be that of the key."""
    parts = text.strip().split("+", 2)
    if len(parts) != 3 or not named(parts[0]):
        raise Wrong("a key is written name+hash+base64")
    raw = _decoded(parts[2])
    if len(raw) != 33 or raw[0] not in (LOG, WITNESS):
        raise Wrong("a key is of Ed25519: type 1 of a log, type 4 of a witness")
    key = Key(parts[0], raw[0], raw[1:])
    if key.id.hex() != parts[1]:
        raise Wrong("a key does not fit the hash beside it: it was mistyped")
    return key


def named(name: str) -> bool:
    """Whether this can be the name of a key."""
    return bool(name) and "+" not in name and not any(c.isspace() or ord(c) < 32 for c in name)


class Note(NamedTuple):
    text: str
    """Ends with a newline; what is signed."""
    signatures: tuple[tuple[str, bytes, bytes], ...]
    """(name, key id, signature)"""


def parse_note(raw: bytes) -> Note:
    try:
        whole = raw.decode("utf-8")
    except UnicodeDecodeError:
        raise Wrong("a note is not UTF-8") from None
    if any(ord(c) < 32 and c != "\n" for c in whole):
        raise Wrong("a note has control characters")
    text, blank, tail = whole.rpartition("\n\n")
    if not blank or not text or not tail.endswith("\n"):
        raise Wrong("a note is a text, an empty line, and signatures")
    signatures = []
    for line in tail[:-1].split("\n"):
        words = line.split(" ")
        if len(words) != 3 or words[0] != "\u2014" or not named(words[1]):
            raise Wrong("a note has a line among its signatures that is none")
        raw_signature = _decoded(words[2])
        if len(raw_signature) < 5:
            raise Wrong("a note has a signature that is too short")
        signatures.append((words[1], raw_signature[:4], raw_signature[4:]))
    if len(signatures) > MOST_SIGNATURES:
        raise Wrong("a note has too many signatures")
    return Note(text + "\n", tuple(signatures))


def open_note(raw: bytes, keys: Iterable[Key]) -> Note:
    """A note that at least one of these keys signed; a known key's signature that does not hold spoils it."""
    note = parse_note(raw)
    known = {(key.name, key.id): key for key in keys if key.kind == LOG}
    ours = [(known[each[:2]], each[2]) for each in note.signatures if each[:2] in known]
    for key, signature in ours:
        _check(key, signature, note.text.encode())
    if not ours:
        raise Wrong("a note carries no signature of a key that you trust")
    return note


def open_cosignature(note: Note, witness: Key) -> int | None:
    """When this witness saw the checkpoint, in seconds since 1970; None where it did not sign."""
    for name, key_id, signature in note.signatures:
        if (name, key_id) == (witness.name, witness.id):
            if len(signature) != 72 or (seconds := int.from_bytes(signature[:8], "big")) >= 1 << 63:
                raise Wrong(f"the signature of witness {witness.name} has no time in it")
            _check(witness, signature[8:], cosigned(note.text, seconds))
            return seconds
    return None


def cosigned(text: str, seconds: int) -> bytes:
    """What a witness signs."""
    return f"cosignature/v1\ntime {seconds}\n{text}".encode()


def _check(key: Key, signature: bytes, message: bytes) -> None:
    try:
        Ed25519PublicKey.from_public_bytes(key.raw).verify(signature, message)
    except InvalidSignature:
        raise Wrong(f"the signature of {key.name} does not hold") from None


class Checkpoint(NamedTuple):
    origin: str
    size: int
    root: bytes


def parse_checkpoint(text: str) -> Checkpoint:
    lines = text.split("\n")
    if len(lines) < 4 or lines[-1] or not all(lines[:-1]):
        raise Wrong("a checkpoint has an origin, a size and a root, a line each")
    root = _decoded(lines[2])
    if len(root) != 32:
        raise Wrong("the root of a checkpoint is not 32 bytes")
    return Checkpoint(lines[0], number(lines[1]), root)


def open_checkpoint(raw: bytes, keys: Iterable[Key]) -> Checkpoint:
    """A checkpoint that a trusted key of its own log signed: a key of another log says nothing about this one."""
    origin = parse_note(raw).text.partition("\n")[0]
    return parse_checkpoint(open_note(raw, [key for key in keys if key.name == origin]).text)


def rotation(origin: str, key: Key) -> str:
    """The text by which an old key hands over to a new one."""
    return f"{origin}\nkey {key}\n"


def number(text: str) -> int:
    if not (text.isascii() and text.isdecimal()) or (text[0] == "0" and text != "0") or len(text) > 19:
        raise Wrong("a number is not written as one")
    return int(text)


def _decoded(text: str) -> bytes:
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise Wrong("a value is not base64") from None
    if base64.b64encode(raw).decode() != text:
        raise Wrong("a value is not base64 as it must be written")
    return raw


# ---- the tree --------------------------------------------------------------------------------------------------------


def leaf_hash(body: bytes) -> bytes:
    return hashlib.sha256(b"\x00" + body).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()


def verify_inclusion(leaf: bytes, index: int, size: int, root: bytes, proof: Sequence[bytes]) -> None:
    """That the leaf stands at `index` (from 0) in the tree of `size` leaves with this root."""
    _hashes(proof, leaf, root)
    if not 0 <= index < size:
        raise Wrong("the entry's place is not in a tree of that size")
    at, last, found = index, size - 1, leaf
    for sibling in proof:
        if last == 0:
            raise Wrong("the inclusion proof is too long")
        if at & 1 or at == last:
            found = node_hash(sibling, found)
            while at and not at & 1:
                at, last = at >> 1, last >> 1
        else:
            found = node_hash(found, sibling)
        at, last = at >> 1, last >> 1
    if last:
        raise Wrong("the inclusion proof is too short")
    if found != root:
        raise Wrong("the inclusion proof does not lead to the root: the entry is not the one that was signed")


def verify_consistency(size1: int, root1: bytes, size2: int, root2: bytes, proof: Sequence[bytes]) -> None:
    """That the tree of `size2` begins with all leaves of the tree of `size1`; an empty tree has no such proof."""
    _hashes(proof, root1, root2)
    if not 0 < size1 <= size2:
        raise Wrong("sizes of a consistency proof: a smaller tree that is not empty, then a larger one")
    if size1 == size2:
        if proof:
            raise Wrong("a consistency proof between equal sizes is empty")
        if root1 != root2:
            raise Wrong(f"two trees of {size1} entries have different roots")
        return
    if not proof:
        raise Wrong("the consistency proof is empty")
    path = list(proof) if size1 & (size1 - 1) else [root1, *proof]
    at, last = size1 - 1, size2 - 1
    while at & 1:
        at, last = at >> 1, last >> 1
    old = new = path[0]
    for sibling in path[1:]:
        if last == 0:
            raise Wrong("the consistency proof is too long")
        if at & 1 or at == last:
            old, new = node_hash(sibling, old), node_hash(sibling, new)
            while at and not at & 1:
                at, last = at >> 1, last >> 1
        else:
            new = node_hash(new, sibling)
        at, last = at >> 1, last >> 1
    if last:
        raise Wrong("the consistency proof is too short")
    if old != root1 or new != root2:
        raise Wrong(f"the log of {size2} entries does not begin with the {size1} entries that were signed before")


def _hashes(proof: Sequence[bytes], *others: bytes) -> None:
    if len(proof) > MOST_LINES:
        raise Wrong("a proof has too many hashes")
    if any(len(each) != 32 for each in (*proof, *others)):
        raise Wrong("a hash of a proof is not 32 bytes")


class Growing:
    """The root of a tree while leaves are added: one hash for each whole subtree on its left."""

    def __init__(self) -> None:
        self.size = 0
        self.whole: list[bytes] = []

    def add(self, leaf: bytes) -> None:
        self.size += 1
        full = self.size
        while not full & 1:
            leaf, full = node_hash(self.whole.pop(), leaf), full >> 1
        self.whole.append(leaf)

    def root(self) -> bytes:
        if not self.whole:
            return hashlib.sha256(b"").digest()
        found = self.whole[-1]
        for left in reversed(self.whole[:-1]):
            found = node_hash(left, found)
        return found


# ---- files -----------------------------------------------------------------------------------------------------------


class Proof(NamedTuple):
    place: int
    hashes: tuple[bytes, ...]
    note: bytes
    body: bytes | None


def parse_proof(raw: bytes) -> Proof:
    head, _, note = raw.partition(b"\n\n")
    try:
        lines = head.decode("ascii").split("\n")
    except UnicodeDecodeError:
        raise Wrong("a proof has other characters than ASCII") from None
    if lines.pop(0) != PROOF:
        raise Wrong("this is no proof")
    body = _decoded(lines.pop(0)[6:]) if lines and lines[0].startswith("extra ") else None
    if not lines or not lines[0].startswith("index "):
        raise Wrong("a proof has no index")
    index = number(lines.pop(0)[6:])
    return Proof(index, tuple(map(_decoded, lines)), note, body)


def tile_path(level: str, index: int, width: int = 256) -> str:
    """Where a tile stands (c2sp.org/tlog-tiles): three digits a folder, all but the last with an x."""
    digits = f"{index % 1000:03}"
    while index >= 1000:
        index //= 1000
        digits = f"x{index % 1000:03}/{digits}"
    return f"tile/{level}/{digits}" + (f".p/{width}" if width < 256 else "")


def bodies(folder: Path, size: int) -> Iterator[bytes]:
    """The entries of an export, in order: each with two bytes of length before it."""
    for first in range(0, size, 256):
        width = min(256, size - first)
        raw = _read(folder / tile_path("entries", first // 256, width))
        at = 0
        for n in range(first, first + width):
            length = int.from_bytes(raw[at : at + 2], "big")
            body = raw[at + 2 : at + 2 + length]
            if len(raw) < at + 2 or len(body) != length:
                raise Wrong(f"entry {n + 1}: it is cut off")
            at += 2 + length
            yield body
        if at != len(raw):
            raise Wrong(f"entry {first + width}: something stands behind it")


def verify_export(folder: Path, keys: list[Key], witnesses: Sequence[Key], quorum: int) -> list[Checkpoint]:
    """Every entry of an export, its place, its chain, its tiles, and the root that every checkpoint signed."""
    for raw in _notes(folder / "rotations"):
        follow(raw, keys)
    signed = [(raw, open_checkpoint(raw, keys)) for raw in _notes(folder / "checkpoints")]
    if not signed:
        raise Wrong("the export has no checkpoint")
    last = max(signed, key=lambda each: each[1].size)
    _quorum(last[0], witnesses, quorum)
    roots: dict[int, list[Checkpoint]] = {}
    for _, each in signed:
        roots.setdefault(each.size, []).append(each)
    chains, tree, chain, tile = _read(folder / "chain"), Growing(), GENESIS, b""
    agreed = 0
    for n, body in enumerate(bodies(folder, last[1].size)):
        leaf = leaf_hash(body)
        if n % 256 == 0:
            tile = _read(folder / tile_path("0", n // 256, min(256, last[1].size - n)))
        if tile[n % 256 * 32 : n % 256 * 32 + 32] != leaf:
            raise Wrong(f"entry {n + 1}: its body was edited (it does not hash to its leaf)")
        chain = hashlib.sha256(chain + leaf).digest()
        if chains[n * 32 : n * 32 + 32] != chain:
            raise Wrong(f"entry {n + 1}: the chain breaks here")
        if _seq(body) != n + 1:
            raise Wrong(f"entry {n + 1}: its body says that it is another entry")
        tree.add(leaf)
        for each in roots.get(tree.size, ()):
            if tree.root() != each.root:
                raise Wrong(f"entries {agreed + 1} to {tree.size}: one of them is not the one that was signed")
            agreed = tree.size
    return [each for _, each in signed]


def _seq(body: bytes) -> object:
    try:
        return json.loads(body)["seq"]
    except (ValueError, KeyError, TypeError):
        return None


def follow(raw: bytes, keys: list[Key]) -> None:
    """Trust the key that a trusted key hands over to."""
    text = open_note(raw, keys).text
    origin, _, line = text.partition("\n")
    key = parse_key(line.removeprefix("key ").rstrip("\n"))
    if text != rotation(origin, key) or key.name != origin:
        raise Wrong("a key rotation is not written as one")
    keys.append(key)


def _quorum(raw: bytes, witnesses: Sequence[Key], quorum: int) -> None:
    note = parse_note(raw)
    seen = sum(open_cosignature(note, witness) is not None for witness in witnesses)
    if seen < quorum:
        raise Wrong(f"{seen} of {len(witnesses)} witnesses signed the checkpoint; {quorum} are asked for")


def _notes(path: Path) -> list[bytes]:
    """Notes one after another, with a line of dashes between them."""
    if not path.is_file():
        return []
    return [note for note in _read(path).split(b"--------\n") if note]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        raise Wrong(f"{path.name} is missing or cannot be read") from None


def parse_growth(raw: bytes) -> tuple[int, list[bytes], bytes]:
    """(old size, consistency proof, new checkpoint): what a log sends to a witness (c2sp.org/tlog-witness)."""
    head, _, note = raw.partition(b"\n\n")
    try:
        lines = head.decode("ascii").split("\n")
    except UnicodeDecodeError:
        raise Wrong("a consistency proof has other characters than ASCII") from None
    if not lines[0].startswith("old ") or len(lines) > MOST_LINES + 1:
        raise Wrong("a consistency proof is an old size, at most 63 hashes, and a checkpoint")
    return number(lines[0][4:]), list(map(_decoded, lines[1:])), note


def check_file(
    path: Path, keys: list[Key], witnesses: Sequence[Key], quorum: int, before: Sequence[Checkpoint] = ()
) -> tuple[str, list[Checkpoint]]:
    """What holds of one file, as a sentence, and the checkpoints in it; `before`: those of the files before it."""
    if path.is_dir():
        found = verify_export(path, keys, witnesses, quorum)
        last = max(found, key=lambda each: each.size)
        return f"{last.size} entries are the ones that {len(found)} checkpoints of {last.origin} signed", found
    raw = _read(path)
    if raw.startswith(PROOF.encode()):
        proof = parse_proof(raw)
        checkpoint = open_checkpoint(proof.note, keys)
        _quorum(proof.note, witnesses, quorum)
        if proof.body is None:
            raise Wrong("the proof does not carry its entry")
        verify_inclusion(leaf_hash(proof.body), proof.place, checkpoint.size, checkpoint.root, proof.hashes)
        if _seq(proof.body) != proof.place + 1:
            raise Wrong(f"entry {proof.place + 1}: its body says that it is another entry")
        return f"entry {proof.place + 1} is in the log {checkpoint.origin} of {checkpoint.size} entries", [checkpoint]
    if raw.startswith(b"old "):
        size, hashes, note = parse_growth(raw)
        checkpoint = open_checkpoint(note, keys)
        _quorum(note, witnesses, quorum)
        old = next((each for each in before if (each.origin, each.size) == (checkpoint.origin, size)), None)
        if old is None:
            raise Wrong(f"name the checkpoint at {size} entries before this file")
        verify_consistency(size, old.root, checkpoint.size, checkpoint.root, hashes)
        return f"the log {checkpoint.origin} only grew, from {size} to {checkpoint.size} entries", [checkpoint]
    text = open_note(raw, keys).text
    if text.count("\n") == 2:
        follow(raw, keys)
        return "the new key was signed by a key that you trust", []
    _quorum(raw, witnesses, quorum)
    checkpoint = open_checkpoint(raw, keys)
    return f"checkpoint of {checkpoint.origin} at {checkpoint.size} entries", [checkpoint]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Check proofs, checkpoints and exports of a log, offline.")
    parser.add_argument("files", nargs="+", metavar="FILE", type=Path)
    parser.add_argument("--key", action="append", required=True, help="public key of the log, or a file of such lines")
    parser.add_argument("--witness", action="append", default=[], metavar="KEY", help="the same of a witness")
    parser.add_argument("--quorum", type=int, help="how many of the witnesses must have signed (default: all)")
    args = parser.parse_args(argv)
    seen: list[Checkpoint] = []
    wrongs: list[str] = []
    try:
        keys, witnesses = _keys(args.key), _keys(args.witness)
    except Wrong as wrong:
        parser.error(str(wrong))
    quorum = len(witnesses) if args.quorum is None else args.quorum
    for path in args.files:
        try:
            told, checkpoints = check_file(path, keys, witnesses, quorum, seen)
            sys.stdout.write(f"{path}: {told}\n")
            seen += checkpoints
        except Wrong as wrong:
            wrongs.append(f"{path}: {wrong}")
    wrongs += compare(seen)
    sys.stdout.write("".join(f"NO: {each}\n" for each in wrongs))
    return 1 if wrongs else 0


def compare(seen: Sequence[Checkpoint]) -> list[str]:
    """What is wrong with these checkpoints beside each other."""
    roots: dict[tuple[str, int], bytes] = {}
    forks = {each.size for each in seen if roots.setdefault((each.origin, each.size), each.root) != each.root}
    found = [f"two checkpoints at {size} entries have different roots: the log was forked" for size in sorted(forks)]
    return found + (["these are checkpoints of different logs"] if len({each.origin for each in seen}) > 1 else [])


def _keys(given: Sequence[str]) -> list[Key]:
    """Keys as they were named: themselves, or a file with one a line."""
    lines = (line for each in given for line in ([each] if "+" in each else _read(Path(each)).decode().splitlines()))
    return [parse_key(line) for line in lines if line.strip()]


if __name__ == "__main__":
    sys.exit(main())
