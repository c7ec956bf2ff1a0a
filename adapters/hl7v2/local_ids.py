"""Local ids: the same thing has the same id in every message, so that a correction replaces what it corrects."""

from __future__ import annotations

import hashlib
import re

_LEGAL = re.compile(r"[A-Za-z0-9\-.]{1,64}")
"""R4 datatypes.html, id."""


def local_id(*parts: str) -> str:
    """An id of stated parts, in order, so that no two lists of parts meet.

    `authority-value` for two parts, where that is a legal FHIR id and says which part is which (no hyphen in the
    authority; the value alone, where there is no authority and no hyphen in it); else the first 40 hex digits of
    SHA-256 over the parts with their lengths.
    """
    if len(parts) == 2 and parts[1]:
        authority, value = parts
        readable = f"{authority}-{value}" if authority else value
        if "-" not in (authority or value) and _LEGAL.fullmatch(readable):
            return readable
    return hashlib.sha256("".join(f"{len(part)}:{part}" for part in parts).encode()).hexdigest()[:40]
