"""The hostile bulk server does what its switches say; a polite export of it comes through our door whole."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import pytest

from adapters.bulk.files import receive
from adapters.bulk.manifest import FileKind, Manifest, parse
from cds_server.http import vendor_door
from cds_server.vendor_door import HostRules, VendorDoor
from models.errors import NotAllowed, PeerFailed
from tests.adapters.test_bulk_files import Parts
from tests.peers.hostile_behaviours import EPOCH_MILLISECONDS, damaged, outcome, untidy
from tests.peers.hostile_bulk import HostileBulk

Make = Callable[..., HostileBulk]

PATIENTS = [
    {"resourceType": "Patient", "id": each, "meta": {"lastUpdated": f"2026-01-0{each}T00:00:00Z"}} for each in "123"
]
CONDITIONS = [
    {"resourceType": "Condition", "id": f"c{each}", "subject": {"reference": f"Patient/{each}"}} for each in "12"
]
EVERY = {"Patient": PATIENTS, "Condition": CONDITIONS}
GROUPS = {"g": ["1", "3"]}


@dataclass(slots=True)
class Client:
    """As plain as can be: it asks for one thing, and gives what came."""

    door: VendorDoor
    base: str
    token: str | None = None

    async def ask(
        self, method: str, url: str, *, content: bytes | None = None, bare: bool = False
    ) -> tuple[int, Mapping[str, str], bytes]:
        shown = {"Authorization": f"Bearer {self.token}"} if self.token and not bare else {}
        async with self.door.ask(method, url, headers=shown, content=content) as reply:
            return reply.status, reply.headers, await reply.body(1 << 30)

    async def log_in(self) -> None:
        form = b"grant_type=client_credentials&scope=system%2F*.rs&client_assertion=signed"
        _, _, body = await self.ask("POST", f"{self.base.removesuffix('/fhir')}/token", content=form)
        self.token = json.loads(body)["access_token"]

    async def kick_off(self, path: str = "$export") -> str:
        """The status URL."""
        status, headers, body = await self.ask("GET", f"{self.base}/{path}")
        assert status == 202, body
        return headers["content-location"]

    async def manifest(self, path: str = "$export") -> tuple[str, Manifest]:
        at = await self.kick_off(path)
        _, _, body = await self.ask("GET", at)
        return at, parse(body, at, most_files=1000)


def meet(peer: HostileBulk, use: Callable[[Client], Any], *others: HostileBulk) -> Any:
    async def run() -> Any:
        rules = HostRules(peer.base, hosts=tuple(urlsplit(each.origin).netloc for each in others))
        client = Client(vendor_door(rules), peer.base)
        try:
            await client.log_in()
            return await use(client)
        finally:
            await client.door.aclose()

    return asyncio.run(run())


def statuses(peer: HostileBulk, *asked: tuple[str, str]) -> list[int]:
    async def use(client: Client) -> list[int]:
        return [(await client.ask(method, f"{peer.origin}{path}"))[0] for method, path in asked]

    return list(meet(peer, use))


def bodies(
    peer: HostileBulk, *others: HostileBulk, path: str = "$export", bare: bool = False
) -> list[tuple[int, bytes]]:
    async def use(client: Client) -> list[tuple[int, bytes]]:
        _, manifest = await client.manifest(path)
        return [(await client.ask("GET", file.url, bare=bare))[::2] for file in manifest.files]

    return list(meet(peer, use, *others))


def test_a_polite_export_comes_through_whole(hostile: Make) -> None:
    peer = hostile(EVERY, polls=(202, 202), progress="half")

    async def use(client: Client) -> None:
        at = await client.kick_off("$export?_type=Patient")
        for _ in range(2):
            assert (await client.ask("GET", at))[0] == 202
        _, _, body = await client.ask("GET", at)
        [file] = parse(body, at, most_files=1).files
        staged = Parts()
        async with client.door.ask("GET", file.url, headers={"Authorization": f"Bearer {client.token}"}) as reply:
            received = await receive(reply, staged, type=file.type, count=file.count, kind=file.kind)
        assert (received.lines, received.problems, received.notes) == (3, (), ())
        assert list(map(json.loads, staged.parts)) == PATIENTS
        assert (await client.ask("DELETE", at))[0] == 202
        assert (await client.ask("GET", at))[0] == 404

    meet(peer, use)
    assert [(each.method, each.path.split("/")[1]) for each in peer.asked] == [
        *(("POST", "token"), ("GET", "fhir"), ("GET", "status"), ("GET", "status"), ("GET", "status")),
        *(("GET", "file"), ("DELETE", "status"), ("GET", "status")),
    ]
    assert peer.assertions == ["signed"]


@pytest.mark.parametrize(
    ("path", "ids"),
    [
        ("$export", {"1", "2", "3", "c1", "c2"}),
        ("Patient/$export?_type=Condition", {"c1", "c2"}),
        ("Group/g/$export", {"1", "3", "c1"}),
        ("$export?_since=2026-01-02T00:00:00Z", {"2", "3", "c1", "c2"}),
    ],
)
def test_what_is_asked_for_is_what_is_sent(hostile: Make, path: str, ids: set[str]) -> None:
    lines = b"".join(body for _, body in bodies(hostile(EVERY, groups=GROUPS), path=path)).splitlines()
    assert {json.loads(line)["id"] for line in lines} == ids


def test_a_post_is_read_as_a_query_is(hostile: Make) -> None:
    peer = hostile(EVERY, stu4=True)
    parameters = [
        {"name": "_type", "valueString": "Patient"},
        {"name": "patient", "valueReference": {"reference": "Patient/2"}},
    ]

    async def use(client: Client) -> Any:
        assert (await client.ask("GET", f"{peer.base}/Patient/$export"))[0] == 405
        asked = json.dumps({"resourceType": "Parameters", "parameter": parameters}).encode()
        _, headers, _ = await client.ask("POST", f"{peer.base}/Patient/$export", content=asked)
        return json.loads((await client.ask("GET", headers["content-location"]))[2])

    told = meet(peer, use)
    assert [(each["type"], each["count"]) for each in told["output"]] == [("Patient", 1)]
    assert told["outcome"] == [] == told["extension"]
    assert "error" not in told
    assert "request" not in told


def test_tokens_end(hostile: Make) -> None:
    assert statuses(hostile(EVERY), ("GET", "/fhir/Patient?_summary=count")) == [200]
    assert statuses(hostile(EVERY, token_uses=1), *[("GET", "/fhir/Patient?_summary=count")] * 2) == [200, 401]
    assert statuses(hostile(EVERY, token_seconds=0), ("GET", "/fhir/Patient?_summary=count")) == [401]
    assert statuses(hostile(EVERY, token_seconds=0, open=True), ("GET", "/fhir/Patient?_summary=count")) == [200]


def test_kick_offs_that_are_refused(hostile: Make) -> None:
    assert statuses(hostile(EVERY, busy=2), *[("GET", "/fhir/$export")] * 3) == [429, 429, 202]
    refusing = hostile(EVERY, refused="_typeFilter")
    asked = ("/fhir/$export?_typeFilter=a", "/fhir/$export")
    assert statuses(refusing, *[("GET", each) for each in asked]) == [400, 202]


@pytest.mark.parametrize(
    ("does", "location"),
    [({"relative_location": True}, "/status/"), ({"location": "https://a.example/x"}, "https://a.example/x")],
)
def test_where_the_status_is_said_to_be(hostile: Make, does: dict[str, Any], location: str) -> None:
    assert meet(hostile(EVERY, **does), lambda client: client.kick_off()).startswith(location)


def test_polls_answer_in_turn(hostile: Make) -> None:
    peer = hostile(EVERY, polls=(202, 429, 503, 500, 404, 410, 401), retry_after=EPOCH_MILLISECONDS, forgets=True)

    async def use(client: Client) -> list[tuple[int, str | None]]:
        at = await client.kick_off()
        answers = [await client.ask("GET", at) for _ in range(9)]
        assert json.loads(answers[2][2])["issue"][0]["code"] == "transient"
        return [(status, headers.get("retry-after")) for status, headers, _ in answers]

    late = EPOCH_MILLISECONDS
    assert meet(peer, use) == [
        *((202, late), (429, late), (503, late), (500, None), (404, None), (410, None), (401, None)),
        *((200, None), (404, None)),
    ]


def test_manifests_lie(hostile: Make) -> None:
    def manifest(**does: Any) -> Manifest:
        return meet(hostile({"Patient": PATIENTS}, **does), lambda client: client.manifest())[1]

    assert [
        (each.type, each.count) for each in manifest(wrong_count=5, stated_types={"Patient": "Condition"}).files
    ] == [("Condition", 8)]
    assert manifest(requires_token=None).requires_token is False
    assert [each.type for each in manifest(organized_by="Patient").files] == [None]
    assert (
        manifest(without_error=True, organized_by="", relative_urls=True).files[0].url.startswith("http://127.0.0.1:")
    )
    assert manifest(transaction_time="2026-11-21T10:00:00").transaction_time == "2026-11-21T10:00:00.000000Z"
    assert [each.kind for each in manifest(outcomes=(outcome("error", "exception"),)).files] == [
        FileKind.OUTPUT,
        FileKind.ERROR,
    ]


def test_pages_and_partial_manifests(hostile: Make) -> None:
    def pages(path: str, **does: Any) -> list[tuple[int, int]]:
        async def use(client: Client) -> list[tuple[int, int]]:
            at: str | None = await client.kick_off(path)
            told = []
            while at is not None:
                status, _, body = await client.ask("GET", at)
                manifest = parse(body, at, most_files=9)
                told.append((status, len(manifest.files)))
                at = manifest.next
            return told

        return list(meet(hostile(EVERY, **does), use))

    assert pages("$export", pages=True) == [(200, 1), (200, 1)]
    assert pages("$export?allowPartialManifests=true", partial=True) == [(202, 1), (200, 1)]
    assert pages("$export", partial=True) == [(200, 2)]


def test_deleted_files_come_with_since_only(hostile: Make) -> None:
    peer = hostile(EVERY, deleted=("Patient/9", "PUT Patient/1"))
    assert len(bodies(peer)) == 2
    (_, body) = bodies(peer, path="$export?_since=2026-01-01T00:00:00Z")[-1]
    assert [each["request"] for each in json.loads(body)["entry"]] == [
        {"method": "DELETE", "url": "Patient/9"},
        {"method": "PUT", "url": "Patient/1"},
    ]


def test_files_of_another_origin_and_the_token(hostile: Make) -> None:
    storage = hostile(storage=True)
    for does in ({"files_at": storage, "requires_token": False}, {"files_at": storage}):
        assert {status for status, _ in bodies(hostile(EVERY, **does), storage)} == {400}
        assert {status for status, _ in bodies(hostile(EVERY, **does), storage, bare=True)} == {200}
    assert {status for status, _ in bodies(hostile(EVERY, redirect_files=storage), storage)} == {307}
    with pytest.raises(NotAllowed):
        bodies(hostile(EVERY, files_at=storage))


def test_links_expire_until_the_manifest_is_fetched_again(hostile: Make) -> None:
    peer = hostile(EVERY, links_last=1)

    async def use(client: Client) -> list[int]:
        at, manifest = await client.manifest()
        told = [(await client.ask("GET", each.url))[0] for each in manifest.files]
        again = parse((await client.ask("GET", at))[2], at, most_files=9)
        return told + [(await client.ask("GET", each.url))[0] for each in (*again.files[1:], *manifest.files[1:])]

    assert meet(peer, use) == [200, 403, 200, 403]


def test_files_that_are_packed_cut_off_or_too_many(hostile: Make) -> None:
    plain = bodies(hostile(EVERY))
    assert bodies(hostile(EVERY, gzip=True)) == plain
    assert [status for status, _ in bodies(hostile(EVERY, busy_files=1))] == [429, 200]
    assert [body.count(b"\n") for _, body in bodies(hostile(EVERY, tiny=True))] == [1] * 5
    for does, reason in (
        ({"bomb": True}, "grows beyond any honest packing"),
        ({"damaged_gzip": True}, "damaged gzip"),
        ({"cut_off": 1}, "broken off"),
    ):
        with pytest.raises(PeerFailed, match=reason):
            bodies(hostile(EVERY, **does))


def test_a_huge_file_is_streamed(hostile: Make) -> None:
    peer = hostile(huge=20 << 20)

    async def use(client: Client) -> Any:
        _, manifest = await client.manifest()
        headers = {"Authorization": f"Bearer {client.token}"}
        async with client.door.ask("GET", manifest.files[0].url, headers=headers) as reply:
            return await receive(reply, Parts(keep=False), type="Observation")

    received = meet(peer, use)
    assert received.bytes >= 20 << 20
    assert received.problems == ()


@pytest.mark.parametrize("step", [untidy, damaged])
def test_bodies_as_a_test_wants_them(hostile: Make, step: Callable[[Any], bytes]) -> None:
    assert bodies(hostile(EVERY, bodies={"Patient": step(PATIENTS)}))[0] == (200, step(PATIENTS))


def test_resources_may_be_subsets(hostile: Make) -> None:
    for _, body in bodies(hostile(EVERY, subsetted=True)):
        assert all(json.loads(line)["meta"]["tag"][0]["code"] == "SUBSETTED" for line in body.splitlines())


def test_removal(hostile: Make) -> None:
    for status in (202, 404, 405):
        peer = hostile(EVERY, delete_status=status)

        async def use(client: Client) -> int:
            return (await client.ask("DELETE", await client.kick_off()))[0]

        assert meet(peer, use) == status
