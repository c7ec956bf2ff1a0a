"""What every test may use. Peers are real (tests/peers); outbound HTTP is met by respx; nothing else is pretended."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from tests.peers import PEERS, memory, require, skipped

# A hundred `cds` processes are started. Where the environment forbids bytecode, and a fresh checkout has none, each of
# them compiles the whole program again: half a second of CPU.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

if "TMPDIR" not in os.environ and (place := memory()) is not None:
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(place))  # where `tmp_path` lies

pytest_plugins = [
    "tests.peers.browser",
    "tests.peers.ehr_keys",
    "tests.peers.identity_provider",
    "tests.peers.postgres",
    "tests.peers.server",
    "tests.peers.bulk_peer",
    "tests.peers.hostile_bulk",
    "tests.peers.bulk_stories",
    "tests.peers.pacs",
    "tests.peers.hostile_pacs",
]

hypothesis.settings.register_profile("house", deadline=None, derandomize=bool(os.environ.get("CI")))
hypothesis.settings.load_profile("house")


LONGEST_FIRST = (
    "tests/test_benchmarks.py",
    "tests/peers/test_broken_places.py",
    "tests/peers/test_schedules_peer.py",
    "tests/peers/test_workers.py",
    "tests/peers/test_kill.py",
    "tests/peers/test_flow.py",
    "tests/peers/test_mllp_peer.py",
    "tests/peers/test_dicom_",
    "tests/peers/test_hostile_pacs.py",
    "tests/peers/test_bulk_kill.py",
    "tests/peers/test_bulk_pull_peer.py",
    "tests/peers/test_conformance_peer.py",
    "tests/cds_server/test_openapi.py",
    "tests/test_readme.py",
    "tests/adapters/test_hl7v2_fuzz.py",
    "tests/adapters/test_dicom_fuzz.py",
    "tests/adapters/test_dicom_associations.py",
    "tests/cds_server/test_replay.py",
    "tests/spec/test_manual.py",
    "tests/peers/",
    "tests/soak/",
    "tests/test_",
    "tests/models/test_report.py",
    "tests/adapters/test_hl7v2_message.py",
    "tests/cds_server/test_store.py",
    "tests/cds_server/test_outranked.py",
)
"""A file goes to one worker. By default those with the fewest tests come last, which are the ones that start servers: a
minute of one at the end is a minute that the other workers have nothing to do."""


@pytest.fixture(scope="session")
def peer_data() -> Path:
    """Folder of the data written by others: `CDS_PEER_DATA`, or `../shared/data` beside the tree. Read in place."""
    return require("data")


@pytest.fixture
def on_disk() -> Iterator[Path]:
    """A folder on the disk, wherever `tmp_path` lies: for what is killed while it writes and syncs. A module that is
    about that has this as its `tmp_path`."""
    with tempfile.TemporaryDirectory(prefix="cds-tests-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """An empty data directory of one instance, as `CDS_DATA_DIR` would name it."""
    directory = tmp_path / "var"
    directory.mkdir(mode=0o700)
    return directory


@pytest.fixture(autouse=True)
def settings_of_the_shell_stay_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test depends on the `CDS_*` variables of the person who runs it, but for those that speak to the tests."""
    for name in [
        name for name in os.environ if name.startswith("CDS_") and name not in {"CDS_PEER_DATA", "CDS_SKIP_PEERS"}
    ]:
        monkeypatch.delenv(name)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        "requirement(set, *ids): the numbered statements of a standard that this test shows to be kept "
        "(tests/conformance makes docs/conformance.md of them)",
    )
    config.addinivalue_line(
        "markers",
        "smart(*ids): the requirements of SMART App Launch 2.2 on its clients that this test shows to be kept "
        "(tests/smart_app/requirements.py makes the table of docs/smart.md of them)",
    )
    if hasattr(config.option, "loadscopereorder"):
        config.option.loadscopereorder = False  # in the order of LONGEST_FIRST, not by the number of tests


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    def rank(item: pytest.Item) -> int:
        return next((n for n, start in enumerate(LONGEST_FIRST) if item.nodeid.startswith(start)), len(LONGEST_FIRST))

    items.sort(key=rank)


def pytest_report_header() -> str:
    found = (f"{name} {'left out' if name in skipped() else peer.find() or 'MISSING'}" for name, peer in PEERS.items())
    return f"peers: {', '.join(found)}"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if left_out := skipped():
        terminalreporter.section("peers left out by CDS_SKIP_PEERS", yellow=True)
        for name in sorted(left_out):
            terminalreporter.write_line(f"{name}: {PEERS[name].what}; nothing was tested against it")
