"""Proofs of the tree: strictly verified, agreed on with the RFC's own recursion, and nothing else accepted.

The known proofs, and the ways in which each is spoilt, are those of transparency-dev/merkle (Apache-2.0, Google LLC),
`proof/verify_test.go`: leaves and roots are Certificate Transparency's, see `test_ledger`.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cds_server.ledger.note import Signer, checkpoint_text, growth_text, note, proof_text
from cds_server.ledger.tree import EMPTY_ROOT, consistency, fold, inclusion, leaf_hash, root_at
from cds_server.ledger.verifier import (
    WITNESS,
    Checkpoint,
    Growing,
    Wrong,
    open_checkpoint,
    open_cosignature,
    open_note,
    parse_growth,
    parse_key,
    parse_note,
    parse_proof,
    tile_path,
    verify_consistency,
    verify_inclusion,
)
from tests.cds_server.test_ledger import ROOTS, VECTORS, recursive, recursive_path

A, B, C, D, E, F, G = (
    "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
    "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
    "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
    "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
    "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
    "b08693ec2e721597130641e8211e7eedccb4c26413963eee6c1e2ed16ffb1a5f",
)
INCLUSION = {
    (0, 1): [],
    (0, 8): [A, B, C],
    (5, 8): [D, E, ROOTS[3]],
    (2, 3): [ROOTS[1]],
    (1, 5): [ROOTS[0], B, D],
}
"""(index, size) -> proof"""
CONSISTENCY = {(1, 8): [A, B, C], (6, 8): [F, E, ROOTS[3]], (2, 5): [B, D], (6, 7): [F, G, ROOTS[3]]}
"""(old size, new size) -> proof"""
SOME = bytes.fromhex("abacaba000000000000000000000000000000000000000000060061e00123456")

Probe = tuple[str, tuple[Any, ...]]


def nodes(leaves: Sequence[bytes]) -> Callable[[int, int], bytes]:
    levels = fold(leaves)
    return lambda level, index: levels[level][index]


def flipped(proof: list[bytes], bit: int) -> Iterator[list[bytes]]:
    for i in range(len(proof)):
        yield [*proof[:i], bytes([proof[i][0] ^ 1 << bit]) + proof[i][1:], *proof[i + 1 :]]


def spoilt_inclusions() -> Iterator[Probe]:
    for (index, size), hashes in INCLUSION.items():
        proof, root, leaf = list(map(bytes.fromhex, hashes)), bytes.fromhex(ROOTS[size - 1]), leaf_hash(VECTORS[index])
        wrong: dict[str, tuple[Any, ...]] = {
            f"index {other}": (leaf, other, size, root, proof) for other in (index - 1, index + 1, index ^ 2)
        }
        wrong |= {f"size {other}": (leaf, index, other, root, proof) for other in (size * 2, size // 2)}
        wrong["wrong leaf"] = (b"WrongLeaf", index, size, root, proof)
        wrong |= {f"root {r.hex()[:4]}": (leaf, index, size, r, proof) for r in (EMPTY_ROOT, SOME)}
        others = [[*proof, b""], [*proof, root], [b"", *proof], [root, *proof], *flipped(proof, 3)]
        others += [proof[:-1]] if proof else []
        others += [[proof[0], SOME, *proof[1:]]] if len(proof) > 1 else []
        wrong |= {f"proof {n}": (leaf, index, size, root, other) for n, other in enumerate(others)}
        yield from ((f"{index} of {size}: {name}", probe) for name, probe in wrong.items())


def spoilt_consistencies() -> Iterator[Probe]:
    for (old, new), hashes in CONSISTENCY.items():
        proof = list(map(bytes.fromhex, hashes))
        root1, root2 = bytes.fromhex(ROOTS[old - 1]), bytes.fromhex(ROOTS[new - 1])
        wrong: dict[str, tuple[Any, ...]] = {
            f"old {other}": (other, root1, new, root2, proof) for other in (old - 1, old + 1, old ^ 2)
        }
        wrong |= {f"new {other}": (old, root1, other, root2, proof) for other in (new * 2, new // 2)}
        wrong["wrong old root"] = (old, b"WrongRoot", new, root2, proof)
        wrong["wrong new root"] = (old, root1, new, b"WrongRoot", proof)
        wrong["swapped roots"] = (old, root2, new, root1, proof)
        others = [[], proof[:-1], [*proof, b""], [*proof, root1], [*proof, root2], [b"", *proof], [root1, *proof]]
        others += [[root2, *proof], [proof[0], *proof], *flipped(proof, 4)]
        wrong |= {f"proof {n}": (old, root1, new, root2, other) for n, other in enumerate(others)}
        yield from ((f"{old} to {new}: {name}", probe) for name, probe in wrong.items())
    same = bytes(12)
    for probe in (
        (0, same, 0, bytes(11) + b"1", []),
        (1, same, 1, bytes(11) + b"1", []),
        (0, EMPTY_ROOT, 1, SOME, []),
        (0, EMPTY_ROOT, 0, EMPTY_ROOT, []),
        (1, SOME, 0, EMPTY_ROOT, []),
        (2, SOME, 1, SOME, []),
        (1, SOME, 2, SOME, []),
        (1, EMPTY_ROOT, 1, SOME, []),
        (0, EMPTY_ROOT, 0, EMPTY_ROOT, [EMPTY_ROOT]),
        (0, EMPTY_ROOT, 1, EMPTY_ROOT, [EMPTY_ROOT]),
        (1, EMPTY_ROOT, 1, EMPTY_ROOT, [EMPTY_ROOT]),
    ):
        yield str(probe[::2]), probe


@pytest.mark.parametrize(("index", "size"), INCLUSION)
def test_the_known_inclusion_proofs_hold_and_are_ours(index: int, size: int) -> None:
    proof = list(map(bytes.fromhex, INCLUSION[index, size]))
    verify_inclusion(leaf_hash(VECTORS[index]), index, size, bytes.fromhex(ROOTS[size - 1]), proof)
    assert inclusion(nodes(list(map(leaf_hash, VECTORS))), index, size) == proof


@pytest.mark.parametrize(("old", "new"), CONSISTENCY)
def test_the_known_consistency_proofs_hold_and_are_ours(old: int, new: int) -> None:
    proof = list(map(bytes.fromhex, CONSISTENCY[old, new]))
    verify_consistency(old, bytes.fromhex(ROOTS[old - 1]), new, bytes.fromhex(ROOTS[new - 1]), proof)
    assert consistency(nodes(list(map(leaf_hash, VECTORS))), old, new) == proof


@pytest.mark.parametrize("probe", [pytest.param(probe, id=name) for name, probe in spoilt_inclusions()])
def test_a_spoilt_inclusion_proof_is_refused(probe: tuple[Any, ...]) -> None:
    with pytest.raises(Wrong):
        verify_inclusion(*probe)


@pytest.mark.parametrize("probe", [pytest.param(probe, id=name) for name, probe in spoilt_consistencies()])
def test_a_spoilt_consistency_proof_is_refused(probe: tuple[Any, ...]) -> None:
    with pytest.raises(Wrong):
        verify_consistency(*probe)


def recursive_consistency(leaves: Sequence[bytes], m: int, whole: bool = True) -> list[bytes]:
    """RFC 6962 section 2.1.2 as written: SUBPROOF."""
    if m == len(leaves):
        return [] if whole else [recursive(leaves)]
    k = 1 << (len(leaves) - 1).bit_length() - 1
    if m <= k:
        return [*recursive_consistency(leaves[:k], m, whole), recursive(leaves[k:])]
    return [*recursive_consistency(leaves[k:], m - k, False), recursive(leaves[:k])]


@given(st.integers(1, 600), st.data())
def test_proofs_from_nodes_are_those_of_the_rfc(size: int, data: st.DataObject) -> None:
    salt = data.draw(st.binary(max_size=4))
    leaves = [leaf_hash(salt + n.to_bytes(4)) for n in range(size)]
    index, old = data.draw(st.integers(0, size - 1)), data.draw(st.integers(1, size))
    node, root = nodes(leaves), recursive(leaves)
    assert root_at(node, size) == root
    path = recursive_path(leaves, index)
    assert inclusion(node, index, size) == path
    verify_inclusion(leaves[index], index, size, root, path)
    path = recursive_consistency(leaves, old)
    assert consistency(node, old, size) == path
    verify_consistency(old, recursive(leaves[:old]), size, root, path)
    growing = Growing()
    for leaf in leaves:
        growing.add(leaf)
    assert growing.root() == root
    with pytest.raises(IndexError):
        inclusion(node, size, size)
    with pytest.raises(IndexError):
        consistency(node, size + 1, size)


@given(st.integers(2, 40), st.data())
def test_no_other_place_or_size_is_proven(size: int, data: st.DataObject) -> None:
    leaves = [leaf_hash(n.to_bytes(4)) for n in range(size)]
    node, index = nodes(leaves), data.draw(st.integers(0, size - 1))
    path = inclusion(node, index, size)
    other = data.draw(st.integers(0, size - 1).filter(lambda n: n != index))
    with pytest.raises(Wrong):
        verify_inclusion(leaves[index], other, size, root_at(node, size), path)
    with pytest.raises(Wrong):
        verify_inclusion(leaves[index], index, size, root_at(node, size - 1), path)


# ---- notes -----------------------------------------------------------------------------------------------------------

SIGNER = Signer("log.example.org/cds/x", hashlib.sha256(b"1").digest())
OTHER = Signer("log.example.org/cds/x", hashlib.sha256(b"2").digest())
SEEN = Signer("witness.example.org/1", hashlib.sha256(b"3").digest(), WITNESS)
HEAD = Checkpoint("log.example.org/cds/x", 8, bytes.fromhex(ROOTS[7]))
TEXT = checkpoint_text(HEAD)
NOTE = note(TEXT, [SIGNER.line(TEXT), SEEN.cosignature(TEXT, 1_700_000_000)])


def test_a_note_is_written_as_the_specification_says() -> None:
    assert NOTE.startswith(
        b"log.example.org/cds/x\n8\nXcnaeacGWamtVZy3Ad7ZoqudgjqtL0lgz+Nw7/RgQyg=\n\n\xe2\x80\x94 log."
    )
    assert open_checkpoint(NOTE, [SIGNER.key]) == HEAD
    assert open_cosignature(parse_note(NOTE), SEEN.key) == 1_700_000_000
    assert parse_key(str(SIGNER.key)) == SIGNER.key
    assert SIGNER.key.id == hashlib.sha256(b"log.example.org/cds/x\n\x01" + SIGNER.key.raw).digest()[:4]


def test_the_specifications_own_checkpoint_is_read() -> None:
    """The example of c2sp.org/tlog-cosignature: two names, one with a time; their keys are not published."""
    found = parse_note(
        b"example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n"
        b"\xe2\x80\x94 example.com/behind-the-sofa "
        b"Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n"
        b"\xe2\x80\x94 witness.example.com/w1 "
        b"jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dlrDJsX3b2oyin1nPZqhf5nNo0xUe+mbIUBkBIfZ+qnA==\n"
    )
    assert [(name, len(signature)) for name, _, signature in found.signatures] == [
        ("example.com/behind-the-sofa", 64),
        ("witness.example.com/w1", 72),
    ]
    assert int.from_bytes(found.signatures[1][2][:8]) == 1679315147


@pytest.mark.parametrize(
    "raw",
    [
        NOTE.replace(b"\n8\n", b"\n9\n"),
        NOTE.replace(b"\n8\n", b"\n08\n"),
        NOTE.replace(b"\n\n", b"\nextension\n\n"),
        NOTE.replace(b"Xcna", b"Xcnb"),
        NOTE[:-1],
        NOTE.replace(b"\n\n", b"\n"),
        NOTE.replace(b"8", b"8\r"),
        NOTE + b"junk\n",
        NOTE + b"\xff\n",
        note(TEXT, [OTHER.line(TEXT)]),
        note(TEXT, []),
        note(TEXT, [SIGNER.line(TEXT)] * 65),
    ],
)
def test_a_note_that_is_not_signed_as_it_stands_is_refused(raw: bytes) -> None:
    with pytest.raises(Wrong):
        open_checkpoint(raw, [SIGNER.key])


def test_a_bad_signature_of_a_known_key_spoils_a_note_and_an_unknown_one_does_not() -> None:
    good, bad = SIGNER.line(TEXT), SIGNER.line("other\n")
    assert open_note(note(TEXT, [OTHER.line(TEXT), good]), [SIGNER.key])
    with pytest.raises(Wrong, match="does not hold"):
        open_note(note(TEXT, [good, bad]), [SIGNER.key])


def test_a_key_of_another_log_says_nothing_about_this_one() -> None:
    elsewhere = Signer("log.example.org/cds/y", hashlib.sha256(b"1").digest())
    with pytest.raises(Wrong, match="no signature of a key that you trust"):
        open_checkpoint(note(TEXT, [elsewhere.line(TEXT)]), [elsewhere.key])


def test_a_witness_signs_its_time_too() -> None:
    moved = NOTE.decode().splitlines(keepends=True)
    name, _, value = moved[-1].rstrip("\n").rpartition(" ")
    raw = bytearray(base64.b64decode(value))
    raw[11] ^= 1
    moved[-1] = f"{name} {base64.b64encode(bytes(raw)).decode()}\n"
    with pytest.raises(Wrong, match=r"witness\.example\.org/1 does not hold"):
        open_cosignature(parse_note("".join(moved).encode()), SEEN.key)


@pytest.mark.parametrize(
    "text", ["", "a+b", "a+00000000+AAAA", f"{SIGNER.key}x", str(SIGNER.key).replace("log", "gol"), "a b+00000000+AA=="]
)
def test_a_key_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(Wrong):
        parse_key(text)


def test_proofs_as_text_come_back_as_they_were() -> None:
    path = [bytes.fromhex(each) for each in INCLUSION[5, 8]]
    raw = proof_text(5, path, NOTE, b'{"seq":6}')
    assert parse_proof(raw) == (5, tuple(path), NOTE, b'{"seq":6}')
    assert parse_proof(proof_text(0, [], NOTE)) == (0, (), NOTE, None)
    assert parse_growth(growth_text(6, path, NOTE)) == (6, path, NOTE)
    for bad in (b"old x\n\n", b"old 06\n\n", b"new 6\n\n", growth_text(6, path * 22, NOTE), "old 6\nä\n\n".encode()):
        with pytest.raises(Wrong):
            parse_growth(bad)


def test_tiles_have_the_paths_of_the_specification() -> None:
    assert tile_path("0", 1234067) == "tile/0/x001/x234/067"
    assert tile_path("0", 273, 112) == "tile/0/273.p/112"
    assert tile_path("entries", 0, 1) == "tile/entries/000.p/1"
