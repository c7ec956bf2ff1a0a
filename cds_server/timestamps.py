"""Time stamps of an authority over the log's heads (RFC 3161): asked for, and checked. The extra `anchor` brings the
library.

What is stamped is the note of a checkpoint as the database keeps it, without cosignatures, by SHA-256. So anybody
checks a receipt without us: `openssl ts -verify -in RECEIPT.tsr -data CHECKPOINT -CAfile ca.pem`.
"""

from __future__ import annotations

import hashlib
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cds_server.ledger.verifier import Wrong
from models.errors import Misconfigured

if TYPE_CHECKING:
    from rfc3161_client import TimeStampRequest, TimeStampResponse

QUERY = "application/timestamp-query"
REPLY = "application/timestamp-reply"
_GRANTED = (0, 1)
"""PKIStatus granted, grantedWithMods (RFC 3161, 2.4.2)."""


def _library() -> Any:
    try:
        import rfc3161_client
    except ImportError:
        raise Misconfigured("time stamps need the extra `anchor`: pip install 'cds-server[anchor]'") from None
    return rfc3161_client


def query(data: bytes) -> tuple[bytes, TimeStampRequest]:
    """A request for a stamp over these bytes, with a nonce, and asking for the certificate: as sent, and as made."""
    library = _library()
    made = library.TimestampRequestBuilder().data(data).hash_algorithm(library.HashAlgorithm.SHA256).build()
    return bytes(made.as_bytes()), made


def stamped(receipt: bytes, data: bytes, roots: Path | None, asked: TimeStampRequest | None = None) -> datetime:
    """When an authority saw these bytes, UTC. `roots`: a PEM file of certificates that are believed; without one the
    signature is not checked, only what was stamped.

    Raises Wrong: no answer of RFC 3161, a refusal, other bytes or another nonce, a signature that does not hold.
    """
    library = _library()
    try:
        response: TimeStampResponse = library.decode_timestamp_response(receipt)
        status = int(response.status)
        info = response.tst_info if status in _GRANTED else None
    except ValueError:
        raise Wrong("a receipt is no time stamp (RFC 3161)") from None
    if info is None:
        raise Wrong(f"the time-stamping authority refused (status {status})")
    imprint = info.message_imprint
    if imprint.hash_algorithm.dotted_string != "2.16.840.1.101.3.4.2.1" or (
        bytes(imprint.message) != hashlib.sha256(data).digest()
    ):
        raise Wrong("a time stamp is not over this checkpoint")
    if asked is not None and info.nonce != asked.nonce:
        raise Wrong("a time stamp answers another request: its nonce is not the one that was asked with")
    if roots is not None:
        _check_signature(library, response, data, roots)
    return info.gen_time


def _check_signature(library: Any, response: TimeStampResponse, data: bytes, roots: Path) -> None:
    from cryptography.x509 import load_pem_x509_certificates

    try:
        believed = load_pem_x509_certificates(roots.read_bytes())
    except (OSError, ValueError):
        raise Misconfigured("the certificates of an [[anchor]] cannot be read", where="ca_file") from None
    builder = library.VerifierBuilder()
    for each in believed:
        builder = builder.add_root_certificate(each)
    try:
        builder.build().verify_message(response, data)
    except library.VerificationError:
        raise Wrong("the signature of a time stamp does not hold by the certificates that are believed") from None
