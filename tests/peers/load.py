"""Callers of a real server, many at a time: each calls a hook, answers some cards, keeps what it was told."""

from __future__ import annotations

import json
import random
import threading
from dataclasses import dataclass, field
from typing import Any

import httpx

from tests.peers.server import INFERENCES, PATIENT_VIEW, Server, hook, override, size_of


@dataclass(slots=True)
class Told:
    """What the server acknowledged: from then on it may not be lost."""

    inferences: list[dict[str, Any]] = field(default_factory=list)
    """`{service, id, seq, leaf}` and `cards`, uuid by uuid."""
    actions: list[int] = field(default_factory=list)
    """Entry of each feedback."""
    strange: list[str] = field(default_factory=list)
    """Answers that are neither 200 nor a connection that broke."""


class Load:
    """`with Load(server, connections) as told`: callers run until the block ends, or until their connection breaks.

    `rest`: seconds between two calls of one caller. What is called is looked at one by one afterwards.
    """

    def __init__(self, server: Server, connections: int = 16, rest: float = 0.0) -> None:
        self._url, self._rest = server.url, rest
        self._done = threading.Event()
        self.told = Told()
        self._threads = [threading.Thread(target=self._caller, args=(number,)) for number in range(connections)]

    def __enter__(self) -> Told:
        for thread in self._threads:
            thread.start()
        return self.told

    def __exit__(self, *_: object) -> None:
        self._done.set()
        for thread in self._threads:
            thread.join()

    def _caller(self, number: int) -> None:
        chance = random.Random(number)
        with httpx.Client(base_url=self._url, timeout=60, trust_env=False) as client:
            while not self._done.is_set():
                try:
                    self._one(client, chance)
                except httpx.TransportError:
                    return
                self._done.wait(self._rest)

    def _one(self, client: httpx.Client, chance: random.Random) -> None:
        answer = client.post(f"/cds-services/{PATIENT_VIEW}", json=a_patient(chance.randrange(40)))
        if answer.status_code != 200:
            self.told.strange.append(answer.text)
            return
        body = answer.json()
        own, *beside = body["extension"][INFERENCES]["items"]
        self.told.inferences.append({**own, "cards": [card["uuid"] for card in body["cards"]]})
        self.told.inferences += [{**item, "cards": []} for item in beside]
        if chance.random() < 0.5:
            feedback = {"feedback": [override(body["cards"][0], f"comment {chance.random()}")]}
            taken = client.post(f"/cds-services/{PATIENT_VIEW}/feedback", json=feedback)
            if taken.status_code != 200:
                self.told.strange.append(taken.text)
                return
            self.told.actions.append(int(taken.headers["CDS-Ledger-Seq"]))


def a_patient(number: int) -> dict[str, Any]:
    """The fixture persona under another id, with a tumour of her own size: 10 mm and `number` more."""
    body: dict[str, Any] = renamed(hook("jenny-m.patient-view"), f"load-{number}")
    _, size = size_of(body)
    size["valueQuantity"] = {"value": 10 + number, "unit": "mm", "system": "http://unitsofmeasure.org", "code": "mm"}
    return body


def renamed(body: Any, patient: str) -> Any:
    """A request about jenny-m as one about another patient, with resources of her own."""
    return json.loads(json.dumps(body).replace("jenny-m", patient))
