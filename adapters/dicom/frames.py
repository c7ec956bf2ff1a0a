"""The functional groups of an enhanced multi-frame image (PS3.3 C.7.6.16), as much as its geometry needs."""

from __future__ import annotations

from adapters.dicom.values import NOTHING, Dataset
from models.canonical import Noun

SHARED, PER_FRAME = 0x52009229, 0x52009230
_MEASURES, _ORIENTATION, _POSITION, _TRANSFORM = 0x00289110, 0x00209116, 0x00209113, 0x00289145


class Frames(Noun, frozen=True):
    """What all frames share, and where they lie. A value that differs between frames is not given, and named in
    `varies`."""

    items: int
    """Items of the per-frame sequence."""
    spacing: tuple[float, ...] = ()
    thickness: float | None = None
    between: float | None = None
    orientation: tuple[float, ...] = ()
    first: tuple[float, ...] = ()
    """Position of the first frame, mm."""
    last: tuple[float, ...] = ()
    positions: int = 0
    """How many different positions there are: fewer than frames where a position has several (time, echo)."""
    slope: float | None = None
    intercept: float | None = None
    varies: tuple[str, ...] = ()
    """Of spacing, thickness, between, orientation, slope, intercept."""


def frames_of(data: Dataset) -> Frames | None:
    """None for an object that is no enhanced multi-frame image."""
    if PER_FRAME not in data:
        return None
    shared = data.item(SHARED)
    groups = data.items(PER_FRAME)
    seen: dict[str, set[tuple[float, ...]]] = {name: set() for name in _NAMES}
    positions: dict[tuple[float, ...], None] = {}
    last: tuple[float, ...] = ()
    common = _values(shared, NOTHING)
    local = any(tag in group.elements for group in groups for tag in (_MEASURES, _ORIENTATION, _TRANSFORM))
    for group in groups:
        for name, value in (_values(group, shared) if local else common).items():
            if value:
                seen[name].add(value)
        position = group.item(_POSITION).numbers(0x00200032)
        if len(position) == 3:
            last = position
            positions.setdefault(position)
    if not groups:
        seen = {name: {value} if value else set() for name, value in common.items()}
    one = {name: next(iter(found)) for name, found in seen.items() if len(found) == 1}
    scalar = {name: one[name][0] if name in one else None for name in ("thickness", "between", "slope", "intercept")}
    return Frames(
        items=len(groups),
        spacing=one.get("spacing", ()),
        orientation=one.get("orientation", ()),
        first=next(iter(positions), ()),
        last=last,
        positions=len(positions),
        varies=tuple(name for name in _NAMES if len(seen[name]) > 1),
        **scalar,
    )


_NAMES = ("spacing", "thickness", "between", "orientation", "slope", "intercept")


def _values(group: Dataset, shared: Dataset) -> dict[str, tuple[float, ...]]:
    def of(tag: int) -> Dataset:
        return group.item(tag) if tag in group else shared.item(tag)

    measures, transform = of(_MEASURES), of(_TRANSFORM)
    spacing, orientation = measures.numbers(0x00280030), of(_ORIENTATION).numbers(0x00200037)
    return {
        "spacing": spacing if len(spacing) == 2 else (),
        "thickness": measures.numbers(0x00180050)[:1],
        "between": measures.numbers(0x00180088)[:1],
        "orientation": orientation if len(orientation) == 6 else (),
        "slope": transform.numbers(0x00281053)[:1],
        "intercept": transform.numbers(0x00281052)[:1],
    }
