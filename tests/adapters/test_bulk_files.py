"""A file of an export on its way into a delivery."""

from __future__ import annotations

import asyncio
import hashlib
import json
import tracemalloc
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.bulk.files import BOM, HOLD, MOST_BLANK, Received, line_of, receive
from adapters.source import Receipt
from models.errors import PeerFailed, TooLarge
from models.nouns import JSON

PATIENT = b'{"resourceType":"Patient","id":"p"}'


class Body:
    """A reply that has only a body."""

    status = 200
    url = "https://ehr.example.org/file"

    def __init__(
        self, chunks: Iterable[bytes], *, cut_off: bool = False, headers: Mapping[str, str] | None = None
    ) -> None:
        self._chunks = chunks
        self._cut_off = cut_off
        self.headers = headers or {}

    async def body(self, limit: int) -> bytes:
        return b"".join([chunk async for chunk in self.chunks()])[:limit]

    async def chunks(self) -> AsyncIterator[bytes]:
        for chunk in self._chunks:
            yield chunk
        if self._cut_off:
            raise PeerFailed("the exchange was broken off")


class Parts:
    """A delivery that remembers its parts, or only how many there were."""

    def __init__(self, *, keep: bool = True) -> None:
        self.parts: list[bytes] = []
        self.count = 0
        self._keep = keep
        self._part: list[bytes] = []
        self._open = False

    async def write(self, chunk: bytes) -> None:
        self._open = self._open or bool(chunk)
        if self._keep:
            self._part.append(chunk)

    async def end_part(self) -> None:
        if self._open:
            self.count += 1
            if self._keep:
                self.parts.append(b"".join(self._part))
        self._part, self._open = [], False

    async def commit(self, dedup_key: bytes | None = None, *, learnt: JSON | None = None) -> Receipt:
        raise AssertionError("whoever asked for the file commits it")

    async def abandon(self) -> None:
        raise AssertionError("whoever asked for the file abandons it")


def take(*chunks: bytes, **stated: Any) -> tuple[Received, list[bytes]]:
    staged = Parts()
    headers = stated.pop("headers", None)
    received = asyncio.run(receive(Body(chunks, headers=headers), staged, **stated))
    return received, staged.parts


def lines(*ids: str, kind: str = "Patient") -> bytes:
    return b"".join(json.dumps({"resourceType": kind, "id": each}).encode() + b"\n" for each in ids)


def test_each_line_is_a_part_and_the_file_is_hashed_as_it_came() -> None:
    file = lines("a", "b", "c")
    received, parts = take(file, type="Patient", count=3, size=len(file))
    assert parts == file.splitlines()
    assert (received.lines, received.bytes, received.sha256) == (3, len(file), hashlib.sha256(file).hexdigest())
    assert (received.blank, received.wrong_type, received.malformed) == (0, 0, 0)
    assert received.problems == received.notes == ()


@given(
    st.lists(st.sampled_from([b"", b" ", b"\r", PATIENT, PATIENT + b"\r", b"[]"])), st.integers(1, 40), st.booleans()
)
def test_no_cut_between_chunks_changes_anything(of: list[bytes], step: int, bom: bool) -> None:
    file = (BOM if bom else b"") + b"\n".join(of)
    received, parts = take(*(file[at : at + step] for at in range(0, len(file), step)))
    assert parts == [line.removesuffix(b"\r") for line in of if line.strip()]
    assert received.sha256 == hashlib.sha256(file).hexdigest()
    numbered = [number for number, line in enumerate(of, 1) if line.strip()]
    assert [line_of(part, received.blank_lines) for part in range(received.lines)] == numbered


def test_a_file_of_nothing_has_no_lines() -> None:
    assert take()[0].lines == take(b"")[0].lines == take(b"\n")[0].lines == 0
    assert take(b"")[0].problems == ()
    assert take(b"", count=8)[0].problems == ("0 lines where the manifest says 8",)


def test_windows_line_ends_a_byte_order_mark_and_blank_lines_do_no_harm_and_are_told() -> None:
    file = BOM + PATIENT + b"\r\n\r\n \t\n" + PATIENT
    received, parts = take(file[:2], file[2:], type="Patient", count=2)
    assert parts == [PATIENT, PATIENT]
    assert received.blank_lines == (2, 3)
    assert received.problems == ()
    assert received.notes == ("a byte order mark at its beginning", "2 blank lines, skipped")
    assert [line_of(part, received.blank_lines) for part in (0, 1)] == [1, 4]


def test_a_manifest_that_lies_is_told_and_nothing_is_left_out() -> None:
    file = lines("a", kind="Condition") + PATIENT + b"\n" + b'["no object"]\n{"resourceType":"Patient"\n{}\n'
    received, parts = take(file, type="Patient", count=6, size=7)
    assert parts == file.splitlines()
    assert (received.lines, received.wrong_type, received.malformed) == (5, 2, 2)
    assert received.problems == (
        "5 lines where the manifest says 6",
        f"{len(file)} bytes where the manifest says 7",
        "2 lines of another type than Patient",
        "2 lines not one JSON object",
    )


def test_the_type_is_that_of_the_outer_object_wherever_it_stands() -> None:
    inner = {"contained": [{"resourceType": "Patient"}], "id": "a"}
    file = json.dumps({**inner, "resourceType": "Observation"}).encode()
    assert take(file, type="Observation")[0].problems == ()
    assert take(file, type="Patient")[0].wrong_type == 1


def test_files_without_a_stated_type_take_any_resource_and_only_resources() -> None:
    received, _ = take(lines("a") + lines("b", kind="Parameters") + b'{"id":"c"}')
    assert (received.wrong_type, received.problems) == (1, ("1 line without a resource type",))


def test_a_size_may_be_that_of_the_packed_file() -> None:
    received, _ = take(PATIENT, size=20, headers={"content-encoding": "gzip"})
    assert received.problems == ()
    assert received.notes == (f"{len(PATIENT)} bytes where the manifest says 20",)


def test_issues_of_error_files_are_counted_by_severity_and_never_quoted() -> None:
    outcomes = [
        {"resourceType": "OperationOutcome", "issue": [{"severity": one, "diagnostics": "Alma Weiss"} for one in said]}
        for said in (["error", "fatal"], ["information"], ["Alma Weiss", None], [])
    ]
    file = "\n".join(map(json.dumps, [*outcomes, {"resourceType": "OperationOutcome", "issue": "Alma"}])).encode()
    received, _ = take(file, kind="error", count=5)
    assert received.severities == {"error": 1, "fatal": 1, "information": 1, "unknown": 2}
    assert received.problems == ()
    assert "Alma" not in repr(received)
    assert take(PATIENT, kind="error")[0].wrong_type == 1


def test_a_deleted_file_holds_bundles() -> None:
    assert take(lines("a", kind="Bundle"), kind="deleted")[0].problems == ()
    assert take(lines("a"), kind="deleted")[0].wrong_type == 1


# ---- limits ----------------------------------------------------------------------------------------------------------


def long_line(type_at: str, size: int, kind: str = "Patient") -> bytes:
    members = {"front": b'{"resourceType":"%s","text":"%s"}', "back": b'{"text":"%s","resourceType":"%s"}'}
    filling = b'x\\"{' * (size // 4)
    return members[type_at] % ((kind.encode(), filling) if type_at == "front" else (filling, kind.encode()))


@pytest.mark.parametrize("type_at", ["front", "back"])
@pytest.mark.parametrize("end", [b"", b"\r\n", b"  \r\n", b"\n"])
@pytest.mark.parametrize("step", [1000, 65536, HOLD + 1, 1 << 30])
def test_a_long_line_goes_on_in_pieces_and_stays_one_part(type_at: str, end: bytes, step: int) -> None:
    line = long_line(type_at, 2 * HOLD)
    file = line + end + (PATIENT if end else b"")
    received, parts = take(*(file[at : at + step] for at in range(0, len(file), step)), type="Patient")
    assert [part.rstrip(b" ") for part in parts] == [line, *([PATIENT] if end else [])]
    assert received.problems == ()


def test_a_long_line_is_looked_at_by_its_ends() -> None:
    wrong = long_line("front", 2 * HOLD, "Condition")
    assert take(wrong, type="Patient")[0].wrong_type == 1
    assert take(wrong[:-1] + b"\n", type="Condition")[0].malformed == 1
    assert take(b"[" + wrong, type="Condition")[0].malformed == 1
    nested = b'{"contained":[{"resourceType":"Condition"}],"resourceType":"Patient","text":"' + b"x" * HOLD + b'"}'
    assert take(nested, type="Patient")[0].wrong_type == 0


def test_a_line_over_the_limit_is_refused_by_its_number() -> None:
    with pytest.raises(TooLarge, match=r"longer than 100 bytes \(at line 3\)"):
        take(PATIENT + b"\n\n", b"x" * 60, b"x" * 60, most_line=100)


def test_a_file_of_blank_lines_is_refused() -> None:
    assert take(b"\n" * MOST_BLANK)[0].blank == MOST_BLANK
    with pytest.raises(TooLarge, match="more than 1000 blank lines"):
        take(b"\n" * (MOST_BLANK + 1))


def test_a_file_that_is_cut_off_is_refused() -> None:
    with pytest.raises(PeerFailed, match="broken off"):
        asyncio.run(receive(Body([PATIENT + b"\n"], cut_off=True), Parts()))


def test_memory_does_not_grow_with_the_file_nor_with_a_line() -> None:
    def file() -> Iterable[bytes]:
        yield b'{"resourceType":"Patient","text":"'
        for _ in range(300):
            yield b"x" * 65536
        yield b'"}\n'
        for _ in range(150):
            yield (PATIENT + b"\n") * 1800

    staged = Parts(keep=False)
    tracemalloc.start()
    try:
        received = asyncio.run(receive(Body(file()), staged, type="Patient"))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (received.lines, received.problems) == (1 + 150 * 1800, ())
    assert staged.count == received.lines
    assert received.bytes > 26 << 20
    assert peak < 6 << 20


def test_the_event_loop_gets_its_turn_between_chunks() -> None:
    async def both() -> tuple[Received, int]:
        turns = 0

        async def other() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        running = asyncio.create_task(other())
        received = await receive(Body([PATIENT + b"\n"] * 50), Parts())
        running.cancel()
        return received, turns

    received, turns = asyncio.run(both())
    assert received.lines == 50
    assert turns >= 50
