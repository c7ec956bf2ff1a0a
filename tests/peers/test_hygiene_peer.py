"""Alert hygiene and the counts per service, through a real server of two processes, as a clinic meets them."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from cds_server.hooks.routes import SUPPRESSED
from tests.peers.server import PATIENT_VIEW, Server, hook, override

RULES = f"[hygiene.{PATIENT_VIEW}]\nquiet_hours = 24\ncap_per_day = 6\n"
CALLS = 6


def rested(servers: Callable[..., Server], tmp_path: Path, **members: Any) -> Server:
    config = tmp_path / "cds.toml"
    config.write_text(RULES)
    return servers(environment={"CDS_CONFIG": str(config), "CDS_DEADLINE_MS": "20000"}, **members)


def fresh(server: Server, method: str, path: str, **more: Any) -> httpx.Response:
    """By a connection of its own: whichever worker takes it."""
    with httpx.Client(base_url=server.url, timeout=60, trust_env=False) as client:
        return client.request(method, path, **more)


def call(server: Server, user: str) -> dict[str, Any]:
    body = hook("jenny-m.patient-view")
    body["context"]["userId"] = f"Practitioner/{user}"
    answer = fresh(server, "POST", f"/cds-services/{PATIENT_VIEW}", json=body)
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.json()
    return told


def test_an_override_is_heard_by_every_worker_and_every_worker_counts_for_all(
    servers: Callable[..., Server], tmp_path: Path
) -> None:
    server = rested(servers, tmp_path, workers=2)
    shown = [call(server, "one")["cards"][0] for _ in range(CALLS - 1)]
    assert server.feedback(override(shown[-1], "later")).status_code == 200
    for _ in range(4):  # whichever worker is asked
        told = call(server, "one")
        assert told["cards"] == []
        assert told["extension"][SUPPRESSED] == {"rules": ["quiet"]}
    assert len(call(server, "two")["cards"]) == 1
    for _ in range(4):
        counts = counted(fresh(server, "GET", "/metrics").text)
        assert counts["cds_calls_total", "answered"] == CALLS + 4
        assert counts["cds_cards_total", ""] == CALLS
        assert counts["cds_suppressed_cards_total", "quiet"] == 4
        assert counts["cds_overrides_total", "cds-not-applicable"] == 1
        assert counts["cds_call_seconds_count", ""] == CALLS + 4
    listed = server.ask("service", "suppressions", PATIENT_VIEW)
    assert [row["rule"] for row in listed] == ["quiet"] * 4
    held = server.ask("inference", listed[0]["inference"])
    assert held["call"]["user"] == "Practitioner/one"
    assert held["held"][0]["card"]["summary"] == shown[0]["summary"]
    assert shown[0]["summary"] not in server.told()  # not in the log


def counted(text: str) -> dict[tuple[str, str], float]:
    """(metric, its label besides the service) -> value, for the one service that was called."""
    found = {}
    for name, labels, value in re.findall(r"^(\w+)\{(.*?)\} (\S+)$", text, re.MULTILINE):
        told = dict(re.findall(r'(\w+)="(.*?)"', labels))
        if told.pop("service", None) == PATIENT_VIEW and "le" not in told:
            found[name, "".join(told.values())] = float(value)
    return found
