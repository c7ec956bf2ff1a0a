"""Fuzz the HL7 v2 code, guided by what was reached: `python -m tests.soak.fuzz_hl7v2 --minutes 10`

atheris (libFuzzer) changes inputs and keeps those that reach new places of `adapters`; `hl7v2_targets` says what must
hold. What goes wrong is written to `--out` once for each place that it comes from, and the run goes on. Then floods of
one kind of thing are doubled, and what they cost is measured: time that grows much faster than its input is a finding,
because whoever sends decides about it.

Prints one JSON line; exits with 1 where anything was found.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
LONGEST = 4096
SLOW = 2.0
"""Seconds of processor time for one input of 4 KiB at most, under instrumentation: nothing honest comes near."""
_LINE = re.compile(r"#(\d+)\s.*cov: (\d+) ft: (\d+) corp: (\d+)/")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--out", type=Path, default=Path(tempfile.gettempdir()) / "fuzz-hl7v2", help="findings, corpus")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data" / "hl7", help="messages of others")
    parser.add_argument("--seed", type=int, default=0, help="of the search; 0: another one each time")
    parser.add_argument("--no-floods", action="store_true", help="leave the doubled floods out")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        search(args.out, args.data, args.minutes, args.seed)
        return 1  # the search ends the process by itself
    result = supervised(args)
    if not args.no_floods:
        from tests.soak.hl7v2_floods import measured

        (args.out / "search.json").write_text(json.dumps(result))
        result["floods"] = measured()
    sys.stdout.write(json.dumps(result) + "\n")
    return 1 if result["findings"] or any(each["grows"] for each in result.get("floods", ())) else 0


def supervised(args: argparse.Namespace) -> dict[str, Any]:
    """Run the search in a process of its own, which libFuzzer ends; gives what it did."""
    args.out.mkdir(parents=True, exist_ok=True)
    for old in args.out.glob("finding-*"):
        old.unlink()
    command = [sys.executable, "-m", "tests.soak.fuzz_hl7v2", "--child", "--minutes", str(args.minutes)]
    command += ["--out", str(args.out), "--data", str(args.data), "--seed", str(args.seed)]
    began = time.monotonic()
    with (args.out / "log.txt").open("w", encoding="utf-8") as log:
        code = subprocess.run(command, cwd=ROOT, stdout=log, stderr=log, check=False).returncode
    text = (args.out / "log.txt").read_text(encoding="utf-8", errors="replace")
    last = list(_LINE.finditer(text))
    state = json.loads((args.out / "state.json").read_text()) if (args.out / "state.json").exists() else {}
    findings = [json.loads(path.read_text()) for path in sorted(args.out.glob("finding-*.json"))]
    crashes = [path.name for path in sorted(args.out.iterdir()) if re.match(r"(crash|timeout|oom|leak)-", path.name)]
    if code != 0 or not last:
        findings.append({"target": "the process itself", "error": f"exit {code}", "inputs": crashes})
    executions, edges, features, corpus = map(int, last[-1].groups()) if last else (0, 0, 0, 0)
    return {
        "name": "fuzz_hl7v2",
        "minutes": round((time.monotonic() - began) / 60, 2),
        "executions": executions,
        "edges": edges,
        "features": features,
        "corpus": corpus,
        "by_target": state.get("by_target", {}),
        "slowest_ms": state.get("slowest_ms"),
        "findings": findings,
    }


def search(out: Path, data: Path, minutes: float, seed: int) -> None:
    atheris: Any = importlib.import_module("atheris")
    with atheris.instrument_imports(include=["adapters"], enable_loader_override=False):
        from tests.soak import hl7v2_targets as targets
    corpus, begin, words = out / "corpus", out / "seeds", out / "words.txt"
    for folder in (corpus, begin):
        folder.mkdir(exist_ok=True)
    for number, each in enumerate(targets.seeds(data, ROOT / "fixtures" / "hl7")):
        (begin / f"{number:05d}").write_bytes(each)
    words.write_text("".join(f'"{_quoted(word)}"\n' for word in targets.WORDS), encoding="ascii")
    kept = _Kept(out)

    def one(raw: bytes) -> None:
        before = time.process_time()
        name = targets.TARGETS[raw[0] % len(targets.TARGETS)].__name__ if raw else ""
        try:
            targets.run(raw)
        except Exception as error:  # noqa: BLE001 (whatever comes out is what is looked for)
            kept.finding(name, raw, error)
        kept.count(name, raw, time.process_time() - before)

    def other(raw: bytes, most: int, seed: int) -> bytes:
        chance = random.Random(seed)
        made: bytes = targets.rebuilt(raw, chance) if chance.random() < 0.4 else atheris.Mutate(raw, len(raw))
        return made[:most]

    options = [f"-max_total_time={max(1, round(minutes * 60))}", f"-max_len={LONGEST}", f"-dict={words}", "-timeout=60"]
    options += [f"-artifact_prefix={out}/", "-rss_limit_mb=2048", f"-seed={seed}", "-print_final_stats=1"]
    arguments = [sys.argv[0], *options, str(corpus), str(begin)]
    atheris.Setup(arguments, one, enable_python_coverage=True, custom_mutator=other)
    atheris.Fuzz()


def _quoted(word: str) -> str:
    return "".join(chr(byte) if 32 <= byte < 127 and byte not in b'"\\' else f"\\x{byte:02X}" for byte in word.encode())


class _Kept:
    """Findings, once for each place; counts, written now and then because the process is ended from outside."""

    def __init__(self, out: Path) -> None:
        self._out, self._seen = out, set[str]()
        self._by_target: Counter[str] = Counter()
        self._slowest, self._written = 0.0, 0.0

    def finding(self, target: str, raw: bytes, error: Exception) -> None:
        steps = traceback.extract_tb(error.__traceback__)
        where = next((step for step in reversed(steps) if "/adapters/" in step.filename), steps[-1])
        self._keep(target, f"{type(error).__name__} {os.path.basename(where.filename)}:{where.lineno}", raw, str(error))

    def count(self, target: str, raw: bytes, took: float) -> None:
        self._by_target[target] += 1
        self._slowest = max(self._slowest, took)
        if took > SLOW:
            self._keep(target, "slow", raw, f"{took:.1f} s for {len(raw)} bytes")
        if (now := time.monotonic()) - self._written > 2:
            self._written = now
            state = {"by_target": dict(self._by_target), "slowest_ms": round(self._slowest * 1000, 1)}
            (self._out / "state.json").write_text(json.dumps(state))

    def _keep(self, target: str, where: str, raw: bytes, said: str) -> None:
        key = f"{target} {where}"
        if key in self._seen:
            return
        self._seen.add(key)
        name = f"finding-{len(self._seen):03d}"
        (self._out / f"{name}.bin").write_bytes(raw)
        told = {"target": target, "error": where, "said": said[:200], "input": f"{name}.bin"}
        (self._out / f"{name}.json").write_text(json.dumps(told))
        sys.stdout.write(f"FINDING {json.dumps(told)}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    raise SystemExit(main())
