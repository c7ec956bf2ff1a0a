"""Signing, the other half of `verifier`: notes, checkpoints, what a witness signs; proofs as text."""

from __future__ import annotations

import base64
from collections.abc import Sequence

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cds_server.ledger.verifier import LOG, PROOF, Checkpoint, Key, cosigned, named
from models.errors import Misconfigured

SEED = 32
"""Bytes of an Ed25519 private key (RFC 8032)."""


class Signer:
    """A private key and the name it signs under. Errors: Misconfigured (a name that no note can carry)."""

    def __init__(self, name: str, seed: bytes, kind: int = LOG) -> None:
        if not named(name):
            raise Misconfigured("the name of a signing key must have neither spaces nor +")
        self._private = Ed25519PrivateKey.from_private_bytes(seed)
        self.key = Key(name, kind, self._private.public_key().public_bytes_raw())

    def line(self, text: str) -> str:
        """The signature line of a log under a text."""
        return _line(self.key, self._private.sign(text.encode()))

    def cosignature(self, text: str, seconds: int) -> str:
        """The signature line of a witness that saw this text at that time (seconds since 1970)."""
        return _line(self.key, seconds.to_bytes(8) + self._private.sign(cosigned(text, seconds)))


def _line(key: Key, signature: bytes) -> str:
    return f"\u2014 {key.name} {base64.b64encode(key.id + signature).decode()}\n"


def note(text: str, lines: Sequence[str]) -> bytes:
    """A text and its signature lines as a signed note."""
    return (text + "\n" + "".join(lines)).encode()


def checkpoint_text(checkpoint: Checkpoint) -> str:
    return f"{checkpoint.origin}\n{checkpoint.size}\n{base64.b64encode(checkpoint.root).decode()}\n"


def proof_text(index: int, hashes: Sequence[bytes], signed: bytes, body: bytes | None = None) -> bytes:
    """A `.tlog-proof` (c2sp.org/tlog-proof): the entry as extra data, its place, its audit path, the checkpoint."""
    extra = f"extra {base64.b64encode(body).decode()}\n" if body is not None else ""
    return f"{PROOF}\n{extra}index {index}\n{_hash_lines(hashes)}\n".encode() + signed


def growth_text(old: int, hashes: Sequence[bytes], signed: bytes) -> bytes:
    """A consistency proof with its checkpoint, as a witness takes it (c2sp.org/tlog-witness, add-checkpoint)."""
    return f"old {old}\n{_hash_lines(hashes)}\n".encode() + signed


def _hash_lines(hashes: Sequence[bytes]) -> str:
    return "".join(f"{base64.b64encode(each).decode()}\n" for each in hashes)
