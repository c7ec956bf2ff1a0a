"""`cds hl7`"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cds_server.commands import hl7_conformance, hl7_queue

if TYPE_CHECKING:
    from adapters.hl7v2.batch import Entry, Oddity
    from adapters.hl7v2.feed import Feed
    from adapters.hl7v2.message import Message
    from adapters.sinks.hl7v2_mllp import Answer, Peer
    from cds_server.mllp_client import Totals

NAME = "hl7"
HELP = (
    "HL7 v2 messages by hand: show, validate, send, replay and capture them; patient data masked where they are shown"
)


def arguments(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)

    show = verbs.add_parser("show", help="messages with their fields named; or what differs between two")
    show.add_argument("file", metavar="FILE", help="a message, a batch or a capture, plain or gzip; - is the input")
    show.add_argument("--message", type=_counting, metavar="N", help="only this one, counted from 1")
    show.add_argument("--unmask", action="store_true", help="show patient data too")
    show.add_argument("--diff", metavar="FILE2", help="what differs in the (first, or N-th) message of FILE2")
    _json(show)

    validate = verbs.add_parser("validate", help="what would be read from messages, and where they leave their version")
    validate.add_argument("files", nargs="+", metavar="FILE")
    validate.add_argument("--source", metavar="NAME", help="read by the rules of this [[source]]")
    _json(validate)

    send = verbs.add_parser("send", help="send messages over MLLP, one in flight, and print each answer")
    send.add_argument("file", metavar="FILE")
    send.add_argument("to", metavar="HOST:PORT")
    _peer(send)
    _json(send)

    replay = verbs.add_parser("replay", help="play a captured feed; prints totals and how long answers took")
    replay.add_argument("file", metavar="FILE")
    replay.add_argument("--to", required=True, metavar="HOST:PORT")
    replay.add_argument(
        "--repeat", type=_counting, default=1, metavar="TIMES",
        help="how often; the numbers of the messages stay, so that a receiver may take later rounds for resent",
    )  # fmt: skip
    _peer(replay)
    _json(replay)

    capture = verbs.add_parser("capture", help="listen, answer AA, and keep what comes in a new file (patient data)")
    capture.add_argument("--listen", required=True, metavar="HOST:PORT")
    capture.add_argument("--out", required=True, type=Path, metavar="FILE", help="must not exist; its owner's only")
    capture.add_argument("--allow", action="append", default=[], metavar="NETWORK", help="who may connect; repeat it")
    capture.add_argument("--cert", type=Path, metavar="FILE", help="TLS: our certificate")
    capture.add_argument("--key", type=Path, metavar="FILE", help="TLS: its key")

    hl7_conformance.arguments(
        verbs.add_parser(hl7_conformance.VERB, help=hl7_conformance.HELP, description=hl7_conformance.HELP)
    )

    hl7_queue.arguments(verbs.add_parser(hl7_queue.VERB, help=hl7_queue.HELP, description=hl7_queue.HELP))

    codes = verbs.add_parser("codes", help="codes of a feed that nobody has mapped, the most frequent first")
    codes.add_argument("--source", metavar="NAME", help="only of this [[source]]")
    codes.add_argument("--propose", action="store_true", help="what they might be, as rows for a map file")
    _json(codes)


def _peer(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--tls", action="store_true", help="over TLS, the receiver's certificate checked")
    parser.add_argument("--ca", type=Path, metavar="FILE", help="authorities of the receiver (default: the system's)")
    parser.add_argument("--cert", type=Path, metavar="FILE", help="our certificate, where the receiver wants one")
    parser.add_argument("--key", type=Path, metavar="FILE", help="its key")
    parser.add_argument("--rate", type=_rate, default=0.0, metavar="N", help="messages a second at most")
    parser.add_argument("--wait", type=_rate, default=30.0, metavar="SECONDS", help="for an answer (30)")


def _json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON")


def _counting(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError("not a number from 1")
    return int(text)


def _rate(text: str) -> float:
    try:
        found = float(text)
    except ValueError:
        found = 0.0
    if not 0 < found < 1e6:
        raise argparse.ArgumentTypeError("not a number above 0")
    return found


def run(args: argparse.Namespace) -> int:
    verbs = {
        "show": _show,
        "validate": _validate,
        "send": _send,
        "replay": _replay,
        "capture": _capture,
        "codes": _codes,
        hl7_conformance.VERB: hl7_conformance.run,
        hl7_queue.VERB: hl7_queue.run,
    }
    return verbs[args.verb](args)


def _codes(args: argparse.Namespace) -> int:
    from dataclasses import asdict

    from cds_server.commands.opening import emit, existing, settings_of, store_of, table
    from cds_server.hl7_codes import unmapped

    settings = settings_of(args)
    existing(settings)
    with store_of(settings) as store:
        found = unmapped(store, args.source, propose=args.propose)
    rows = [[each.source, str(each.count), each.system, each.code, each.title] for each in found]
    text = table(["source", "results", "system", "code", "called"], rows) if rows else "every code is mapped, or shared"
    if args.propose and rows:
        text += "\n\nsource_system,source_code,target_system,target_code,target_display,equivalence"
        for each in found:
            for said in each.proposals:
                cells = (each.system, each.code, said.system, said.code, f'"{said.title}"', "inexact")
                text += "\n" + ",".join(cells)
        text += "\n\nA row counts once a person has written `equivalent` in it."
    emit(args, [asdict(each) for each in found], text)
    return 0


# ---- show ------------------------------------------------------------------------------------------------------------


def _show(args: argparse.Namespace) -> int:
    from cds_server import hl7_terminal as terminal

    if args.diff:
        return _diff(args)
    results, bad, shown = [], 0, 0
    with terminal.opened(args.file) as items:
        for number, message in _messages(args.file, items, args.message):
            if message is None:
                bad += 1
            elif args.json:
                results.append(terminal.plain(message, number, unmask=args.unmask))
            else:
                if shown:
                    print()
                terminal.shown(message, number, unmask=args.unmask)
            shown += 1
    if args.message and not shown:
        bad += 1
        print(f"cds hl7: there is no message {args.message} in {args.file}", file=sys.stderr)
    if args.json:
        print(json.dumps(results, indent=2, ensure_ascii=False))
    return 1 if bad or not shown else 0


def _messages(name: str, items: Iterator[Entry | Oddity], only: int | None) -> Iterator[tuple[int, Message | None]]:
    """The messages of a file, None for what is none; what is odd goes to the standard error."""
    from adapters.hl7v2.batch import Oddity
    from adapters.hl7v2.charsets import Undecodable
    from adapters.hl7v2.message import parse
    from models.errors import BadInput

    for item in items:
        if isinstance(item, Oddity):
            print(f"cds hl7: {name}: {item.what} ({item.where})", file=sys.stderr)
        elif only is None or item.number == only:
            try:
                yield item.number, parse(item.raw, undecodable=Undecodable.WARN)
            except BadInput as error:
                print(f"cds hl7: {name}, message {item.number}: {error}", file=sys.stderr)
                yield item.number, None
        elif item.number > only:
            return


def _diff(args: argparse.Namespace) -> int:
    from cds_server import hl7_terminal as terminal
    from models.errors import NotFound

    found = []
    for name in (args.file, args.diff):
        with terminal.opened(name) as items:
            message = next((each for _, each in _messages(name, items, args.message or 1)), None)
        if message is None:
            raise NotFound("there is no such message", where=name)
        found.append(message)
    changes = terminal.difference(*found, unmask=args.unmask)
    if args.json:
        print(json.dumps([change._asdict() for change in changes], indent=2, ensure_ascii=False))
    elif changes:
        terminal.changed(changes)
    else:
        print("no difference")
    return 0


# ---- validate --------------------------------------------------------------------------------------------------------


def _validate(args: argparse.Namespace) -> int:
    from adapters.hl7v2.batch import Oddity
    from cds_server import hl7_terminal as terminal

    feed, results, bad = _feed(args.source), [], 0
    for name in args.files:
        with terminal.opened(name) as items:
            for item in items:
                if isinstance(item, Oddity):
                    result: dict[str, Any] = {"file": name, "note": item.what, "where": item.where}
                else:
                    result = {"file": name, **_checked(item, feed)}
                    bad += "problem" in result
                results.append(result)
                if not args.json:
                    _said(result)
    if args.json:
        print(json.dumps(results, indent=2, ensure_ascii=False))
    read = sum("statements" in each for each in results)
    print(f"{read + bad} messages: {read} read, {bad} not", file=sys.stderr)
    return 1 if bad or not read else 0


def _feed(source: str | None) -> Feed:
    from adapters.hl7v2.feed import DEFAULT
    from cds_server.feeds import feed_sources
    from cds_server.settings import from_environment
    from models.errors import Misconfigured

    if source is None:
        return DEFAULT
    settings = from_environment()
    found = feed_sources(settings).get(source)
    if found is None:
        raise Misconfigured(f"there is no [[source]] of HL7 v2 messages by that name in {settings.origin}")
    return found.feed


def _checked(entry: Entry, feed: Feed) -> dict[str, Any]:
    """What a reader makes of a message, and where it leaves its version. Counts and places, no values."""
    from collections import Counter

    from adapters.hl7v2.message import parse
    from adapters.hl7v2.structure import conformance
    from adapters.readers import hl7v2
    from cds_server.hl7_terminal import printable
    from models.errors import BadInput
    from models.nouns import Part

    result: dict[str, Any] = {"message": entry.number}
    try:
        message = parse(entry.raw, feed.charset)
        result["type"] = printable("^".join(part for part in message.trigger if part))
        result["warnings"] = list(message.warnings)
        part = Part("0" * 32, 0, feed.namespace, hl7v2.MESSAGE, "1970-01-01T00:00:00.000000Z", entry.raw)
        statements = hl7v2.read(part, feed)
        stated = Counter(f"{each.verb.value} {each.resource_type}" for each in statements)
        result["statements"] = dict(sorted(stated.items()))
        result["odd"] = sorted({note for each in statements for note in each.notes})
    except BadInput as error:
        result["problem"] = str(error)
    try:
        result["findings"] = [each._asdict() for each in conformance(entry.raw, charset=feed.charset)]
    except BadInput:
        result["findings"] = []
    return result


def _said(result: dict[str, Any]) -> None:
    if "note" in result:
        print(f"{result['file']}: {result['note']} ({result['where']})")
        return
    print(f"{result['file']}, message {result['message']}: {result.get('type') or 'no type'}")
    for warning in result.get("warnings", ()):
        print(f"  note: {warning}")
    if "problem" in result:
        print(f"  not read: {result['problem']}")
    else:
        stated = ", ".join(f"{count} x {what}" for what, count in result["statements"].items())
        print(f"  read: {stated or 'states nothing'}")
        if result["odd"]:
            print(f"  odd: {', '.join(result['odd'])}")
    for finding in result["findings"]:
        print(f"  {finding['place']}: {finding['rule']}")


# ---- send and replay -------------------------------------------------------------------------------------------------


def _address(text: str, option: str) -> tuple[str, int]:
    from models.errors import Misconfigured

    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or not 0 <= int(port) < 65_536:
        raise Misconfigured(f"{option} is not HOST:PORT")
    return host.strip("[]"), int(port)


def _to(args: argparse.Namespace) -> Peer:
    from adapters.sinks.hl7v2_mllp import Peer, client_tls
    from models.errors import Misconfigured

    if not args.tls and (args.ca or args.cert or args.key):
        raise Misconfigured("--ca, --cert and --key are of no use without --tls")
    if bool(args.cert) != bool(args.key):
        raise Misconfigured("--cert and --key belong together")
    host, port = _address(args.to, "the receiver")
    return Peer(host, port, client_tls(args.ca, args.cert, args.key) if args.tls else None, args.wait)


def _raws(name: str, times: int = 1) -> Iterator[bytes]:
    from adapters.hl7v2.batch import Oddity
    from cds_server.hl7_terminal import opened

    for turn in range(times):
        with opened(name) as items:
            for item in items:
                if not isinstance(item, Oddity):
                    yield item.raw
                elif not turn:
                    print(f"cds hl7: {name}: {item.what} ({item.where})", file=sys.stderr)


def _send(args: argparse.Namespace) -> int:
    import asyncio

    from cds_server.hl7_terminal import printable
    from cds_server.mllp_client import send_all

    rows: list[dict[str, Any]] = []

    def told(number: int, answer: Answer | str) -> None:
        if isinstance(answer, str):
            row: dict[str, Any] = {"message": number, "problem": answer}
        else:
            row = {
                "message": number,
                "code": answer.code,
                "control_id": printable(answer.control_id),
                "ms": round(answer.seconds * 1000, 1),
            }
        rows.append(row)
        if not args.json:
            said = row.get("problem") or f"{row['code']:2}  {row['control_id']:20}  {row['ms']:8.1f} ms"
            print(f"{number:6}  {said}", flush=True)

    totals = asyncio.run(send_all(_raws(args.file), _to(args), rate=args.rate, told=told))
    if args.json:
        print(json.dumps(rows, indent=2, ensure_ascii=False))
    return 0 if totals.fine and rows else 1


def _replay(args: argparse.Namespace) -> int:
    import asyncio

    from cds_server.mllp_client import send_all

    if args.file == "-" and args.repeat > 1:
        from models.errors import Misconfigured

        raise Misconfigured("the standard input cannot be repeated")
    totals = asyncio.run(send_all(_raws(args.file, args.repeat), _to(args), rate=args.rate))
    result = _figures(totals)
    if args.json:
        print(json.dumps(result, indent=2))
    else:
        codes = ", ".join(f"{code} {count}" for code, count in result["codes"].items()) or "no answers"
        print(f"{result['sent']} messages in {result['seconds']} s ({result['per_second']} a second): {codes}")
        print("answers after: " + ", ".join(f"{name} {value} ms" for name, value in result["ms"].items()))
        if totals.not_sent:
            print(f"{totals.not_sent} messages hold bytes of the frame and were not sent")
    return 0 if totals.fine and totals.sent else 1


def _figures(totals: Totals) -> dict[str, Any]:
    return {
        "sent": totals.sent,
        "not_sent": totals.not_sent,
        "seconds": round(totals.took, 3),
        "per_second": round(totals.sent / totals.took, 1) if totals.took else 0.0,
        "codes": dict(sorted(totals.codes.items())),
        "ms": {
            name: round(totals.within(share) * 1000, 2) for name, share in (("p50", 0.5), ("p99", 0.99), ("most", 1.0))
        },
    }


# ---- capture ---------------------------------------------------------------------------------------------------------


def _capture(args: argparse.Namespace) -> int:
    import asyncio

    return asyncio.run(_captured(args))


async def _captured(args: argparse.Namespace) -> int:
    import asyncio
    import contextlib
    import ipaddress
    import signal

    from adapters.sources.certificates import Tls
    from adapters.sources.hl7v2_mllp import Listening, Mllp
    from cds_server.configured import loopback
    from cds_server.mllp_client import Capture
    from models.errors import Misconfigured

    host, port = _address(args.listen, "--listen")
    try:
        allow = tuple(ipaddress.ip_network(each) for each in args.allow)
    except ValueError:
        raise Misconfigured("--allow is no address or network (10.1.0.0/16)") from None
    if bool(args.cert) != bool(args.key):
        raise Misconfigured("--cert and --key belong together")
    if not loopback(host) and not (allow or args.cert):
        raise Misconfigured("--listen is beyond this machine: say who may connect (--allow), or show a certificate")
    tls = Tls(args.cert, args.key) if args.cert else None
    listening = Listening(host, port, allow, tls, processing=frozenset("PTD"))
    capture = Capture(args.out)

    def ready(at: int) -> None:
        print(
            f"listening on port {at}; {args.out} will hold patient data: keep it as a chart",
            file=sys.stderr,
            flush=True,
        )

    task = asyncio.create_task(Mllp(listening, "capture", "capture", ready=ready).run(capture))
    for each in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(each, task.cancel)
    try:
        with contextlib.suppress(asyncio.CancelledError):
            await task
    finally:
        capture.close()
        if not capture.count:
            args.out.unlink(missing_ok=True)
    print(f"{capture.count} messages captured", file=sys.stderr)
    return 0
