"""The description of the server: true of its routes and hooks, committed, and nothing is found that contradicts it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from starlette.routing import Match

from cds_server.app import build, create_app
from cds_server.hooks.published import HOOKS
from cds_server.hooks.service import ServiceSpec
from cds_server.openapi import document
from cds_server.services import all_services
from cds_server.settings import load
from tests.peers import ROOT
from tests.peers.server import FIXTURES, Server

PAGES = ("/staff", "/board", "/work", "/app", "/static")
"""For people, not for machines."""
COMMITTED = ROOT / "docs" / "openapi.json"
CONFIG = """
[checks.negative_data_rejection]
expected-statuses = ["400", "401", "403", "404", "405", "413", "415"]

[checks.positive_data_acceptance]
# What the description cannot say: whose a resource is (400), whether what is required came (412), which server (403).
expected-statuses = ["2xx", "400", "401", "403", "404", "412"]
"""


def described() -> dict[str, Any]:
    return document(all_services())


def test_the_committed_document_is_the_server_of_today() -> None:
    """Rewrite it: python -m tests.cds_server.test_openapi"""
    assert json.loads(COMMITTED.read_bytes()) == described()


def test_each_path_is_a_route_and_each_route_has_a_path(data_dir: Path) -> None:
    parts = build(load({"CDS_DATA_DIR": str(data_dir), "CDS_TRUST": "open"}))
    try:
        served = document(parts.registry.specs)["paths"]
        routes = [route for route in create_app(parts).routes if not route.path.startswith(PAGES)]  # type: ignore[attr-defined]
    finally:
        parts.close()
    met = set()
    for path, operations in served.items():
        for method in operations:
            scope = {
                "type": "http",
                "path": re.sub(r"{(seq|part)}", "1", path),
                "method": method.upper(),
                "headers": [],
            }
            (route,) = [each for each in routes if each.matches(scope)[0] is Match.FULL]
            met.add(route.path)  # type: ignore[attr-defined]
    assert met == {route.path for route in routes}  # type: ignore[attr-defined]


def test_every_hook_is_described_by_the_fields_it_has() -> None:
    """A field that a hook gains must not stay without its shape."""
    base = all_services()[0]
    for hook, shape in HOOKS.items():
        spec = ServiceSpec(
            id="a",
            hook=hook,
            title="a",
            description="a",
            model="a",
            prefetch={},
            cards=base.cards,
        )
        body = document([spec])["paths"]["/cds-services/a"]["post"]["requestBody"]["content"]["application/json"]
        context = body["schema"]["properties"]["context"]["properties"]
        assert set(context) == {each.name for each in shape.fields}
        if hook != "fancy-structure":
            assert all(context.values()), hook


def with_examples(document: dict[str, Any]) -> dict[str, Any]:
    """The fixtures as examples, so that real answers are held against the description, not refusals alone."""
    for path in sorted((FIXTURES / "hooks").rglob("*.json")):
        if "answers" in path.parts:
            continue
        body = json.loads(path.read_bytes())
        for operation in (each.get("post") for each in document["paths"].values()):
            if operation is None or not operation["operationId"].startswith("call-"):
                continue
            content = operation["requestBody"]["content"]["application/json"]
            shapes = content["schema"].get("oneOf", [content["schema"]])
            if body["hook"] in [shape["properties"]["hook"]["const"] for shape in shapes]:
                content.setdefault("examples", {})[path.stem] = {"value": body}
    return document


def test_a_property_based_run_finds_nothing(server: Server, tmp_path: Path) -> None:
    """schemathesis: fixtures, then the edges of every schema, then what it makes up, good and bad, at every door."""
    listed = server.http.get("/openapi.json").json()
    assert len([path for path in listed["paths"] if path.startswith("/cds-services/")]) == 14
    (tmp_path / "openapi.json").write_text(json.dumps(with_examples(listed)))
    (tmp_path / "schemathesis.toml").write_text(CONFIG)
    command = [
        *(Path(sys.executable).with_name("schemathesis"), "--config-file", "schemathesis.toml", "run", "openapi.json"),
        *("--url", server.url, "--phases", "examples,coverage,fuzzing", "--max-examples", "8", "--no-color"),
        *("--seed", "20261121", "--max-failures", "3", "--report", "junit", "--report-dir", "reports"),
    ]
    done = subprocess.run(
        command, cwd=tmp_path, env={**os.environ, "COLUMNS": "200"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr
    assert f"Tested: {sum(map(len, listed['paths'].values()))}\n" in done.stdout
    counted = server.http.get("/metrics").text.splitlines()
    answered = {line.split('service="')[1].split('"')[0] for line in counted if 'outcome="answered"' in line}
    assert {f"/cds-services/{service}" for service in answered} < set(listed["paths"])
    assert len(answered) == 7, "each service gave real answers, too"


def test_who_reads_the_document_of_a_signed_server_learns_where_the_token_goes() -> None:
    signed, open_ = document(all_services()), document(all_services(), signed=False)
    for path, operations in signed["paths"].items():
        for method, operation in operations.items():
            wanted = [{"ehr": []}] if path.startswith("/cds-services") else None
            assert operation.get("security") == wanted, path
            assert not open_["paths"][path][method].get("security"), path


@pytest.mark.parametrize("name", sorted(described()["components"]["schemas"]))
def test_every_schema_is_used(name: str) -> None:
    assert f'"#/components/schemas/{name}"' in json.dumps(described())


if __name__ == "__main__":
    COMMITTED.write_text(json.dumps(described(), indent=1) + "\n", encoding="utf-8")
