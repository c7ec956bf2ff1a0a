"""`cds serve`"""

from __future__ import annotations

import argparse

from cds_server.commands.opening import settings_of

NAME = "serve"
HELP = "serve CDS Hooks (and what else is configured) until stopped"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--host", metavar="H", help="address to listen on (default: 127.0.0.1)")
    parser.add_argument("--port", type=int, metavar="N", help="port to listen on (default: 8000)")
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="processes that answer (default: 1)")
    parser.add_argument(
        "--no-background", action="store_true", help="leave background work to another process of this instance"
    )


def run(args: argparse.Namespace) -> int:
    from cds_server.serve import serve

    serve(
        settings_of(args, host=args.host, port=args.port),
        workers=max(1, args.workers),
        background=not args.no_background,
    )
    return 0
