"""The full recorded path with signed calls, beside a bare echo route and beside HealthChain, in one run on two cores.

Ours checks each call's JWT (RS384, then ES384; every token is new), lands the bytes, scores, and commits call,
snapshot, inference and card to the ledger before it answers; background work runs as it ships. The bare route parses
the same bodies and answers as many bytes. HealthChain returns one fixed card of the same text: nobody is checked,
nothing is scored or recorded. All run the same number of processes, in turns, driven by the same client over 16 and 64
kept-alive connections, as fast as they answer; the client and the servers share the processors.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import _bench, _tokens
from benchmarks._bodies import SERVICE
from benchmarks._inside import call_once
from benchmarks._load import Load, drive, warm

CONNECTIONS = (16, 64)
P99 = 60.0
"""Milliseconds, at the most connections."""
NEIGHBOURS_PATH = "/cds/cds-services/breast-cancer-prognosis"
WARM_UP = 1.5
"""Seconds of each drive before the rounds, at most."""
MOST = 2_000
"""Requests a second that tokens are signed for: more than any of ours answers."""


@dataclass(frozen=True, slots=True)
class Rival:
    name: str
    port: int
    path: str = SERVICE
    key: Path | None = None
    check: bool = True


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=8.0, help="of each round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--processes", type=int, default=2, help="of each server")
    parser.add_argument("--connections", type=int, nargs="+", default=CONNECTIONS, help="of the client, in turns")
    parser.add_argument("--most", type=int, default=MOST, help="requests a second that tokens are signed for")
    args = parser.parse_args()
    with _bench.scratch() as scratch:
        return 0 if _measure(scratch, args) else 1


def _measure(scratch: Path, args: argparse.Namespace) -> bool:
    keys = _tokens.make_keys(scratch)
    config = scratch / "cds.toml"
    config.write_text(f'[[ehr]]\nnamespace = "bench"\nissuer = "{_tokens.ISSUER}"\njwks = "{keys}"\n')
    card = scratch / "card.json"
    answer = call_once(scratch / "one")
    card.write_text(json.dumps(answer["cards"][0]))
    whole = scratch / "answer.json"
    whole.write_text(json.dumps(answer, separators=(",", ":"), ensure_ascii=False))
    found: dict[tuple[str, int], list[Load]] = {}
    signed = {"CDS_TRUST": "jwt", "CDS_CONFIG": str(config)}
    with (
        _bench.serving(scratch / "var", args.processes, **signed) as (ours, _),
        _bench.bare(whole, args.processes) as (bare, _),
        _bench.neighbour(card, args.processes) as (other, _),
    ):
        rivals = (
            Rival("ours, RS384", ours, key=scratch / "RS384.pem"),
            Rival("ours, ES384", ours, key=scratch / "ES384.pem"),
            Rival("bare route", bare, check=False),
            Rival("HealthChain", other, path=NEIGHBOURS_PATH),
        )
        for rival in rivals:
            warm(partial(_drive, rival, min(WARM_UP, args.seconds), max(args.connections), args.most))
        for _ in range(args.rounds):
            for connections in args.connections:
                for rival in rivals:
                    load = _drive(rival, args.seconds, connections, args.most)
                    found.setdefault((rival.name, connections), []).append(load)
    print(f"{args.processes} processes each, {args.rounds} rounds of {args.seconds:g} s   {_bench.machine()}")
    for (name, connections), loads in found.items():
        print(f"{name:12} {connections:3} connections  {_told(loads)}")
    return _verdict(found, args.connections)


def _drive(rival: Rival, seconds: float, connections: int, most: int) -> Load:
    tokens = int(most * (seconds + 1))
    return drive(
        rival.port, seconds, connections=connections, check=rival.check, path=rival.path, key=rival.key, tokens=tokens
    )


def _told(loads: Sequence[Load]) -> str:
    rates = " ".join(f"{load.rate:.0f}" for load in loads)
    return (
        f"{rates}/s   p50 {_middle(loads, 'p50'):.1f} ms  p99 {_middle(loads, 'p99'):.1f} ms   shed {_shed(loads):.1%}"
    )


def _shed(loads: Sequence[Load]) -> float:
    """Share of the requests that were answered 503."""
    asked = sum(load.shed + load.answered for load in loads)
    return sum(load.shed for load in loads) / asked if asked else 0.0


def _middle(loads: Sequence[Load], name: str) -> float:
    return float(statistics.median(getattr(load, name) for load in loads))


def _verdict(found: dict[tuple[str, int], list[Load]], tried: Sequence[int]) -> bool:
    for (name, connections), loads in found.items():
        # without an answer p99 would be 0, and ok
        assert _middle(loads, "rate"), f"{name}: no answer came over {connections} connections"
    verdicts, most = [], max(tried)
    for connections in tried:
        rates: dict[str, Any] = {
            name: _middle(loads, "rate") for (name, at), loads in found.items() if at == connections
        }
        bare, other = rates.pop("bare route"), rates.pop("HealthChain")
        for name, rate in rates.items():
            goal = name == "ours, RS384"
            verdicts.append(
                _bench.figure(
                    f"hook call, signed ({name[-5:]}), scored and recorded, {connections} connections: rate",
                    rate,
                    "requests/s",
                    against=f"HealthChain, one fixed card: {other:.0f} requests/s; a bare route: {bare:.0f}",
                    ratio=rate / other,
                    goal=">= 1" if goal else "none",
                    ok=not goal or rate >= other,
                )
            )
    for name in ("ours, RS384", "ours, ES384"):
        loads, goal = found[name, most], name == "ours, RS384"
        p99 = _middle(loads, "p99")
        verdicts.append(
            _bench.figure(
                f"hook call, signed ({name[-5:]}), {most} connections: p99",
                p99,
                "ms",
                against=f"HealthChain: {_middle(found['HealthChain', most], 'p99'):.1f} ms; shed {_shed(loads):.1%}",
                ratio=None,
                goal=f"< {P99:.0f} ms" if goal else "none",
                ok=not goal or p99 < P99,
            )
        )
    return all(verdicts)


if __name__ == "__main__":
    sys.exit(main())
