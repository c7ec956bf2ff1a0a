"""The server of `benchmarks/bulk.py` sends what its manifest says: what is measured against it is a whole export."""

from __future__ import annotations

import asyncio
import gzip
import json
from pathlib import Path

import pytest

from benchmarks._bench import free_port
from benchmarks._bulk_server import Export, Folder, Large, Many, Server
from cds_server.http import client


def folder(tmp_path: Path) -> Folder:
    lines = b'{"resourceType":"Patient","id":"a"}\n{"resourceType":"Patient","id":"b"}\n'
    with gzip.open(tmp_path / "Patient.000.ndjson.gz", "wb") as packed:
        packed.write(lines)
    (tmp_path / "Goal.000.ndjson").write_bytes(b'{"resourceType":"Goal","id":"g"}\n')
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    return Folder([tmp_path / "Patient.000.ndjson.gz", tmp_path / "Goal.000.ndjson"], scratch)


async def whole(export: Export) -> dict[str, int]:
    """Export it all, check each file against the manifest: resources by type."""
    port = free_port()
    server = await asyncio.start_server(Server(export, port).serve, "127.0.0.1", port)
    found: dict[str, int] = {}
    seen = set()
    async with server, client(f"http://127.0.0.1:{port}") as http:
        parameters = {"resourceType": "Parameters"}
        for kick_off in (await http.get("/fhir/$export"), await http.post("/fhir/Patient/$export", json=parameters)):
            assert kick_off.status_code == 202
        manifest = (await http.get(kick_off.headers["content-location"])).json()
        assert manifest["requiresAccessToken"] is False
        for entry in manifest["output"]:
            resources = [json.loads(line) for line in (await http.get(entry["url"])).content.splitlines()]
            assert len(resources) == entry["count"]
            assert {one["resourceType"] for one in resources} == {entry["type"]}
            seen |= {one["id"] for one in resources}
            found[entry["type"]] = found.get(entry["type"], 0) + len(resources)
        for kind, count in found.items():
            assert (await http.get(f"/fhir/{kind}?_summary=count")).json()["total"] == count
        assert (await http.get(f"/fhir/files/{len(manifest['output'])}")).status_code == 404
        assert (await http.delete(kick_off.headers["content-location"])).status_code == 202
    await asyncio.gather(*(asyncio.all_tasks() - {asyncio.current_task()}))  # connections that see their end
    assert len(seen) == sum(found.values())
    return found


def test_a_folder_is_served_file_by_file(tmp_path: Path) -> None:
    assert asyncio.run(whole(folder(tmp_path))) == {"Patient": 2, "Goal": 1}


@pytest.mark.parametrize("size", [1, 3_000_000])
def test_a_large_file_has_about_the_size_that_was_asked_for(size: int) -> None:
    export = Large(size)
    [entry] = export.entries
    assert entry.count == 1 or size - 25_000 < entry.size <= size
    assert asyncio.run(whole(export)) == {"DocumentReference": entry.count}


def test_many_files_have_one_line_each() -> None:
    assert asyncio.run(whole(Many(30))) == {"Observation": 30}
