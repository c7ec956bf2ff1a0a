"""The stop switch between processes: a command stops, two workers that are serving fall silent, on record."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from tests.peers.server import Server, hook

WITHIN = 1.0
"""Seconds that the contract gives a stop."""


@pytest.fixture(scope="module")
def two_workers(shared_servers: Callable[..., Server]) -> Server:
    return shared_servers(workers=2)


@pytest.mark.parametrize("named", [("breast-cancer-prognosis",), ("--model", "predict-breast")])
def test_a_stop_reaches_every_worker_within_a_second(two_workers: Server, named: tuple[str, ...]) -> None:

    def cards() -> set[int]:
        """How many cards the answers hold; over many connections, so that both workers are asked."""
        found = set()
        for _ in range(8):
            found.add(len(two_workers.call(hook("jenny-m.patient-view")).json()["cards"]))
            two_workers.http.close()
            two_workers._client = None
        return found

    assert cards() == {1}
    stopped = two_workers.ask("service", "stop", *named, "--reason", "a test")
    time.sleep(WITHIN)
    assert cards() == {0}
    proof = two_workers.http.get(f"/ledger/proof/{stopped['seq']}").json()
    assert proof["entry"]["kind"].endswith("-stopped")
    two_workers.ask("service", "start", *named)
    time.sleep(WITHIN)
    assert cards() == {1}
