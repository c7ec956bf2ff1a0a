"""The main job in one command: land the fixtures, serve, call the hooks, override, verify. All of it is real.

The sandbox is configured as the one EHR, for tests; it launches the app. What is written beside the data is a
configuration like any other: `CDS_CONFIG=var/demo/demo.toml cds serve` serves the same instance without the demo.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from adapters.dicom.archive import Archive
from adapters.hl7v2.feed import Feed
from cds_server.audit import audit
from cds_server.backlog import digest_backlog
from cds_server.decisions import now
from cds_server.hooks.routes import INFERENCES, LEDGER_HEADER
from cds_server.http import blocking_client
from cds_server.imaging.work import Imaging
from cds_server.intake import StoreIntake
from cds_server.keys import Keys
from cds_server.reading import Rules
from cds_server.sandbox.app import CLIENT
from cds_server.sandbox.clock import redated
from cds_server.sandbox.guard import check_configuration
from cds_server.sandbox.users import USERS
from cds_server.serve import bind, fixtures, program, wait_ready
from cds_server.settings import Settings, from_environment, load
from cds_server.source_rules import rules_of
from cds_server.store.store import Store
from models.canonical import canonical
from models.errors import LedgerBroken, PeerFailed

NAMESPACE = "sandbox"
WARD, ARCHIVE = "ward", "archive"
"""Of the HL7 v2 messages and of the images: another sender's numbers are another sender's patients."""


HOSPITAL = "http://hospital.example.org"
_ASSIGNERS = {HOSPITAL: HOSPITAL, "hospital": HOSPITAL}


def _rules(feed: Archive | Feed) -> Rules:
    """How the parts of a source are read; a site says so in a `[[source]]`."""
    return Rules(feed, hashlib.sha256(canonical([feed.namespace, _ASSIGNERS])).hexdigest())


RULES = {
    "feed": _rules(Feed(WARD, systems=_ASSIGNERS)),
    "images": _rules(Archive(ARCHIVE, issuer="hospital", systems=_ASSIGNERS)),
}
"""Source -> whose numbers its patients have: the hospital's, so that they join the sandbox's patients."""

PATIENCE = 60.0
"""Seconds until a process is ready, on a machine that is busy with other things."""
CONFIG = "demo.toml"
_CONFIGURATION = """\
# Written by `cds demo`: one EHR, the sandbox, which launches the app.
[[ehr]]
namespace = "{namespace}"
title = "Sandbox EHR"
test = true
issuer = "{sandbox}/auth"                         # it signs its calls: CDS_TRUST=jwt does, too
jwks_url = "{sandbox}/auth/jwks"
fhir_base = "{sandbox}/fhir"
app = true
client_id = "{client}"
frame_ancestors = ["{sandbox}"]
sees = ["ward", "archive"]                       # what the ward's feed and the archive know of its patients

[identity]
joining_systems = ["{hospital}"]

[[access.grant]]
role = "clinician"
ehr = "{namespace}"

[[access.grant]]
role = "board-chair"
ehr = "{namespace}"
subjects = ["{sandbox}/fhir/{chair}"]
"""


def configuration(sandbox: str, client: str = CLIENT) -> str:
    """`cds.toml` of a server beside the sandbox at this URL, for the app as this client."""
    chair = USERS[-1].resource
    return _CONFIGURATION.format(namespace=NAMESPACE, sandbox=sandbox, client=client, chair=chair, hospital=HOSPITAL)


def demo(*, port: int, once: bool) -> int:
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # however it is stopped, its processes go with it
    check_configuration(from_environment())
    folder = fixtures()
    settings = _settings(port, once)
    print(f"instance   {settings.data_dir}")
    _land(settings, folder / "patients", NAMESPACE, "fixtures")
    _land(settings, folder / "hl7", WARD, "feed")
    _land(settings, folder / "dicom", ARCHIVE, "images")
    _key(settings)
    with _running(settings, port, sandbox=not once):
        url = f"http://127.0.0.1:{port}"
        if once:
            _play(url, folder / "hooks")
            _verdict(settings)
            return 0
        _invite(url, port, folder)
        try:
            while True:
                time.sleep(3600)
        except KeyboardInterrupt:
            print()
    _verdict(settings)
    return 0


def _settings(port: int, once: bool) -> Settings:
    data_dir = os.environ.get("CDS_DATA_DIR", "./var/demo-once" if once else "./var/demo")
    if once and "CDS_DATA_DIR" not in os.environ:
        shutil.rmtree(data_dir, ignore_errors=True)
    Path(data_dir).mkdir(parents=True, exist_ok=True, mode=0o700)
    config = Path(data_dir) / CONFIG
    config.write_text(configuration(f"http://127.0.0.1:{port + 1}"), encoding="utf-8")
    return load(
        {**os.environ, "CDS_CONFIG": str(config)},
        data_dir=data_dir,
        host="127.0.0.1",
        port=port,
        public_url=f"http://127.0.0.1:{port}",
        trust="open",
    )


def _key(settings: Settings) -> None:
    """The app proves who it is by a key of this instance: made once."""
    store = Store.open(settings.data_dir, settings.database_url, settings.master)
    try:
        keys = Keys(store)
        if not any(key.live and key.registration is None for key in keys.all()):
            keys.new(None, "user:demo", "ES384")
    finally:
        store.close()


def _land(settings: Settings, folder: Path, namespace: str, source: str) -> None:
    from adapters.sources.files import land_file

    store = Store.open(settings.data_dir, settings.database_url, settings.master)
    try:
        intake = StoreIntake(store, "user:demo")
        for path in sorted(folder.iterdir()):
            receipt = asyncio.run(land_file(path, intake, source=source, namespace=namespace, received_at=now()))
            told = f"{receipt.parts} part{'s' * (receipt.parts != 1)}, {receipt.arrival.value}"
            print(f"landed     {path.name}: {told}")
        rules = {**rules_of(settings), **RULES}
        tally = digest_backlog(store, settings.joining_systems, "user:demo", rules=rules)
        tally.add(Imaging(store, settings.joining_systems, rules, actor="user:demo").everything())
        print(f"digested   {tally.asserted} resources, {tally.facts} facts, {tally.quarantined} in quarantine")
    finally:
        store.close()


@contextmanager
def _running(settings: Settings, port: int, *, sandbox: bool) -> Iterator[None]:
    environment = {
        **os.environ,
        "CDS_CONFIG": str(settings.data_dir / CONFIG),
        "CDS_DATA_DIR": str(settings.data_dir),
        "CDS_DATABASE_URL": settings.database_url,
        "CDS_TRUST": "open",
        "CDS_PUBLIC_URL": settings.public_url,
        "CDS_HOST": "127.0.0.1",
        "CDS_PORT": str(port),
        "CDS_LOG_LEVEL": "warning",
    }
    commands = [[*program(), "serve"]]
    if sandbox:
        commands.append([*program(), "sandbox", "--port", str(port + 1), "--to", f"http://127.0.0.1:{port}"])
    for offset in range(len(commands)):
        bind("127.0.0.1", port + offset).close()  # somebody else's server there must not be taken for ours
    processes = [
        subprocess.Popen(command, env=environment, start_new_session=True)  # noqa: S603 (our own command; Ctrl-C is ours)
        for command in commands
    ]
    try:
        seconds = wait_ready(f"http://127.0.0.1:{port}/readyz", processes[0], PATIENCE)
        print(f"serving    {settings.public_url} (ready after {seconds:.1f} s)")
        if sandbox:
            wait_ready(f"http://127.0.0.1:{port + 1}/", processes[1], PATIENCE)
        yield
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait(timeout=20)


def _invite(url: str, port: int, folder: Path) -> None:
    hook = folder / "hooks" / "jenny-m.patient-view.json"
    print(
        f"\nOpen the sandbox   http://127.0.0.1:{port + 1}/\n"
        "                   a patient, Open the chart, and on the card: Override, or Open the full reasoning\n"
        f"The app            {url}/app\n"
        f"Tumor board        {url}/board\n"
        f"Work queue         {url}/work\n"
        f"CDS services       {url}/cds-services\n"
        f"Ready              {url}/readyz\n\n"
        "Or call a hook from another terminal:\n\n"
        f"  curl -s -H 'Content-Type: application/json' --data @{os.path.relpath(hook)} "
        f"{url}/cds-services/breast-cancer-prognosis\n\n"
        "Ctrl-C stops both.",
        flush=True,
    )


def _play(url: str, hooks: Path) -> None:
    """Every fixture hook against the running server, the card of each printed; the first card is overridden."""
    overridden = False
    with blocking_client(url) as client:
        listed = client.get("/cds-services").json()["services"]
        for path in sorted(hooks.glob("*.json")):
            fixture = redated(json.loads(path.read_bytes()), datetime.now(UTC))
            for service in [each["id"] for each in listed if each["hook"] == fixture["hook"]]:
                response = client.post(f"/cds-services/{service}", json={**fixture, "hookInstance": str(uuid.uuid4())})
                print(f"\nhook       {path.name} -> {service}: {response.status_code}")
                if response.status_code != 200:
                    raise PeerFailed(f"the server answered {response.status_code}", where=path.name)
                answer = response.json()
                for card in answer["cards"]:
                    print(f"card       [{card['indicator']}] {card['summary']}")
                    if not overridden and card["indicator"] == "info" and "overrideReasons" in card:
                        overridden = _override(client, service, card, answer["extension"][INFERENCES]["items"][0])


def _override(client: Any, service: str, card: dict[str, Any], inference: dict[str, Any]) -> bool:
    reason = card["overrideReasons"][0]
    item = {
        "card": card["uuid"],
        "outcome": "overridden",
        "outcomeTimestamp": now(),
        "overrideReason": {
            "reason": {"code": reason["code"], "system": reason["system"]},
            "userComment": "played by cds demo",
        },
    }
    response = client.post(f"/cds-services/{service}/feedback", json={"feedback": [item]})
    if response.status_code != 200:
        raise PeerFailed(f"feedback was answered {response.status_code}", where=service)
    print(card.get("detail", ""))
    entry = response.headers[LEDGER_HEADER]
    print(f"overridden {reason['display']} (entry {entry}; the inference is entry {inference['seq']})")
    return True


def _verdict(settings: Settings) -> None:
    report = audit(settings.data_dir, settings.database_url, deep=True)
    verdict = "DOES NOT VERIFY" if report.findings else "verifies"
    print(f"\nledger     {report.entries} entries, head {report.head[:16]}…: {verdict}")
    if report.findings:
        for finding in report.findings:
            print(finding, file=sys.stderr)
        raise LedgerBroken(str(report.findings[0]))
