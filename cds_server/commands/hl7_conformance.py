"""`cds hl7 conformance`: what a sample of each feed's messages was found to do against its version of HL7 v2."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cds_server.hl7_sampling import Found, Report

VERB = "conformance"
HELP = "where a sample of each feed's messages left their version, counted in the background"
MOST = 40


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", nargs="?", metavar="SOURCE", help="only of this [[source]]")
    parser.add_argument("--most", type=int, default=MOST, metavar="N", help=f"findings of each, {MOST} by default")
    parser.add_argument("--json", action="store_true", help="print JSON, with all of them")


def run(args: argparse.Namespace) -> int:
    from dataclasses import asdict

    from cds_server.commands.opening import emit, existing, settings_of, store_of
    from cds_server.feeds import feed_sources
    from cds_server.hl7_sampling import reports
    from models.errors import NotFound

    settings = settings_of(args)
    existing(settings)
    feeds = feed_sources(settings)
    with store_of(settings) as store:
        found = reports(store, args.source)
    known = {each.source for each in found}
    if args.source is not None and args.source not in {*feeds, *known}:
        raise NotFound("there is no [[source]] of HL7 v2 messages by that name", where=settings.origin)
    named = [args.source] if args.source is not None else sorted(feeds)
    silent = [name for name in named if name not in known]
    texts = [_text(report, max(0, args.most)) for report in found]
    texts += [f"{name}: {_nothing(feeds[name].sampling.share)}" for name in silent]
    rows: list[dict[str, Any]] = [asdict(report) for report in found]
    emit(args, rows, "\n\n".join(texts) or "there is no [[source]] of HL7 v2 messages")
    return 0


def _nothing(share: float) -> str:
    return "no message has been looked at yet" if share else "off (conformance_share = 0)"


def _text(report: Report, most: int) -> str:
    lines = [f"{report.source}: {report.checked:,} of {_many(report.seen, 'message')} checked, {_span(report)}"]
    if report.unreadable:
        lines.append(f"  {_many(report.unreadable, 'message')} of them could not be read at all")
    if report.passed_over:
        now = "; that of this hour is spent" if report.spent else ""
        lines.append(f"  {_many(report.passed_over, 'message')} chosen and passed over: the hour's time was spent{now}")
    if report.failed:
        lines.append(f"  {_many(report.failed, 'message')} chosen, and the check failed: see the log")
    if not report.findings:
        return "\n".join([*lines, "  nothing was found" if report.checked else "  nothing was checked yet"])
    from cds_server.commands.opening import table

    header = ["event", "version", "place", "rule", "messages", "share", "times", "first", "last"]
    lines += ["", table(header, [_row(each) for each in report.findings[:most]])]
    if (rest := len(report.findings) - most) > 0:
        lines.append(f"and {_many(rest, 'finding')} more: --most {len(report.findings)}")
    return "\n".join(lines)


def _row(found: Found) -> list[str]:
    share = f"{found.share:.1%}" if found.share >= 0.001 else "<0.1%"
    counts = [f"{found.messages:,}".rjust(8), share.rjust(6), f"{found.times:,}".rjust(5)]
    return [found.event, found.version, found.place, found.rule, *counts, found.first[:10], found.last[:10]]


def _span(report: Report) -> str:
    spent = f"{report.seconds:.1f} s of processor time"
    return f"{report.first[:16].replace('T', ' ')} to {report.last[:16].replace('T', ' ')} UTC, {spent}"


def _many(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
