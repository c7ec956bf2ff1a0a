"""The `cds` command.

Exit codes: 0 fine, 1 the answer is no, 2 usage or configuration, 3 a peer failed, 4 refused by policy.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Sequence

from cds_server import __version__, commands
from models.errors import CdsError
from models.plugins import discover

ORDER = (
    "demo",
    "serve",
    "sandbox",
    "listen",
    "hl7",
    "dicom",
    "land",
    "pull",
    "digest",
    "work",
    "patient",
    "score",
    "replay",
    "conformance",
    "inference",
    "ask",
    "ledger",
    "witness",
    "models",
    "service",
    "keys",
    "hold",
    "erase",
    "purge",
    "evidence",
    "backup",
    "restore",
    "doctor",
)


def main(argv: Sequence[str] | None = None) -> int:
    os.umask(0o077)  # whatever this program writes is for its own user
    parser = _parser()
    args = parser.parse_args(argv)
    try:
        code: int = args.run(args)
    except CdsError as error:
        print(f"cds {args.command}: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return 130
    except OSError as error:
        print(
            f"cds {args.command}: {error.strerror or type(error).__name__}: {error.filename or ''}".rstrip(": "),
            file=sys.stderr,
        )
        return 2
    with contextlib.suppress(BrokenPipeError):
        sys.stdout.flush()
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="cds",
        description="Clinical decision-support integration server.",
        epilog="Configuration: cds.toml (or the file that CDS_CONFIG names), and CDS_* variables over it.",
    )
    parser.add_argument("--version", action="version", version=f"cds {__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    found = discover(commands, "NAME")
    for name in ORDER:
        module = found[name]
        sub = subparsers.add_parser(name, help=module.HELP, description=module.HELP)
        module.arguments(sub)
        sub.set_defaults(run=module.run)
    return parser


if __name__ == "__main__":
    sys.exit(main())
