"""`cds demo`"""

from __future__ import annotations

import argparse

NAME = "demo"
HELP = "land the fixtures, start server and sandbox on loopback, print what to open; --once plays it through and exits"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--once", action="store_true", help="call the hooks, print the cards, the override and the verdict on the log"
    )
    parser.add_argument(
        "--port", type=int, default=8000, metavar="N", help="port of the server; the sandbox takes the next one"
    )


def run(args: argparse.Namespace) -> int:
    from cds_server.demo import demo

    return demo(port=args.port, once=args.once)
