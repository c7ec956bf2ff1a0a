"""Real peers: the other people's programs and data that the tests run against, and where each is found.

A missing peer fails the run, unless `CDS_SKIP_PEERS` names it; what was skipped is printed at the end of the run.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Peer:
    name: str
    what: str
    debian: str | None
    """The Debian package that brings it; None: nothing installs it."""
    find: Callable[[], Path | None]


def _postgres() -> Path | None:
    """The newest PostgreSQL's programs, where Debian puts them (they are not on the PATH)."""
    homes = Path("/usr/lib/postgresql").glob("*/bin/postgres")
    newest = max(homes, key=lambda server: int(server.parts[-3]), default=None)
    return newest.parent if newest else None


def _chromium() -> Path | None:
    found = shutil.which("chromium", path="/usr/bin:/usr/local/bin")
    return Path(found) if found else None


def _data() -> Path | None:
    place = Path(os.environ.get("CDS_PEER_DATA") or ROOT.parent / "shared" / "data")
    return place if place.is_dir() else None


def _sekmet() -> Path | None:
    """In an environment of its own: what it needs contradicts what the tests need (requirements/peers.in)."""
    place = ROOT / ".venv" / "peers" / "bin" / "sekmet"
    return place if place.is_file() else None


def _mirp() -> Path | None:
    """The interpreter that has it: in the same environment."""
    python = ROOT / ".venv" / "peers" / "bin" / "python"
    installed = any((ROOT / ".venv" / "peers" / "lib").glob("python3*/site-packages/mirp/__init__.py"))
    return python if python.is_file() and installed else None


def _anonymizer() -> Path | None:
    place = ROOT / ".venv" / "peers" / "bin" / "dicom-anonymizer"
    return place if place.is_file() else None


def _program(name: str) -> Callable[[], Path | None]:
    def find() -> Path | None:
        found = shutil.which(name, path="/usr/bin:/usr/sbin:/usr/local/bin:/usr/local/sbin")
        return Path(found) if found else None

    return find


def _dicomweb() -> Path | None:
    """The plug-in of Orthanc: a shared object, where Debian puts it."""
    return next((each for each in (Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so"),) if each.exists()), None)


PEERS = {
    peer.name: peer
    for peer in (
        Peer("postgres", "PostgreSQL server programs", "postgresql", _postgres),
        Peer("chromium", "the browser", "chromium", _chromium),
        Peer("sekmet", "a FHIR server of somebody else (requirements/peers.txt, in .venv/peers)", None, _sekmet),
        Peer("mirp", "radiomics by somebody else (requirements/peers.txt, in .venv/peers)", None, _mirp),
        Peer("orthanc", "an archive of somebody else (PACS)", "orthanc", _program("Orthanc")),
        Peer("orthanc-dicomweb", "its DICOMweb plug-in", "orthanc-dicomweb", _dicomweb),
        Peer("dcmtk", "DICOM programs of somebody else (storescu, storescp, movescu)", "dcmtk", _program("storescu")),
        Peer(
            "dicom3tools", "a checker of DICOM objects of somebody else (dciodvfy)", "dicom3tools", _program("dciodvfy")
        ),
        Peer("dicom-anonymizer", "a de-identifier of somebody else (in .venv/peers, too)", None, _anonymizer),
        Peer("dicom3tools", "dciodvfy: checks objects against their IODs", "dicom3tools", _program("dciodvfy")),
        Peer("data", "data written by others (CDS_PEER_DATA, or ../shared/data)", None, _data),
    )
}


def skipped() -> frozenset[str]:
    """Peers that `CDS_SKIP_PEERS` names (commas or blanks between). ValueError: it names what is no peer of ours."""
    names = frozenset(os.environ.get("CDS_SKIP_PEERS", "").replace(",", " ").split())
    if unknown := names - PEERS.keys():
        raise ValueError(
            f"CDS_SKIP_PEERS names no peer of ours: {', '.join(sorted(unknown))}; peers: {', '.join(PEERS)}"
        )
    return names


def memory() -> Path | None:
    """A place for temporary files that is no disk, where there is ample room for those of a whole run. Thousands of
    small databases are made, synced and thrown away: on a disk the syncing is a quarter of the processor time of the
    tests that open a store, and most of their waiting."""
    place = Path("/dev/shm")  # noqa: S108 (whoever uses it makes a folder of its own in it)
    writable = place.is_dir() and os.access(place, os.W_OK | os.X_OK)
    return place if writable and shutil.disk_usage(place).free > 8 << 30 else None


def require(name: str) -> Path:
    """Where the peer is. Skips the test if `CDS_SKIP_PEERS` names it, fails the test if it is missing."""
    peer = PEERS[name]
    if name in skipped():
        pytest.skip(f"CDS_SKIP_PEERS names {name}")
    place = peer.find()
    if place is None:
        remedy = f"apt-get install {peer.debian}" if peer.debian else "put it there"
        pytest.fail(f"peer {name} is missing ({peer.what}): {remedy}, or name it in CDS_SKIP_PEERS", pytrace=False)
    return place
