"""kill -9 of a server under load, again and again: `python -m tests.soak.kills --kills 1000 [--workers 3] [--postgres]`

Sixteen callers call a hook and answer cards; at a random moment every process of the server is killed at once. After
each start, every inference and every action that was acknowledged must stand in the log, with the leaf that the answer
named; every `--verify` kills, and at the end deeply, the whole log must verify, rows and all, without a gap. Prints one
JSON line; exits with 1 on a finding. The short forms are tests/peers/test_kill.py and test_postgres_kill.py.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from cds_server.audit import audit
from cds_server.store.store import Store
from tests.peers import require
from tests.peers.load import Load, Told
from tests.peers.postgres import PostgresServer, _account
from tests.peers.server import Server

CONNECTIONS = 16


@dataclass
class Killed:
    """What came of it."""

    kills: int = 0
    kept: Told = field(default_factory=Told)
    findings: list[str] = field(default_factory=list)


def rounds(
    server: Server, count: int, *, every: int = 25, seed: int = 20, told: Callable[[str], object] = str
) -> Killed:
    """Kill a running server `count` times; stops at the first finding."""
    done, chance = Killed(), random.Random(seed)
    while done.kills < count and not done.findings:
        with Load(server, CONNECTIONS) as load:
            give_up = time.monotonic() + 60
            while not load.inferences and time.monotonic() < give_up:
                time.sleep(0.005)
            time.sleep(chance.uniform(0.0, 0.6))
            server.kill()
        done.kills += 1
        server.start()
        done.findings += [f"round {done.kills}: {strange}" for strange in load.strange]
        done.findings += [f"round {done.kills}: {lost}" for lost in missing(server, load)]
        done.kept.inferences += load.inferences
        done.kept.actions += load.actions
        if done.kills % every == 0:
            done.findings += whole(server, deep=False)
            told(f"{done.kills} kills, {len(done.kept.inferences)} inferences, {len(done.kept.actions)} actions")
    return done


def missing(server: Server, load: Told) -> list[str]:
    """What was acknowledged in this round, and is not in the log as it was told."""
    found = []
    for item in load.inferences:
        proof = server.http.get(f"/ledger/proof/{item['seq']}").json()
        if proof.get("leaf") != item["leaf"] or proof["entry"]["detail"]["inference"] != item["id"]:
            found.append(f"an inference that was answered is not entry {item['seq']}")
    for seq in load.actions:
        if server.http.get(f"/ledger/proof/{seq}").json()["entry"]["kind"] != "act":
            found.append(f"an action that was acknowledged is not entry {seq}")
    return found


def url_of(server: Server) -> str:
    return server.database_url or f"sqlite:///{server.data_dir / 'cds.db'}"


def whole(server: Server, *, deep: bool) -> list[str]:
    """Whether the whole log verifies, and has no gap."""
    return [str(each) for each in audit(server.data_dir, url_of(server), deep=deep).findings]


def ended(server: Server, done: Killed) -> list[str]:
    """The same deeply, with every acknowledged card in its place, and no card without an entry. Stops the server."""
    server.stop()
    found = whole(server, deep=True)
    store = Store.open(server.data_dir, url_of(server))
    try:
        count, last = store.reads.query("SELECT COUNT(*), MAX(seq) FROM ledger_entry")[0]
        if count != last:
            found.append(f"the log has {count} entries, and the last one is {last}")
        cards = dict(map(tuple, store.reads.query("SELECT uuid, entry FROM card")))
    finally:
        store.close()
    for item in done.kept.inferences:
        found += [f"a card of entry {item['seq']} is gone" for each in item["cards"] if cards.get(each) != item["seq"]]
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=1, help="server processes")
    parser.add_argument("--postgres", action="store_true", help="a PostgreSQL that is started here, instead of SQLite")
    parser.add_argument("--verify", type=int, default=25, metavar="N", help="the whole log after so many kills")
    parser.add_argument("--seed", type=int, default=20)
    args = parser.parse_args()
    home, postgres, began = Path(tempfile.mkdtemp(prefix="cds-kills-")), None, time.monotonic()
    server = Server(home=home, data_dir=home / "var", workers=args.workers)
    try:
        if args.postgres:
            postgres = _postgres(home / "postgres")
            server.database_url = postgres.url(postgres.create_database())
        server.start()
        done = rounds(server, args.kills, every=args.verify, seed=args.seed, told=_told)
        findings = [*done.findings, *ended(server, done)]
    finally:
        server.kill()
        if postgres is not None:
            postgres.stop()
        shutil.rmtree(home, ignore_errors=True)
    result = {
        "kills": done.kills,
        "engine": "postgresql" if args.postgres else "sqlite",
        "processes": args.workers,
        "inferences acknowledged": len(done.kept.inferences),
        "actions acknowledged": len(done.kept.actions),
        "findings": findings[:20],
        "seconds": round(time.monotonic() - began),
    }
    sys.stdout.write(json.dumps(result) + "\n")
    return 1 if findings else 0


def _told(text: str) -> None:
    sys.stderr.write(text + "\n")


def _postgres(home: Path) -> PostgresServer:
    home.mkdir()
    if os.geteuid() == 0:
        os.chown(home, _account().pw_uid, _account().pw_gid)
        home.parent.chmod(0o755)
    server = PostgresServer(require("postgres"), home)
    server.start()
    return server


if __name__ == "__main__":
    sys.exit(main())
