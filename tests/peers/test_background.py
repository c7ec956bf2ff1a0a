"""What follows a call off its path, by the real background process of a real server."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.peers.server import Server, hook, of_inference


def until(holds: Callable[[], bool], seconds: float = 40.0) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it did not come about in time"
        time.sleep(0.2)


def left(server: Server) -> float:
    """What waits for its digest or its validation."""
    found = re.findall(r"^cds_un(?:digested_landings|validated_resources) (\S+)$", metrics(server), re.MULTILINE)
    assert len(found) == 2
    return sum(map(float, found))


def metrics(server: Server) -> str:
    return server.http.get("/metrics").text


def children(server: Server) -> list[int]:
    """Processes beside the server: the first ones are forks of it, those after them are spawned."""
    assert server.process is not None
    told = subprocess.run(["pgrep", "-P", str(server.process.pid)], capture_output=True, text=True, check=False)
    return [int(pid) for pid in told.stdout.split() if b"tracker" not in Path(f"/proc/{pid}/cmdline").read_bytes()]


@pytest.fixture(scope="module")
def server(shared_servers: Callable[..., Server]) -> Server:
    """One for all of them: each leaves it running."""
    return shared_servers()


def test_an_invalid_resource_flags_the_inference_that_rests_on_its_call(server: Server) -> None:
    """Readable, so it is scored; not valid R4, so the record says so afterwards, and whose inference it touches."""
    body = hook("jenny-m.patient-view")
    body["prefetch"]["observations"]["entry"][0]["resource"]["performer"] = "not a list"
    of_inference(server.call(body))
    until(lambda: left(server) == 0)
    flags = [flag for flag in server.ask("work", "list", "--kind", "flag") if flag["reason"] == "invalid-resource"]
    assert {flag["pointer"] for flag in flags} == {"/prefetch/observations/entry/0/resource"}
    assert flags[0]["inference_id"] is not None
    verdicts = {fact["source"]["pointer"]: fact["valid"] for fact in server.ask("patient", "sandbox/jenny-m")["facts"]}
    assert verdicts["/prefetch/observations/entry/0/resource"] is False
    assert verdicts["/prefetch/patient"] is True


def test_what_runs_beside_the_server_holds_neither_its_port_nor_its_lock(server: Server) -> None:
    """A fork has both at first; with them it would outlive its server as one that takes calls and answers none."""
    (beside,) = children(server)
    told = subprocess.run(["pgrep", "-P", str(beside)], capture_output=True, text=True, check=True)
    for pid in (beside, *map(int, told.stdout.split())):
        held = [os.readlink(each) for each in Path(f"/proc/{pid}/fd").iterdir() if os.path.lexists(each)]
        assert not [each for each in held if each.startswith("socket:") or each.endswith("serve.lock")]
    assert server.process is not None
    server.process.kill()  # it alone: what runs beside it notices by itself
    server.process.wait()
    server._gone()
    server.start()


def test_background_work_that_dies_is_started_again(server: Server) -> None:
    until(lambda: len(children(server)) == 1)
    (first,), before = children(server), len(server.told())
    os.kill(first, signal.SIGKILL)
    of_inference(server.call(hook("maria-k.patient-view")))
    until(lambda: left(server) == 0)
    assert "a process beside the server died" in server.told()[before:]
    assert children(server) != [first]
