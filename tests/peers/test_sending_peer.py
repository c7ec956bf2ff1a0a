"""From a feed and from a hook call to another hospital system: `cds serve` as a process, killed on the way."""

from __future__ import annotations

import threading
from collections.abc import Callable

from adapters.hl7v2.message import parse
from tests.adapters.hl7v2_receiver import ack, number_of, receiving
from tests.cds_server.test_continuous import ILL, adt, oru
from tests.peers.feeds import Line, configure
from tests.peers.server import Server, free_port, hook
from tests.peers.test_mllp_peer import reachable, until

DESTINATIONS = """
[[destination]]
name = "his"
kind = "hl7v2-mllp"
namespace = "hosp"
host = "127.0.0.1"
port = {port}
services = ["deterioration-news2"]
timeout_seconds = 1
retry_from_seconds = 1
retry_to_seconds = 1

[[destination]]
name = "registry"
kind = "hl7v2-mllp"
namespace = "sandbox"
host = "127.0.0.1"
port = {port}
services = ["breast-cancer-prognosis"]
outputs = ["probability"]
local_assigner = "SANDBOX"
"""


def nothing_waits(server: Server) -> bool:
    told = server.http.get("/metrics").text
    return all(f'cds_send_results{{destination="{name}",state="waiting"}} 0.0' in told for name in ("his", "registry"))


def test_scores_reach_their_receivers_through_a_kill(servers: Callable[..., Server]) -> None:
    """A score of a feed and one of a hook call, each once under its number; the one in flight at the kill twice."""
    deaf = threading.Event()

    def behave(raw: bytes, _: int) -> list[bytes]:
        return [] if deaf.is_set() else [ack(number_of(raw))]

    with receiving(behave) as receiver:
        port = free_port()
        server = configure(servers(start=False), port, DESTINATIONS.format(port=receiver.port)).start()
        until(lambda: reachable(port), "the feed does not listen")
        with Line(port) as line:
            line.tell(adt("A01"))
            line.tell(oru(ILL))
        receiver.wait(1)
        first = parse(receiver.messages[0])
        assert (first.get("PID-3"), first.get("OBR-4"), first.get("OBR-25")) == ("77", "deterioration-news2", "F")
        assert server.call(hook("maria-k.patient-view")).status_code == 200
        receiver.wait(2)
        second = parse(receiver.messages[1])
        assert second.get("PID-3.4") == "SANDBOX"
        assert [each.text(3) for each in second.all("OBX")] == ["predict-breast.probability"]
        until(lambda: nothing_waits(server), "an answer was not heard")

        deaf.set()
        with Line(port) as line:
            line.tell(oru({**ILL, "8867-4": "120"}, ago=20, filler="F2"))
        receiver.wait(3)
        server.kill()
        deaf.clear()
        server.start()
        receiver.wait(4)
        until(lambda: nothing_waits(server), "an answer was not heard")
        third, *more = receiver.messages[2:]
        assert set(more) == {third}
        assert len({parse(raw).get("OBR-3") for raw in receiver.messages}) == 3
    told = server.told()
    assert "WILLA" not in told
    assert "19500301" not in told
