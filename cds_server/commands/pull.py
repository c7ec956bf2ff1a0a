"""`cds pull`"""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from cds_server.commands.dicom import day
from cds_server.commands.opening import actor_of, common, emit, existing, settings_of, store_of, table
from models.errors import Misconfigured

if TYPE_CHECKING:
    from cds_server.bulk_sources import BulkSource
    from cds_server.jobs import Job
    from cds_server.settings import Settings

NAME = "pull"
HELP = "one run of a configured pull source, taken up where it was left: a FHIR bulk export, or studies of an archive"
_ARCHIVES = ("dicom", "dicomweb")
_EXIT = {"done": 0, "done with faults": 1, "complete": 0, "partial": 1, "failed": 3, "cancelled": 1}


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="the [[source]] of the configuration")
    parser.add_argument("--full", action="store_true", help="everything, whatever was pulled before; then reconcile")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--dry-run", action="store_true", help="what would be asked, and how much it would bring")
    what.add_argument("--verify", action="store_true", help="counts per type, the server's beside ours")
    what.add_argument("--status", action="store_true", help="the jobs of the last runs")
    what.add_argument("--cancel", action="store_true", help="end what is unfinished, here and on the server")
    studies = parser.add_argument_group("of an archive (kinds dicom and dicomweb)")
    studies.add_argument("--study", metavar="UID", help="Study Instance UID")
    studies.add_argument("--accession", metavar="N")
    studies.add_argument("--patient", metavar="ID")
    studies.add_argument("--since", metavar="DAY", type=day, help="studies of that day or later (2026-01-31)")
    common(parser)


def run(args: argparse.Namespace) -> int:
    from cds_server.bulk_sources import bulk_sources

    settings = settings_of(args)
    if any(each.kind in _ARCHIVES and each.name == args.name for each in settings.sources):
        return _studies(args, settings)
    if args.study or args.accession or args.patient or args.since:
        raise Misconfigured(
            "--study, --accession, --patient and --since are for a [[source]] of kind 'dicom' or 'dicomweb'"
        )
    sources = bulk_sources(settings)
    if args.name not in sources:
        known = ", ".join([*sources, *(each.name for each in settings.sources if each.kind in _ARCHIVES)]) or "none"
        raise Misconfigured(
            f"there is no [[source]] of a kind that is pulled by that name in {settings.origin}: {known}"
        )
    source = sources[args.name]
    actor = actor_of(args, settings)
    if args.verify or args.status or args.cancel:
        existing(settings)
    with store_of(settings) as store, _watching() as tell:
        from cds_server.pulls import Pulls

        pulls = Pulls(settings, store, source, actor, tell)
        if args.dry_run:
            return _dry_run(args, pulls, source)
        if args.verify:
            return _verify(args, pulls, source, store)
        if args.status:
            jobs = pulls.jobs.latest(source.name, 10)
            emit(args, [_plain(job) for job in jobs], _told(jobs) if jobs else "never pulled")
            return 0
        if args.cancel:
            jobs = pulls.cancel()
            emit(args, [_plain(job) for job in jobs], _told(jobs) if jobs else "nothing is unfinished")
            return 0
        pulled = pulls.run(full=args.full)
    assert pulled is not None  # noqa: S101 (only a schedule is told that nothing is due)
    emit(args, {"state": pulled.state, "jobs": [_plain(job) for job in pulled.jobs]}, _told(pulled.jobs))
    return _EXIT[pulled.state]


def _studies(args: argparse.Namespace, settings: Settings) -> int:
    from adapters.sources.dicom_move import Ask
    from cds_server.dicom_pulls import DicomPulls, plain
    from cds_server.dicom_sources import dicom_sources

    if args.full or args.verify:
        raise Misconfigured("--full and --verify are for bulk exports: a pull of studies compares by itself")
    source = dicom_sources(settings)[args.name]
    asked = Ask(args.study, args.accession, args.patient, args.since)
    looks_back = args.status or args.cancel
    if looks_back:
        existing(settings)
    elif not asked.plain():
        asked_for = "name what is meant by --study, --accession, --patient or --since"
        raise Misconfigured(f"an archive is not pulled as a whole: {asked_for}")
    with store_of(settings) as store, _watching() as tell:
        pulls = DicomPulls(settings, store, source, actor_of(args, settings), tell)
        if args.dry_run:
            found = pulls.would_ask(asked)
            images = sum(each.whole("NumberOfStudyRelatedInstances") or 0 for each in found)
            text = f"{len(found)} studies, {images} instances as the archive counts them"
            emit(args, {"source": source.name, "studies": len(found), "instances": images}, text)
            return 0
        if args.status:
            jobs = pulls.jobs.latest(source.name, 10)
        else:
            jobs = pulls.cancel() if args.cancel else pulls.run(asked)
    emit(args, [plain(job) for job in jobs], _told_studies([plain(job) for job in jobs]) if jobs else "nothing")
    return 0 if looks_back else max((_EXIT[job.state] for job in jobs), default=0)


def _told_studies(jobs: list[dict[str, Any]]) -> str:
    rows = [
        [
            each["job"][:8],
            each["mode"],
            each["state"],
            each["at"][:19],
            str(each["studies"]),
            f"{each['stored']} of {each['expected']}",
            (each["cursor"] or "-")[:10],
            each["cause"] or "",
        ]
        for each in jobs
    ]
    return table(["job", "mode", "state", "at", "studies", "instances", "up to", "why"], rows)


def _dry_run(args: argparse.Namespace, pulls: Any, source: BulkSource) -> int:
    import asyncio

    planned = asyncio.run(pulls.would_ask(full=args.full))
    rows = [[each["mode"], each["method"], each["url"], each["since"] or "-"] for each in planned["jobs"]]
    text = table(["job", "how", "asked", "since"], rows)
    if planned["counts"]:
        counted = [[kind, str(count)] for kind, count in planned["counts"].items()]
        text += "\n\n" + table(["type", "on the server now"], counted)
    if planned["advice"]:
        text += f"\n\n{planned['advice']}"
    emit(args, {"source": source.name, **planned}, text)
    return 0


def _verify(args: argparse.Namespace, pulls: Any, source: BulkSource, store: Any) -> int:
    import asyncio

    from cds_server.pull_results import held

    ours = held(store, source.name)
    theirs = asyncio.run(pulls.counted(sorted({*ours, *source.request.types})))
    rows, differ = [], False
    for kind, count in theirs.items():
        same = count.number == ours.get(kind, 0) if count.number is not None else None
        differ = differ or same is False
        said = str(count.number) if count.number is not None else str(count.reason)
        rows.append([kind, str(ours.get(kind, 0)), said, {True: "same", False: "DIFFERENT", None: "-"}[same]])
    result = [dict(zip(("type", "ours", "theirs", "verdict"), row, strict=True)) for row in rows]
    emit(args, result, table(["type", "ours", "theirs", ""], rows) if rows else "nothing was pulled yet")
    return 1 if differ else 0


def _plain(job: Job) -> dict[str, Any]:
    return {
        "job": job.ref,
        "run": job.run,
        "mode": job.mode,
        "state": job.state,
        "cause": job.cause,
        "since": job.asked.get("since"),
        "queued_at": job.queued_at,
        "at": job.at,
        "cursor": job.cursor,
        **job.remembers.get("result", {}),
    }


def _told(jobs: Any) -> str:
    rows = []
    for job in jobs:
        result = job.remembers.get("result", {})
        rows.append(
            [
                job.ref[:8],
                job.mode,
                job.state,
                job.at[:19],
                str(result.get("files", "-")),
                str(result.get("lines", "-")),
                (job.cursor or "-")[:19],
                job.cause or "",
            ]
        )
    text = table(["job", "mode", "state", "at", "files", "lines", "cursor", "why"], rows)
    faults = [fault for job in jobs for fault in job.remembers.get("result", {}).get("faults", [])]
    return text + "".join(f"\nfault: {fault}" for fault in faults[:20])


@contextlib.contextmanager
def _watching() -> Iterator[Any]:
    """What is going on, for a person at a terminal; nothing elsewhere."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    from cds_server import logs

    logs.configure("warning")  # a person sees the rest by the bars
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        tasks: dict[str, Any] = {}
        open_ended: dict[str, bool] = {}

        def tell(what: str, done: int, total: int | None) -> None:
            name = what.partition(":")[0]
            shown = escape("".join(sign if sign.isprintable() else " " for sign in what))
            if name not in tasks:
                for before in [each for each in tasks if open_ended[each]]:  # what nobody could count is over
                    bar.update(tasks[before], description=escape(before), completed=1, total=1)
                tasks[name] = bar.add_task(shown, total=total)
            open_ended[name] = total is None
            bar.update(tasks[name], description=shown, completed=done, total=total)

        yield tell
