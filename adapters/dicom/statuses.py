"""What an archive says of an object that was sent to it: C-STORE, STOW-RS and storage commitment share their codes."""

from __future__ import annotations

from adapters.sink import Taken, Told

_FINE = frozenset({0x0000, 0x0001, 0x0107, 0x0111, 0x0116, 0xB000, 0xB006, 0xB007})
"""PS3.4 B.2.3, PS3.7 C: stored; stored with changes or with elements that were not known; and 0111: it holds an object
of that UID, which is this one, for our UIDs follow from the content."""
_CONTENT = frozenset({0x0105, 0x0106, 0x0114, 0x0115, 0x0117, 0x0118, 0x0119, 0x0120, 0x0121, 0x0122})
"""PS3.7 C.5: an attribute, a value, the instance or its class is what is wrong."""


def told_of(status: int) -> Told:
    """A status is no more than four hexadecimal digits."""
    return Told(_taken(status), f"{status & 0xFFFF:04X}")


def _taken(status: int) -> Taken:
    if status in _FINE:
        return Taken.YES
    if status in _CONTENT or 0xA900 <= status <= 0xA9FF or 0xC000 <= status <= 0xCFFF:
        return Taken.NO
    return Taken.LATER  # out of resources (A7xx, 0213), processing failure (0110), not authorized (0124), and whatever
