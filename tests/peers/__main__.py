"""`python -m tests.peers`: install the peers that are missing (Debian, as root), or say which are and what to do."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

from tests.peers import PEERS, Peer, skipped


def main() -> int:
    try:
        left_out = skipped()
    except ValueError as mistake:
        print(f"peers: {mistake}", file=sys.stderr)
        return 2
    for name in sorted(left_out):
        print(f"peers: {name} is left out (CDS_SKIP_PEERS); its tests will be skipped")
    _install([peer for peer in _missing(left_out) if peer.debian])
    for peer in (missing := _missing(left_out)):
        remedy = f"as root: apt-get install {peer.debian}" if peer.debian else "put it there"
        print(f"peers: {peer.name} is missing, {peer.what}; {remedy}, or CDS_SKIP_PEERS={peer.name}", file=sys.stderr)
    return 1 if missing else 0


def _missing(left_out: frozenset[str]) -> list[Peer]:
    return [peer for peer in PEERS.values() if peer.name not in left_out and peer.find() is None]


def _install(peers: list[Peer]) -> None:
    """With apt-get, where there is one and we are root; otherwise the caller says what is missing."""
    if not peers or os.geteuid() != 0 or not shutil.which("apt-get"):
        return
    packages = [peer.debian for peer in peers if peer.debian]
    print(f"peers: installing {' '.join(packages)}", flush=True)
    quietly = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run(["apt-get", "-qq", "update"], env=quietly, check=False)
    install = ["apt-get", "-qq", "install", "-y", "--no-install-recommends", *packages]
    subprocess.run(install, env=quietly, stdout=subprocess.DEVNULL, check=False)


if __name__ == "__main__":
    sys.exit(main())
