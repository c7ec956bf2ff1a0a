"""Local ids: the same thing has the same id in every message, so that a correction replaces what it corrects."""

from __future__ import annotations

import hashlib
import re

_LEGAL = re.compile(r"[A-Za-z0-9\-.]{1,64}")
"""R4 datatypes.html, id."""


def local_id(*parts: str) -> str:
    """An id of stated parts, in order: `authority-value` where that is legal and says which part is which, else a hash.

    Readable where only the last part has a hyphen, no part but the first is empty, and the whole is a legal FHIR id;
    else the first 40 hex digits of SHA-256 over the parts with their lengths, so that no two lists of parts meet.
    """
    kept = parts[1:] if parts and not parts[0] else parts
    readable = "-".join(kept)
    plain = (
        all(kept) and not any("-" in part for part in parts[:-1]) and (len(kept) == len(parts) or "-" not in readable)
    )
    if plain and _LEGAL.fullmatch(readable):
        return readable
    return hashlib.sha256("".join(f"{len(part)}:{part}" for part in parts).encode()).hexdigest()[:40]
