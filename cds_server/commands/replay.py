"""`cds replay`"""

from __future__ import annotations

import argparse
from pathlib import Path

from cds_server.commands.opening import emit, progress

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
    parser.add_argument("--token-file", metavar="FILE", help="send the bearer token in this file with every request")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    from cds_server.decisions import now
    from cds_server.http import blocking_client
    from cds_server.replay import reports
    from cds_server.replay.compare import IGNORED
    from cds_server.replay.play import Player, no_token
    from cds_server.replay.tapes import tapes

    found, server = tapes(Path(args.dir)), args.to.rstrip("/")
    secret = Path(args.token_file).read_text(encoding="utf-8").strip() if args.token_file else None
    with blocking_client() as client, progress("replay") as report:
        player = Player(
            client, server, (*IGNORED, *args.ignore), token=(lambda _: secret) if secret is not None else no_token
        )
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
