"""`cds land` reads files by their content, keeps their bytes, and holds one part in memory at a time."""

from __future__ import annotations

import asyncio
import gzip
import json
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from adapters.readers import fhir, hl7v2
from adapters.source import Arrival, Receipt
from adapters.sources.files import FileSource, land_file
from models import strict
from models.errors import CdsError, Malformed, TooLarge
from models.nouns import LandingMeta, Part, Verb

NOW = "2026-11-21T10:00:00.000000Z"
PATIENT = {"resourceType": "Patient", "id": "p1"}
OBSERVATION = {"resourceType": "Observation", "id": "o1", "valueQuantity": {"value": 1.50}}


class Staging:
    """An intake in memory: what a Staged must do, without a disk."""

    def __init__(self) -> None:
        self.meta: LandingMeta | None = None
        self.parts: list[bytes] = []
        self.committed = self.abandoned = False
        self._current = b""

    def stage(self, meta: LandingMeta) -> Staging:
        self.meta = meta
        return self

    async def write(self, chunk: bytes) -> None:
        self._current += chunk

    async def end_part(self) -> None:
        if self._current:
            self.parts.append(self._current)
        self._current = b""

    async def commit(self, dedup_key: bytes | None = None) -> Receipt:
        assert dedup_key is None
        await self.end_part()
        self.committed = True
        return Receipt(Arrival.STORED, "0" * 32, len(self.parts))

    async def abandon(self) -> None:
        self.abandoned = True


def land(path: Path, body: bytes | str, **more: Any) -> Staging:
    path.write_bytes(body if isinstance(body, bytes) else body.encode())
    staging = Staging()
    asyncio.run(land_file(path, staging, source="s", namespace="n", received_at=NOW, **more))
    return staging


def form(staging: Staging) -> Any:
    assert staging.meta is not None
    return staging.meta.manifest["form"]


def bundle(kind: str, *entries: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    return {"resourceType": "Bundle", "type": kind, **more, "entry": list(entries)}


@pytest.mark.parametrize("packed", [False, True])
def test_ndjson_lines_are_parts_byte_for_byte(tmp_path: Path, packed: bool) -> None:
    body = b'{"resourceType":"Patient","id":"p1"}\r\n\n   \n{"id":"o1", "resourceType":"Observation"}\nnot json at all'
    staging = land(tmp_path / "named.txt", gzip.compress(body, mtime=0) if packed else body)
    assert staging.parts == [
        b'{"resourceType":"Patient","id":"p1"}',
        b'{"id":"o1", "resourceType":"Observation"}',
        b"not json at all",
    ]
    assert staging.meta is not None
    assert staging.meta.media_type == fhir.LINE
    assert staging.meta.manifest == {"file": "named.txt", "form": "ndjson", "compressed": packed}


@pytest.mark.parametrize("kind", ["transaction", "collection", "searchset", "batch"])
@pytest.mark.parametrize("indent", [None, 2])
def test_bundle_entries_are_parts_and_nothing_is_lost(tmp_path: Path, kind: str, indent: int | None) -> None:
    entries = [{"fullUrl": "urn:uuid:é", "resource": PATIENT}, {"resource": OBSERVATION}]
    text = json.dumps(bundle(kind, *entries, total=2), indent=indent, ensure_ascii=False)
    staging = land(tmp_path / "x", text)
    *parts, envelope = staging.parts
    assert [json.loads(part) for part in parts] == entries
    assert all(part.decode() in text for part in parts)
    assert json.loads(envelope) == bundle(kind, total=2)


def test_history_is_turned_round(tmp_path: Path) -> None:
    entries = [{"request": {"method": "DELETE", "url": "Patient/p1"}}, {"resource": PATIENT}]
    *parts, _ = land(tmp_path / "x", json.dumps(bundle("history", *entries))).parts
    assert [json.loads(part) for part in parts] == entries[::-1]
    late = {"resourceType": "Bundle", "entry": entries, "type": "history"}
    with pytest.raises(Malformed, match="history"):
        land(tmp_path / "y", json.dumps(late))


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (json.dumps(PATIENT), "resource"),
        (json.dumps(PATIENT, indent=4) + "\n\n", "resource"),
        (json.dumps(PATIENT) + "\n", "resource"),
        (json.dumps(bundle("collection")), "bundle"),
        ('{"entry":[{"resource":{"resourceType":"Patient","id":"p"}}],"resourceType":"Bundle"}', "bundle"),
        ('{"entry":[{"item":{"reference":"Patient/p"}}],"resourceType":"List","id":"l"}', "resource"),
        ('{"resourceType":"List","id":"l","entry":[{"item":{"reference":"Patient/p"}}]}', "resource"),
        (json.dumps({**PATIENT, "pad": "x" * (2 << 20)}) + "\n" + json.dumps(PATIENT), "ndjson"),
        ("{broken\n" + json.dumps(PATIENT) + "\n", "ndjson"),
        ('{"resourceType":"List","id":"l","contained":[\n' + json.dumps(PATIENT) + "\n]}", "resource"),
        ('{"resourceType":"Bundle","entry":[]}\n{"resourceType":"Bundle","entry":[]}', "ndjson"),
    ],
)
def test_the_content_says_what_it_is(tmp_path: Path, body: str, expected: str) -> None:
    assert form(land(tmp_path / "x", body)) == expected


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"FHS|^~\\&|A",
        b"[]",
        b"\x00\x01",
        b"\xef\xbb\xbf{}",
        b"{}",
        b'{"id":"x"}',
        b'{"resourceType":"Patient"',
        b'{"resourceType":"Patient"} trailing',
        b'{"resourceType":"Bundle","entry":[{"resource":{}}',
        b'{"resourceType":"Bundle","entry":[1]}',
        b'{"resourceType":"Bundle","entry":[{}] ,}',
        b'{"resourceType":"Bundle","entry":[{}],"entry":[]}',
        b'{"resourceType":"Bundle","entry":[{}]} {"resourceType":"Patient"}',
        b'{"resourceType":"Bundle","entry":[{"a":"\xff"}]}',
        b'{"resourceType":"Bundle","entry":[{"a":' + b"[" * 100_000,
        gzip.compress(b'{"resourceType":"Patient","id":"secret-name"}\n' * 50, mtime=0)[:-12],
        b"\x1f\x8bnot gzip",
    ],
)
def test_anything_else_is_refused_and_abandoned(tmp_path: Path, body: bytes) -> None:
    path = tmp_path / "delivery.bin"
    path.write_bytes(body)
    staging = Staging()
    with pytest.raises(Malformed) as refusal:
        asyncio.run(land_file(path, staging, source="s", namespace="n", received_at=NOW))
    assert "delivery.bin" in str(refusal.value)
    assert "secret-name" not in str(refusal.value)
    assert not staging.committed
    assert staging.abandoned or staging.meta is None


def test_a_part_over_the_limit_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("adapters.sources.files.MAX_PART", 3 << 20)
    long = json.dumps({**PATIENT, "pad": "x" * (5 << 20)})
    with pytest.raises(TooLarge, match="delivery, line 3"):
        land(tmp_path / "delivery", json.dumps(PATIENT) + "\n" + json.dumps(PATIENT) + "\n" + long)
    with pytest.raises(TooLarge, match="delivery, character"):
        land(tmp_path / "delivery", json.dumps(bundle("batch", {"resource": PATIENT}, {"x": "y" * (5 << 20)})))


def test_every_cut_of_a_bundle_is_refused_or_whole(tmp_path: Path) -> None:
    text = json.dumps(bundle("transaction", {"resource": PATIENT}, {"resource": {"a": 'é\\"', "n": -1.5e3, "t": True}}))
    for cut in range(1, len(text)):
        with pytest.raises(CdsError):
            land(tmp_path / "x", text[:cut])
    assert len(land(tmp_path / "x", text).parts) == 3


def test_the_real_sets_land_and_read(peer_data: Path, tmp_path: Path) -> None:
    path = peer_data / "fhir/clinosim-oncology-200/Condition.000.ndjson.gz"
    staging, seen = Staging(), []
    asyncio.run(
        land_file(path, staging, source="s", namespace="n", received_at=NOW, progress=lambda *p: seen.append(p))
    )
    lines = gzip.decompress(path.read_bytes()).split(b"\n")
    assert staging.parts == [line for line in lines if line]
    assert seen[-1] == (path.stat().st_size, path.stat().st_size)
    as_bundle = land(
        tmp_path / "b",
        b'{"resourceType":"Bundle","type":"collection","entry":['
        + b",".join(b'{"resource":' + line + b"}" for line in lines if line)
        + b"]}",
    )
    assert form(as_bundle) == "bundle"
    assert [strict.loads(part)["resource"] for part in as_bundle.parts[:-1]] == [strict.loads(p) for p in staging.parts]
    statements = [s for n, body in enumerate(as_bundle.parts) for s in fhir.read(_part(n, body))]
    assert len(statements) == len(staging.parts)
    assert {(s.verb, s.resource_type, s.pointer) for s in statements} == {(Verb.ASSERT, "Condition", "/resource")}


def _part(n: int, body: bytes) -> Part:
    return Part("0" * 32, n, "n", fhir.ENTRY, NOW, body)


def test_a_source_lands_each_file(tmp_path: Path) -> None:
    paths = (tmp_path / "a", tmp_path / "b")
    for path in paths:
        path.write_text(json.dumps(PATIENT))
    staging = Staging()
    asyncio.run(FileSource(paths, "s", "n", lambda: NOW).run(staging))
    assert len(staging.parts) == 2


@pytest.mark.parametrize("shape", ["ndjson", "bundle"])
def test_memory_stays_flat(tmp_path: Path, shape: str) -> None:
    """300 MB land in a process that may not grow by 60 MB beyond what it needed for 3 MB."""
    path = tmp_path / "large"
    one = json.dumps({**OBSERVATION, "note": [{"text": "x" * 2000}]})
    with path.open("w") as file:
        if shape == "bundle":
            file.write('{"resourceType":"Bundle","type":"collection","entry":[{"resource":' + one + "}")
            for _ in range(1500):
                file.write((',{"resource":' + one + "}") * 100)
            file.write("]}")
        else:
            for _ in range(1500):
                file.write((one + "\n") * 100)
    assert path.stat().st_size > 300_000_000
    script = textwrap.dedent(
        """
        import asyncio, resource, sys
        from pathlib import Path
        from adapters.source import Arrival, Receipt
        from adapters.sources.files import land_file

        class Nowhere:
            parts = 0
            def stage(self, meta): return self
            async def write(self, chunk): self.parts += 1
            async def end_part(self): pass
            async def commit(self, dedup_key=None): return Receipt(Arrival.STORED, "0" * 32, self.parts)
            async def abandon(self): pass

        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        receipt = asyncio.run(land_file(Path(sys.argv[1]), Nowhere(), source="s", namespace="n",
                                        received_at="2026-11-21T10:00:00.000000Z"))
        print(receipt.parts, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
        """
    )
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", script, str(path)], cwd=root, capture_output=True, text=True, check=True
    )
    path.unlink()
    parts, grown = (int(word) for word in done.stdout.split())
    assert parts == (150_002 if shape == "bundle" else 150_000)
    assert grown < 60, f"grew by {grown} MB"


# ---- HL7 v2 ----------------------------------------------------------------------------------------------------------

ADT = b"MSH|^~\\&|A|B|C|D|20260301||ADT^A01|%d|P|2.5.1\rPID|1||%d\r"


class Learning(Staging):
    """One that also takes what only the end of a delivery could tell."""

    learnt: Mapping[str, Any] = {}

    async def commit(self, dedup_key: bytes | None = None, *, learnt: Mapping[str, Any] | None = None) -> Receipt:
        self.learnt = learnt or {}
        return await super().commit(dedup_key)


def land_messages(path: Path, body: bytes) -> Learning:
    path.write_bytes(body)
    staging = Learning()
    asyncio.run(land_file(path, staging, source="s", namespace="n", received_at=NOW))
    return staging


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    "around",
    [
        lambda *messages: b"".join(messages),
        lambda *messages: b"\r\n\r\n" + b"".join(messages).replace(b"\r", b"\r\n"),
        lambda *messages: b"\xef\xbb\xbf" + b"".join(messages),
        lambda *messages: b"FHS|^~\\&|A\rBHS|^~\\&|A\r" + b"".join(messages) + b"BTS|2\rFTS|1\r",
        lambda *messages: b"".join(b"\x0b" + each + b"\x1c\r" for each in messages),
    ],
    ids=["in a row", "with line feeds", "with a mark", "a batch", "a capture"],
)
def test_each_message_is_a_part(tmp_path: Path, around: Any, packed: bool) -> None:
    body = around(ADT % (1, 1), ADT % (2, 2))
    staging = land_messages(tmp_path / "feed.dat", gzip.compress(body, mtime=0) if packed else body)
    assert [part.replace(b"\n", b"") for part in staging.parts] == [ADT % (1, 1), ADT % (2, 2)]
    assert staging.meta is not None
    assert staging.meta.media_type == hl7v2.MESSAGE
    assert staging.meta.manifest == {"file": "feed.dat", "form": "hl7v2", "compressed": packed}
    assert staging.learnt == {}
    statements = hl7v2.read(Part("0" * 32, 0, "n", hl7v2.MESSAGE, NOW, staging.parts[0]))
    assert statements[0].resource_type == "Patient"


def test_what_is_odd_about_a_batch_stands_in_the_manifest(tmp_path: Path) -> None:
    staging = land_messages(tmp_path / "batch.hl7", b"BHS|^~\\&|A\r" + ADT % (1, 1) + b"BTS|7\r")
    assert len(staging.parts) == 1
    assert staging.learnt == {"notes": ["another count than there is (BTS[1]-1)"]}
    many = land_messages(tmp_path / "many.hl7", (ADT % (1, 1) + b"BTS|x\r") * 300)
    assert len(many.parts) == 300
    assert len(many.learnt["notes"]) == 100


def test_a_file_of_which_a_message_would_be_left_out_is_refused_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adapters.sources.files.MAX_PART", 1000)
    long = ADT % (2, 2) + b"NTE|1||" + b"x" * 2000 + b"\r"
    for body in (ADT % (1, 1) + long, b"\x0b" + ADT % (1, 1) + b"\x1c\r\x0b" + long + b"\x1c\r"):
        path = tmp_path / "long.hl7"
        path.write_bytes(body)
        staging = Learning()
        with pytest.raises(TooLarge, match=r"long\.hl7, message 2"):
            asyncio.run(land_file(path, staging, source="s", namespace="n", received_at=NOW))
        assert (staging.abandoned, staging.committed) == (True, False)


def test_messages_of_a_long_file_are_taken_a_chunk_at_a_time(tmp_path: Path) -> None:
    """No more than a chunk of messages is held: what was staged before the next read is never far behind."""
    with (tmp_path / "long.hl7").open("wb") as file:
        for number in range(3000):
            file.write(ADT % (number, number) + b"NTE|1||" + b"x" * 1000 + b"\r")
    held = []

    class Counting(Learning):
        async def end_part(self) -> None:
            self.parts.append(self._current[:80])
            self._current = b""
            held.append(len(self.parts))

    staging = Counting()
    reads: list[tuple[int, int]] = []
    asyncio.run(
        land_file(
            tmp_path / "long.hl7", staging, source="s", namespace="n", received_at=NOW,
            progress=lambda done, _: reads.append((done, len(staging.parts))),
        )
    )  # fmt: skip
    assert len({part for part in staging.parts if part}) == 3000
    assert all(done - parts * 1000 < 3 << 20 for done, parts in reads)
