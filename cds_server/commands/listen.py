"""`cds listen`"""

from __future__ import annotations

import argparse
import sys

from cds_server.commands.opening import common, settings_of

NAME = "listen"
HELP = "a listening source (HL7v2 over MLLP, DICOM C-STORE) until stopped; `cds serve` runs all of them by itself"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("names", nargs="*", metavar="NAME", help="[[source]] tables that listen (default: all)")
    common(parser, json_output=False)


def run(args: argparse.Namespace) -> int:
    from cds_server.dicom_listening import listen

    def ready(name: str, port: int) -> None:
        print(f"{name} listens on port {port}", file=sys.stderr, flush=True)

    listen(settings_of(args), args.names, ready)
    return 0
