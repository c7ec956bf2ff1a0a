"""What can be said of a resource before it is known whose it is and since when: its facts, spelled, with two holes.

The act that digests a resource fills the holes and seals the bytes; all else is done before anybody holds the write
lock, in the process that reads.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

from cds_server.store.tables import MANY
from models.canonical import Noun, spell
from models.nouns import Fact

SOMEBODY = "?"
SOMETIME = "0001-01-01T00:00:00.000000Z"
_RECORD, _KNOWN = b'"record":"%s"', b'"known_from":"%s"'
_RECORD_HOLE, _KNOWN_HOLE = _RECORD % SOMEBODY.encode(), _KNOWN % SOMETIME.encode()
"""They occur at these members of a fact only: inside a text a quotation mark is always escaped."""


class Projected(Noun, frozen=True):
    """The facts of one resource version."""

    facts: bytes = b""
    """Canonical list; empty for none."""
    count: int = 0
    code: str | None = None
    """`system|code` that all of them have; `MANY`; None for none."""
    demographics: tuple[tuple[str, str], ...] = ()
    """Of a Patient: code and value of each fact that has one."""

    @classmethod
    def of(cls, facts: Sequence[Fact], *, patient: bool = False) -> Self:
        if not facts:
            return cls()
        codes = {fact.code.token for fact in facts}
        stated = ((fact.code.code, text) for fact in facts if (text := value_text(fact))) if patient else ()
        return cls(spell(facts), len(facts), MANY if len(codes) > 1 else next(iter(codes)), tuple(stated))

    def known(self, record: str, known_from: str) -> Self:
        """The same about this record since then, where it was said of `SOMEBODY` since `SOMETIME`."""
        if not self.facts:
            return self
        facts = self.facts.replace(_RECORD_HOLE, _RECORD % record.encode())
        return self.but(facts=facts.replace(_KNOWN_HOLE, _KNOWN % known_from.encode()))


class Prepared(Noun, frozen=True):
    """What an act needs of a resource besides its names."""

    local: bytes
    """Keyed digest of its local id."""
    content: bytes
    """Keyed digest of it in one spelling (`Read.content`)."""
    projected: Projected = Projected()
    identifiers: tuple[tuple[str, str], ...] = ()
    """Of a Patient: system and value."""
    problem: str | None = None
    """Why no facts can be taken from it, and where (a JSON pointer inside the part)."""
    where: str | None = None


def value_text(fact: Fact) -> str | None:
    return fact.text or (fact.coded[0].code if fact.coded else None)
