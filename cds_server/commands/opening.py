"""What commands share: settings, an open store, who acts, how results are printed."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import pwd
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from models.errors import Misconfigured, NotAllowed, NotFound

if TYPE_CHECKING:
    from cds_server.app import Parts
    from cds_server.settings import Settings
    from cds_server.store.reads import RecordRow
    from cds_server.store.store import Store


def common(parser: argparse.ArgumentParser, *, json_output: bool = True) -> None:
    """Options that nearly every command has."""
    parser.add_argument(
        "--as", dest="actor", metavar="NAME", help="act under this name, where `actors` in the configuration allows it"
    )
    if json_output:
        parser.add_argument("--json", action="store_true", help="print JSON")


def settings_of(args: argparse.Namespace, **overrides: Any) -> Settings:
    from cds_server import logs
    from cds_server.settings import from_environment

    settings = from_environment(**overrides)
    logs.configure(settings.log_level)
    return settings


def actor_of(args: argparse.Namespace, settings: Settings) -> str:
    """Who acts: the operating-system user, or `--as NAME` where the configuration allows it."""
    named = getattr(args, "actor", None)
    if named is None:
        return f"user:{pwd.getpwuid(os.geteuid()).pw_name}"
    if named not in settings.actors:
        raise NotAllowed(f"--as is refused: `actors` in {settings.origin} does not list that name")
    return f"user:{named}"


@contextlib.contextmanager
def store_of(settings: Settings) -> Iterator[Store]:
    from cds_server.store.store import Store

    store = Store.open(settings.data_dir, settings.database_url, settings.master)
    try:
        yield store
    finally:
        store.close()


@contextlib.contextmanager
def parts_of(settings: Settings, actor: str) -> Iterator[Parts]:
    from cds_server.app import build

    parts = build(settings, actor)
    try:
        yield parts
    finally:
        parts.close()


def existing(settings: Settings) -> None:
    """Refuse to make a new instance where one was meant to be read."""
    if settings.database_url.startswith("sqlite:///") and not os.path.exists(
        settings.database_url.removeprefix("sqlite:///")
    ):
        raise Misconfigured(f"there is no instance in the data directory (data_dir of {settings.origin})")


def emit(args: argparse.Namespace, result: Any, text: str) -> None:
    """Print JSON where asked for, else the text."""
    if getattr(args, "json", False):
        print(json.dumps(result, indent=2, ensure_ascii=False, default=str))
    else:
        print(text)


def record_of(store: Store, identifier: str) -> RecordRow:
    """The patient record that a command names: `NAMESPACE/ID`, `system|value`, or a person uuid.

    Raises: NotFound; a `system|value` that several records carry which are not one person is not found either.
    """
    if "|" in identifier:
        system, value = identifier.rsplit("|", 1)
        ids = store.reads.records_by_identifier(system, value)
        if len({store.reads.person(record) for record in ids}) != 1:
            raise NotFound("this identifier names no patient" if not ids else "this identifier names several persons")
        return store.reads.records([min(ids)])[0]
    if "/" in identifier:
        namespace, local_id = identifier.split("/", 1)
        record = store.reads.record(namespace, local_id)
    else:
        record = store.reads.record_by_ref(identifier.replace("-", "").lower())
    if record is None:
        raise NotFound("no such patient is known")
    return record


@contextlib.contextmanager
def progress(label: str) -> Iterator[Any]:
    """A progress bar on a terminal; nothing elsewhere. Gives a callback (done, total)."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    with Progress(
        TextColumn(label),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    ) as bar:
        task = bar.add_task(label, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def table(header: list[str], rows: list[list[str]]) -> str:
    """A plain table for a terminal or a pipe."""
    widths = [max(len(str(row[i])) for row in [header, *rows]) for i in range(len(header))]
    lines = [
        "  ".join(str(cell).ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in [header, *rows]
    ]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])
