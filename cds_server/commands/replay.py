"""`cds replay`"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from cds_server.commands.opening import emit, progress

if TYPE_CHECKING:
    from cds_server.replay.play import Token

NAME = "replay"
HELP = "play recorded CDS Hooks requests (a folder of JSON files, or HAR), compare answers with the recorded ones"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("dir", metavar="DIR", help="a folder of hook requests and HAR files, or one such file")
    parser.add_argument(
        "--to", default="http://127.0.0.1:8000", metavar="URL", help="base URL of the server (default: this machine's)"
    )
    parser.add_argument(
        "--record", action="store_true", help="take answers that differ, or are new, as the recorded ones"
    )
    parser.add_argument(
        "--report", default="replay-report", metavar="FOLDER", help="where index.html and junit.xml are written"
    )
    parser.add_argument(
        "--ignore", action="append", default=[], metavar="POINTER", help="a JSON pointer not to compare; * is any step"
    )
    parser.add_argument("--key", metavar="FILE", help="sign each request with this private key (PEM, JWK, JWK Set)")
    parser.add_argument("--issuer", metavar="URL", help="`iss` of the tokens that are signed with --key")
    parser.add_argument("--kid", help="`kid` of the key (default: as the file names it, else its thumbprint)")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    from cds_server.decisions import now
    from cds_server.http import blocking_client
    from cds_server.replay import reports
    from cds_server.replay.compare import IGNORED
    from cds_server.replay.play import Player
    from cds_server.replay.tapes import tapes

    found, server = tapes(Path(args.dir)), args.to.rstrip("/")
    token = _token(args)
    with blocking_client() as client, progress("replay") as report:
        player = Player(client, server, (*IGNORED, *args.ignore), token)
        played = []
        for each in player.play(found, record=args.record):
            played.append(each)
            if report is not None:
                report(len(played), None)
    page, junit = reports.write(Path(args.report), server, now(), played)
    emit(
        args,
        [
            {
                "name": each.name,
                "verdict": each.verdict.value,
                "status": each.status,
                "seconds": round(each.seconds, 4),
                "diff": list(each.diff),
            }
            for each in played
        ],
        f"{reports.told(played)}\n\n{page}\n{junit}",
    )
    return 0 if played and all(each.verdict.good for each in played) else 1


def _token(args: argparse.Namespace) -> Token:
    """Every request has a token of its own, signed for its URL: a server that remembers tokens takes none twice."""
    from cds_server.conformance.peer import Signer
    from cds_server.replay.play import no_token
    from models.errors import Misconfigured

    if args.key is None:
        return no_token
    if args.issuer is None:
        raise Misconfigured("--key needs --issuer: whose token is it?")
    return Signer(Path(args.key), args.issuer, kid=args.kid).token
