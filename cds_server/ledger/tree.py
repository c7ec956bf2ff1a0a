"""RFC 6962 section 2.1: leaf hashes, node hashes, the Merkle tree hash, audit paths."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

EMPTY_ROOT = hashlib.sha256(b"").digest()


def leaf_hash(data: bytes) -> bytes:
    """SHA-256(0x00 || data), 32 bytes."""
    return hashlib.sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """SHA-256(0x01 || left || right), 32 bytes."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def root(leaves: Sequence[bytes]) -> bytes:
    """Merkle tree hash over leaf hashes; `EMPTY_ROOT` for none.

    Pairs are combined level by level and an odd last node moves up unchanged: the same tree as the recursive definition
    that splits at the largest power of two.
    """
    if not leaves:
        return EMPTY_ROOT
    level = list(leaves)
    while len(level) > 1:
        paired = [node_hash(level[i], level[i + 1]) for i in range(0, len(level) - 1, 2)]
        if len(level) % 2:
            paired.append(level[-1])
        level = paired
    return level[0]


def audit_path(leaves: Sequence[bytes], index: int) -> list[bytes]:
    """Hashes that lead from leaf `index` to the root, nearest first (RFC 6962 section 2.1.1)."""
    if not 0 <= index < len(leaves):
        raise IndexError("no such leaf")
    path = []
    level = list(leaves)
    while len(level) > 1:
        sibling = index ^ 1
        if sibling < len(level):
            path.append(level[sibling])
        paired = [node_hash(level[i], level[i + 1]) for i in range(0, len(level) - 1, 2)]
        if len(level) % 2:
            paired.append(level[-1])
        level, index = paired, index // 2
    return path


# ---- from kept nodes -------------------------------------------------------------------------------------------------

NodeAt = Callable[[int, int], bytes]
"""(level, index) -> hash of the complete subtree over leaves `index << level` to `(index + 1 << level) - 1`."""

TILE = 256
"""Hashes of a tile (c2sp.org/tlog-tiles): eight levels of the tree."""


def fold(hashes: Sequence[bytes]) -> list[list[bytes]]:
    """Every complete node over these, level by level; over a full tile nine levels, the last one its root."""
    levels = [list(hashes)]
    while len(levels[-1]) > 1:
        below = levels[-1]
        levels.append([node_hash(below[i], below[i + 1]) for i in range(0, len(below) - 1, 2)])
    return levels


def root_at(node: NodeAt, size: int) -> bytes:
    """Root of the tree over the first `size` leaves."""
    return subtree(node, 0, size) if size else EMPTY_ROOT


def subtree(node: NodeAt, start: int, end: int) -> bytes:
    """Merkle tree hash over leaves `start` to `end - 1`; `start` is a multiple of the power of two that covers them."""
    whole = []
    while start < end:
        level = (end - start).bit_length() - 1
        whole.append(node(level, start >> level))
        start += 1 << level
    found = whole.pop()
    while whole:
        found = node_hash(whole.pop(), found)
    return found


def inclusion(node: NodeAt, index: int, size: int) -> list[bytes]:
    """Audit path of leaf `index` (from 0) in the tree of `size`, nearest first (RFC 6962 section 2.1.1).

    Raises IndexError where that tree has no such leaf.
    """
    if not 0 <= index < size:
        raise IndexError("no such leaf")
    path, start, end = [], 0, size
    while end - start > 1:
        middle = start + (1 << (end - start - 1).bit_length() - 1)
        if index < middle:
            path.append(subtree(node, middle, end))
            end = middle
        else:
            path.append(subtree(node, start, middle))
            start = middle
    return path[::-1]


def consistency(node: NodeAt, old: int, new: int) -> list[bytes]:
    """Proof that the tree of `new` begins with the tree of `old` (RFC 6962 section 2.1.2); empty where they are equal.

    Raises IndexError where there is none: from an empty tree, or to a smaller one.
    """
    if not 0 < old <= new:
        raise IndexError("no such trees")
    path, start, end, whole = [], 0, new, True
    while old != end:
        middle = start + (1 << (end - start - 1).bit_length() - 1)
        if old <= middle:
            path.append(subtree(node, middle, end))
            end = middle
        else:
            path.append(subtree(node, start, middle))
            start, whole = middle, False
    return ([] if whole else [subtree(node, start, end)]) + path[::-1]
