"""The README is run and compared: its commands in order as printed, its links, its tables against the program.

Convention for shell blocks. `sh` is run as one script, with what earlier blocks exported. `sh server` starts something
that serves: it is started, waited for, and stopped before the next such block or at the end. `make demo` stands there
for the command of its recipe; other `make` lines are left out, since they build the environment that the test runs in.
Ports 8000 and 8001 become two free ones.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import adapters.readers
import adapters.sources
import cds_server.services
import models.modalities
from cds_server import __main__, ehrs, hygiene, ops, retention_settings, settings
from cds_server.access import settings as access_settings
from cds_server.app import build, create_app
from cds_server.store import (
    access_tables,
    app_tables,
    board_tables,
    erasure_tables,
    imaging_tables,
    ledger_tables,
    operational,
    tables,
)
from models import nouns
from models.plugins import discover
from tests.peers import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```sh( server)?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
START_SECONDS = 60


def section(heading: str) -> str:
    """The text below a heading of the second level, up to the next."""
    found = re.search(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", README, re.MULTILINE | re.DOTALL)
    assert found, f"the README has no section {heading}"
    return found[1]


def rows(text: str) -> list[list[str]]:
    """The cells of every table row, without headers and rulers."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    rulers = {number for number, line in enumerate(lines) if re.fullmatch(r"[|\s:-]+", line)}
    return [row for number, row in enumerate(cells) if number not in rulers and number + 1 not in rulers]


# ---- its commands ----------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Shell:
    """A person's terminal: a folder with a checkout's fixtures and environment, and what was exported so far."""

    folder: Path
    port: int
    exported: Path = field(init=False)

    def __post_init__(self) -> None:
        self.exported = self.folder / ".exported"
        self.exported.touch()
        (self.folder / "fixtures").symlink_to(ROOT / "fixtures")
        (self.folder / ".venv").symlink_to(sys.prefix)

    def command(self, block: str) -> list[str]:
        lines = [line for line in block.splitlines() if not re.match(r"make\b", line) or line == "make demo"]
        script = "\n".join(lines).replace("make demo", f".venv/bin/cds demo --port {self.port}")
        script = script.replace(":8000", f":{self.port}").replace(":8001", f":{self.port + 1}")
        return ["bash", "-euo", "pipefail", "-c", f". {self.exported}\n{script}\nexport -p > {self.exported}"]

    @property
    def environment(self) -> dict[str, str]:
        return {
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "HOME": str(self.folder),
            "LANG": "C.UTF-8",
            "CDS_PORT": str(self.port),
            "CDS_DEADLINE_MS": "30000",  # other tests are at work beside it: what is printed counts, not when
        }

    def run(self, block: str) -> None:
        done = subprocess.run(
            self.command(block),
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, (
            f"{block}\nexit code {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
        )

    @contextmanager
    def serving(self, block: str) -> Iterator[None]:
        """What the block starts, in a process group of its own, from when it is ready; it must also end well."""
        command = self.command(block)
        command[-1] = command[-1].rsplit("\n", 1)[0]
        printed = self.folder / "serving.txt"
        with printed.open("w") as output:
            started = subprocess.Popen(
                command, cwd=self.folder, env=self.environment, stdout=output, stderr=output, start_new_session=True
            )
        try:
            self._wait(started, printed)
            yield
        finally:
            with suppress(ProcessLookupError):
                os.killpg(started.pid, signal.SIGTERM)
            started.wait(timeout=60)
        assert started.returncode in (0, -signal.SIGTERM), printed.read_text()[-2000:]

    def _wait(self, started: subprocess.Popen[bytes], printed: Path) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and started.poll() is None:
            with suppress(urllib.error.URLError, ConnectionError, TimeoutError):
                ready = urllib.request.urlopen(f"http://127.0.0.1:{self.port}/readyz", timeout=5)
                if json.load(ready)["status"] == "ready":
                    return
            time.sleep(0.1)
        pytest.fail(f"the server of the README did not become ready:\n{printed.read_text()[-2000:]}")


def two_free_ports() -> int:
    """A port that is free, and so is the next."""
    while True:
        with socket.socket() as one, socket.socket() as other:
            one.bind(("127.0.0.1", 0))
            port: int = one.getsockname()[1]
            with suppress(OSError, OverflowError):
                other.bind(("127.0.0.1", port + 1))
                return port


def test_its_commands_run_as_printed(tmp_path: Path) -> None:
    """Each block in order; behind each server, what is said until the next one."""
    shell = Shell(tmp_path, two_free_ports())
    groups: list[tuple[str | None, list[str]]] = [(None, [])]
    for server, block in BLOCK.findall(README):
        if server:
            groups.append((block, []))
        else:
            groups[-1][1].append(block)
    assert sum(len(blocks) for _, blocks in groups) > 5
    for server, blocks in groups:
        if server is None:
            for block in blocks:
                shell.run(block)
            continue
        with shell.serving(server):
            for block in blocks:
                shell.run(block)


def test_every_shell_block_is_one_that_is_run() -> None:
    """A block in another spelling (bash, console, no language) would be passed over in silence."""
    assert set(re.findall(r"^```(\S.*)$", README, re.MULTILINE)) <= {"sh", "sh server"}
    unnamed = re.findall(r"^```\n(.*?)^```$", BLOCK.sub("", README), re.MULTILINE | re.DOTALL)
    assert [block for block in unnamed if re.search(r"^(\$ |cds |make |curl )", block, re.MULTILINE)] == []


# ---- its links -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))], ids=lambda page: page.name
)
def test_every_internal_link_leads_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8"))
    inside = [link for link in links if not re.match(r"[a-z]+:", link)]
    assert [link for link in inside if not (page.parent / link.partition("#")[0]).exists()] == []
    anchors = {re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-")
               for heading in re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)}  # fmt: skip
    assert [link for link in inside if link.startswith("#") and link[1:] not in anchors] == []


def named_files(page: Path) -> Iterator[str]:
    """Paths in backticks below our own folders, `{a,b}` written out."""
    ours = re.compile(r"(?:adapters|benchmarks|cds_server|docs|fixtures|models|smart_app|tests)/[^\s`]*")
    prose = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for path in re.findall(r"`([^`]+)`", prose):
        if ours.fullmatch(path):
            choice = re.search(r"\{(.+?)\}", path)
            for each in choice[1].split(",") if choice else [""]:
                yield path.replace(choice[0], each) if choice else path


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))], ids=lambda page: page.name
)
def test_every_file_that_is_named_is_there(page: Path) -> None:
    assert [path for path in named_files(page) if not any(ROOT.glob(path.rstrip("/")))] == []


def test_the_metrics_are_those_of_the_server() -> None:
    page = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    described = {row[0].strip("`"): row[1] for row in rows(page) if row[0].startswith("`cds_")}
    exposed = {
        kind.describe()[0].name + ("_total" if kind.describe()[0].type == "counter" else ""): ", ".join(
            kind._labelnames
        )
        for kind in vars(ops.Metrics()).values()
        if hasattr(kind, "_labelnames")
    }
    assert described == exposed


# ---- its tables ------------------------------------------------------------------------------------------------------


def commands() -> dict[str, argparse.ArgumentParser]:
    return subcommands(__main__._parser())


def subcommands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    chosen = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    return dict(chosen[0].choices) if chosen else {}


def test_each_command_stands_there_with_its_own_line_of_help() -> None:
    table = {match[1]: row for row in rows(section("Commands")) if (match := re.match(r"`cds (\w+)", row[0]))}
    assert {name: row[1] for name, row in table.items()} == {
        name: parser.description for name, parser in commands().items()
    }


def test_each_verb_and_option_of_a_command_stands_there() -> None:
    everywhere = {"-h", "--help", "--json", "--as"}
    usage = {match[1]: row[0] for row in rows(section("Commands")) if (match := re.match(r"`cds (\w+)", row[0]))}
    missing = []
    for name, parser in commands().items():
        verbs = subcommands(parser)
        words = set(verbs)
        for each in (parser, *verbs.values()):
            words |= {option for action in each._actions for option in action.option_strings} - everywhere
            words |= {
                str(choice) for action in each._actions if not action.option_strings for choice in action.choices or ()
            }
        missing += [(name, word) for word in sorted(words) if not re.search(rf"(?<![\w-]){word}(?![\w-])", usage[name])]
    assert missing == []


def test_every_configuration_key_stands_there() -> None:
    named = {key for row in rows(section("Configuration")) for key in re.findall(r"`([^`]+)`", row[0])}
    top = settings._TOP - {"destination", "ehr", "source", "identity", "hygiene", "ledger", "staff", "witness"}
    top -= {"access", "anchor", "master_key", "retention"}
    source = {"name", "kind", "namespace"}
    wanted = {*top, "[identity] joining_systems", *(f"[[ehr]] {key}" for key in ehrs._KEYS)}
    wanted |= {f"[staff] {key}" for key in settings._STAFF}
    wanted |= {f"[hygiene.NAME] {key}" for key in hygiene.KEYS}
    wanted |= {"[ledger] checkpoint_seconds", "[[witness]] url", "[[witness]] key"}
    wanted |= {f"[access] {key}" for key in access_settings._KEYS - {"grant"}}
    wanted |= {f"[[access.grant]] {key}" for key in ("role", "ehr", "values", "subjects")}
    wanted |= {f"[retention] {kind}_days" for kind in retention_settings.LEAST}
    wanted |= {f"[master_key] {key}" for key in ("file", "command", "seconds")}
    anchors = ("name", "kind", "every_seconds", "seconds", "url", "ca_file", "folder", "command")
    wanted |= {f"[[anchor]] {key}" for key in anchors}
    assert named == wanted | {f"[[{way}]] {key}" for way in ("source", "destination") for key in source}


def test_the_defaults_are_those_of_an_empty_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    loaded = settings.load({})
    said = {row[0].strip("`"): row[2].strip("`") for row in rows(section("Configuration"))}
    keys = ("host", "port", "trust", "deadline_ms", "max_body", "log_level")
    assert {key: said[key] for key in keys} == {key: str(getattr(loaded, key)) for key in keys}
    assert Path(said["data_dir"]) == loaded.data_dir


def test_an_environment_variable_that_is_named_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every variable in the table changes what is loaded."""
    monkeypatch.chdir(tmp_path)
    other = {"trust": "open", "log_level": "debug", "port": "81", "deadline_ms": "82", "max_body": "8300"}
    other |= {"host": "::1", "data_dir": "elsewhere", "public_url": "http://localhost:84"}
    other |= {"database_url": "postgresql+psycopg://localhost/cds", "conformance": "true"}
    other |= {"cors_origins": "https://ehr.example.org", "ca_file": str(ROOT / "LICENSE")}
    plain = settings.load({})
    named = [(row[0].strip("`"), row[1].strip("`")) for row in rows(section("Configuration")) if row[1]]
    assert {key for key, _ in named} == set(other)
    for key, variable in named:
        assert getattr(settings.load({variable: other[key]}), key) != getattr(plain, key), variable


def doors(routes: Sequence[Any]) -> Iterator[str]:
    """`METHOD /path` of every route, those of included routers too."""
    for route in routes:
        if hasattr(route, "original_router"):
            yield from doors(route.original_router.routes)
        else:
            yield from (f"{method} {re.sub(r':[a-z]+}', '}', route.path)}" for method in route.methods - {"HEAD"})


def test_every_path_of_the_server_stands_there(data_dir: Path) -> None:
    parts = build(settings.load({"CDS_DATA_DIR": str(data_dir)}))
    try:
        served = set(doors(create_app(parts).routes))
    finally:
        parts.close()
    assert {row[0].strip("`") for row in rows(section("HTTP"))} == served


def test_the_glossary_has_every_noun() -> None:
    glossary = {noun for row in rows(section("Glossary")) for noun in re.findall(r"\*\*(\w+)\*\*", " ".join(row))}
    classes = {
        name for name, kind in vars(nouns).items() if isinstance(kind, type) and kind.__module__ == nouns.__name__
    }
    stored = {
        name
        for module in (
            tables,
            operational,
            imaging_tables,
            ledger_tables,
            app_tables,
            access_tables,
            board_tables,
            erasure_tables,
        )
        for name, kind in vars(module).items()
        if isinstance(kind, type) and kind.__module__ == module.__name__
    }
    assert (classes | stored) - glossary == set()
    assert {"Person", "Job"} <= glossary  # nouns without a class of their own


@pytest.mark.parametrize(
    ("kind", "package"),
    [
        ("modality", models.modalities),
        ("CDS service", cds_server.services),
        ("reader", adapters.readers),
        ("source", adapters.sources),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_tables_of_plugins_are_what_is_found(kind: str, package: object) -> None:
    table = re.search(
        rf"^\| {kind} \(.*?\n\n", section("What can be added by one file") + "\n\n", re.MULTILINE | re.DOTALL
    )
    assert table, kind
    assert sorted(row[0].strip("`") for row in rows(table[0])) == sorted(discover(package, "NAME"))  # type: ignore[arg-type]


def test_each_benchmark_has_its_figures_in_the_table() -> None:
    scripts = {path.name for path in (ROOT / "benchmarks").glob("[a-z]*.py")}
    assert {row[0].strip("`") for row in rows(section("Measured"))} == scripts
