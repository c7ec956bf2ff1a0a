"""`cds witness`"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

NAME = "witness"
HELP = "sign that logs of others only grow: a process for another machine, with a key of its own"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--listen", metavar="HOST:PORT", required=True, help="where logs reach it")
    parser.add_argument("--data", metavar="DIR", required=True, help="its folder: key, logs, what it signed last")
    parser.add_argument("--name", default="", metavar="NAME", help="that it signs under; needed the first time")
    parser.add_argument(
        "--log", action="append", default=[], metavar="KEY", help="of a log to sign for (`cds ledger keys`); kept"
    )


def run(args: argparse.Namespace) -> int:
    from cds_server import logs
    from cds_server.serve import run_app
    from cds_server.witness import Witness, create_app
    from models.errors import Misconfigured

    host, _, port = args.listen.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise Misconfigured("an address is HOST:PORT", where="--listen")
    logs.configure("info")
    witness = Witness(Path(args.data), args.name, args.log)
    try:
        print(f"key of this witness: {witness.key}", file=sys.stderr, flush=True)
        run_app(create_app(witness), host.strip("[]"), int(port))
    finally:
        witness.close()
    return 0
