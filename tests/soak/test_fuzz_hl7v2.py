"""The one-minute form: every input that the search begins with, many that are built out of them, and a short search.

`tests/adapters/test_hl7v2_fuzz.py` is the other half of that minute. `python -m tests.soak.fuzz_hl7v2` runs as long as
somebody wants.
"""

from __future__ import annotations

import importlib.util
import json
import os
import random
import subprocess
import sys
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from adapters.hl7v2 import acks
from adapters.hl7v2.batch import Entry
from adapters.hl7v2.escapes import escape
from adapters.hl7v2.feed import Feed
from adapters.hl7v2.frames import Event, FrameDecoder, frame
from adapters.hl7v2.structure import Finding
from models.nouns import Part, Statement
from tests.peers import ROOT
from tests.soak import hl7v2_floods as floods
from tests.soak import hl7v2_targets as targets

SECONDS = 15


@pytest.fixture(scope="module")
def seeds(peer_data: Path) -> list[bytes]:
    return targets.seeds(peer_data / "hl7", ROOT / "fixtures" / "hl7")


def test_what_must_hold_holds_for_messages_of_others_and_for_what_is_built_of_them(seeds: list[bytes]) -> None:
    assert len(seeds) > 700
    chance = random.Random(7)
    for raw in seeds + [targets.rebuilt(chance.choice(seeds), chance) for _ in range(3000)]:
        targets.run(raw)


@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="atheris is not installed")
def test_a_short_search_finds_nothing(tmp_path: Path, peer_data: Path) -> None:
    """libFuzzer in a process of its own, guided by the paths of `adapters` that it reaches."""
    command = [sys.executable, "-m", "tests.soak.fuzz_hl7v2", "--minutes", str(SECONDS / 60), "--no-floods"]
    command += ["--out", str(tmp_path), "--data", str(peer_data / "hl7"), "--seed", str(os.getpid())]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    result = json.loads(done.stdout)
    assert result["findings"] == []
    assert done.returncode == 0
    assert result["edges"] > 1000
    assert set(result["by_target"]) >= {target.__name__ for target in targets.TARGETS}


@pytest.mark.parametrize("name", floods.FLOODS)
def test_a_flood_costs_what_its_length_says(name: str) -> None:
    """Lines of our own code that run: twice the input, a little more than twice the lines."""
    flood = floods.FLOODS[name]
    short, long = (floods.counted(flood, times) for times in (50, 100))
    assert long <= 2.2 * short + 200


# ---- the targets see what they are for -------------------------------------------------------------------------------


class Gluing(FrameDecoder):
    """Takes what follows a second start byte for the same message."""

    def feed(self, data: bytes) -> list[Event]:
        return super().feed(data.replace(b"\x0b", b"\x0b", 1)[:1] + data[1:].replace(b"\x0b", b""))


class Forgetting(FrameDecoder):
    """Begins anew with each read."""

    def feed(self, data: bytes) -> list[Event]:
        return FrameDecoder(1 << 20).feed(data)


def echoing(header: acks.Header, code: acks.Code, *_: Any, **__: Any) -> bytes:
    return b"MSH|^~\\&\rMSA|" + code.encode() + b"|" + header.control_id + b"\x1c\r"


def stumbling(part: Part, _: Feed) -> list[Statement]:
    raise KeyError("PID-5")


ADT = b"MSH|^~\\&|A|B|C|D|2026||ADT^A01|1|P|2.5\rPID|1||77^^^H^MR||WARD^WILLA\rPV1|1|I\r"


@pytest.mark.parametrize(
    ("target", "name", "mistake", "raw"),
    [
        (targets.frames, "FrameDecoder", Gluing, b"x" + frame(b"A") + frame(b"B")),
        (targets.frames, "FrameDecoder", Forgetting, frame(ADT)),
        (targets.deliveries, "batch.split", lambda chunks, **_: map(Entry, chunks, count()), ADT),
        (targets.escapes, "escape", lambda text, _: text, b"a|b"),
        (targets.masks, "masked", lambda each, *_: each.text(), ADT),
        (targets.conforming, "conformance", lambda *_: [Finding("PID-5", "not WILLA!")], ADT),
        (targets.reader, "hl7v2.read", stumbling, ADT),
        (targets.answers, "ANSWERS.answer", echoing, ADT),
    ],
    ids=["glued", "forgotten", "by the cut", "not escaped", "shown", "quoted", "another error", "a broken frame"],
)
def test_a_mistake_would_be_seen(
    monkeypatch: pytest.MonkeyPatch, target: Callable[[bytes, int], None], name: str, mistake: Any, raw: bytes
) -> None:
    target(raw, 7)
    monkeypatch.setattr(f"tests.soak.hl7v2_targets.{name}", mistake)
    with pytest.raises((AssertionError, KeyError)):
        target(raw, 7)


def test_the_floods_are_what_they_are_called() -> None:
    assert len(floods.FLOODS) > 60
    for name, flood in floods.FLOODS.items():
        assert len(flood.of(4)) - len(flood.of(2)) == 2 * len(flood.again), name
    assert escape("|") == "\\F\\"
