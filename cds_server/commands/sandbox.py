"""`cds sandbox`"""

from __future__ import annotations

import argparse
import os

NAME = "sandbox"
HELP = "a small EHR for trying things out: fire hooks, see cards, override; never with real data"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--port", type=int, default=8001, metavar="N", help="port on 127.0.0.1 (default: 8001)")
    parser.add_argument(
        "--to", default="http://127.0.0.1:8000", metavar="URL", help="the CDS server to call (loopback)"
    )


def run(args: argparse.Namespace) -> int:
    from cds_server import logs
    from cds_server.sandbox.app import create_app
    from cds_server.sandbox.guard import check_configuration, check_loopback
    from cds_server.serve import fixtures, run_app
    from cds_server.settings import from_environment

    logs.configure(os.environ.get("CDS_LOG_LEVEL", "info"))
    check_loopback(args.to, "--to")
    check_configuration(from_environment())
    secret = os.environ.get("CDS_SANDBOX_CLIENT_SECRET") or None
    own_url = f"http://127.0.0.1:{args.port}"
    app = create_app(args.to.rstrip("/"), fixtures(), own_url=own_url, secret=secret)
    run_app(app, "127.0.0.1", args.port)
    return 0
