"""`cds conformance`"""

from __future__ import annotations

import argparse
from pathlib import Path

from cds_server.commands.opening import emit, progress, table

NAME = "conformance"
HELP = "check any CDS Hooks server from outside: discovery, calls, answers, and how it bears what is odd"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("url", metavar="URL", help="base URL of the server, before /cds-services")
    parser.add_argument("--service", action="append", default=[], metavar="ID", help="check this service only")
    parser.add_argument("--requests", metavar="DIR", help="send the requests in these JSON files, by hook")
    parser.add_argument("--prefetch", action="store_true", help="answer the prefetch that these requests leave out")
    parser.add_argument("--crd", action="store_true", help="what the Da Vinci CRD guide asks counts, too")
    parser.add_argument("--suite", action="store_true", help="only what the conformance suite looks at: nothing odd")
    parser.add_argument("--key", metavar="FILE", help="sign each call with this private key (PEM, JWK or JWK Set)")
    parser.add_argument("--issuer", metavar="URL", help="issuer of these tokens (iss)")
    parser.add_argument("--kid", metavar="ID", help="key id, where the file does not say it")
    parser.add_argument("--jku", metavar="URL", help="where the server finds the public key")
    parser.add_argument("--tenant", metavar="NAME", help="tenant of these tokens")
    parser.add_argument("--ca", metavar="FILE", help="believe the certificate authorities of this file")
    parser.add_argument("--all", action="store_true", help="print what there was nothing to judge of, too")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    from cds_server.conformance.peer import Peer, Signer
    from cds_server.conformance.requests import Bodies
    from cds_server.conformance.results import Verdict, failed
    from cds_server.conformance.suite import check
    from cds_server.http import authorities, blocking_client
    from models.errors import Misconfigured

    if not args.url.startswith(("http://", "https://")):
        raise Misconfigured("this is no http or https URL", where="URL")
    if bool(args.key) != bool(args.issuer):
        raise Misconfigured("a token has a key and an issuer: give both", where="--key, --issuer")
    signer = None
    if args.key:
        signer = Signer(Path(args.key), args.issuer, kid=args.kid, jku=args.jku, tenant=args.tenant)
    bodies = Bodies(Path(args.requests) if args.requests else None, prefetch=args.prefetch)
    verify = authorities(Path(args.ca) if args.ca else None)
    with blocking_client(verify=verify) as client, progress("services") as report:
        results = check(
            Peer(args.url, client, signer),
            bodies,
            only=args.service,
            as_crd=args.crd,
            oddities=not args.suite,
            progress=report,
        )
    counts = {verdict: sum(result.verdict is verdict for result in results) for verdict in Verdict}
    shown = [each for each in results if args.all or each.verdict is not Verdict.UNSEEN]
    rows = [[each.number, each.verdict.value, each.title, each.about, each.what] for each in shown]
    told = table(["check", "result", "what is checked", "service", "what was found"], rows) + "\n" if rows else ""
    total = ", ".join(f"{count} {name}" for verdict, count in counts.items() for name in [_NAMES[verdict.name]])
    emit(
        args,
        {
            "url": args.url,
            "ok": not failed(results),
            "counts": {_NAMES[verdict.name]: count for verdict, count in counts.items()},
            "results": [
                {
                    "check": each.number,
                    "result": _NAMES[each.verdict.name],
                    "title": each.title,
                    "about": each.about,
                    "what": each.what,
                }
                for each in results
            ],
        },
        f"{told}{total}",
    )
    return 1 if failed(results) else 0


_NAMES = {"PASS": "passed", "FAIL": "failed", "WARN": "warned", "UNSEEN": "not seen"}
