"""The states of a job, and what may follow on what: a table, checked at each step, and drawn in the docs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class States:
    """`moves`: state -> what may follow; a state that nothing follows on is an end. The first named one is first."""

    moves: Mapping[str, frozenset[str]]

    def __post_init__(self) -> None:
        if unknown := {after for afters in self.moves.values() for after in afters} - set(self.moves):
            raise ValueError(f"a state that the table does not know: {min(unknown)}")

    @property
    def first(self) -> str:
        return next(iter(self.moves))

    @property
    def ends(self) -> frozenset[str]:
        return frozenset(state for state, after in self.moves.items() if not after)

    def diagram(self) -> str:
        """As a Mermaid diagram."""
        names = {state: str(state).replace(" ", "_") for state in self.moves}
        lines = ["stateDiagram-v2", f"    [*] --> {names[self.first]}"]
        for state, after in self.moves.items():
            if " " in state:
                lines.append(f'    state "{state}" as {names[state]}')
            lines += [f"    {names[state]} --> {names[each]}" for each in self.moves if each in after]
            lines += [f"    {names[state]} --> [*]"] if not after else []
        return "\n".join(lines)


class Memory(Protocol):
    """What a job must not forget, whatever becomes of its process; `cds_server.jobs` keeps it."""

    @property
    def job(self) -> str:
        """The job's reference, 32 hex digits."""

    @property
    def state(self) -> str: ...

    @property
    def remembers(self) -> Mapping[str, Any]:
        """What earlier steps kept."""

    async def move(self, to: str, *, cause: str | None = None, **remember: Any) -> None:
        """The next step, durable when this returns; to the present state: only remember. `cause`: why, in our words.
        What is remembered is text, whole numbers, and lists and objects of them.
        """

    async def landed(self, key: bytes) -> bytes | None:
        """The first part of the delivery with this key of the sender (b"" where it has none), if it is durable
        already."""
