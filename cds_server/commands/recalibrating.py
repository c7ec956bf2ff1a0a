"""The verb `cds models recalibrate`: see `models.recalibration`."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cds_server.commands.opening import actor_of, common, emit, existing, parts_of, table

if TYPE_CHECKING:
    from cds_server.settings import Settings
    from models.nouns import ModelVersion
    from models.recalibration import Recalibration
    from models.shelf import Shelf


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="NAME[@V]", help="without V: the newest version that is not a site's own")
    parser.add_argument(
        "--outcomes", required=True, metavar="FILE.csv", help="columns id, logit or p, time (months), event (0 or 1)"
    )
    parser.add_argument("--out-version", metavar="V", help="default: the version with -site.1, -site.2, ... after it")
    parser.add_argument(
        "--horizon", type=float, metavar="MONTHS", help="where the manifest states none: what the risk is about"
    )
    common(parser)


def run(args: argparse.Namespace, settings: Settings, shelf: Shelf) -> int:
    """0: a new version stands in the data directory, on record; 1: these outcomes do not bear one."""
    from models import outcomes, recalibration

    name, _, named = args.model.partition("@")
    model = shelf.get(name, named or None)
    recalibration.check_may(model)
    version = _version(args, shelf, model)
    horizon = recalibration.horizon_of(model, args.horizon)
    existing(settings)
    try:
        fitted = recalibration.recalibrate(outcomes.read(Path(args.outcomes).read_bytes(), model.id), horizon)
    except recalibration.CannotSay as error:
        emit(
            args,
            {"model": None, "of": model.id, "why": error.what, "before": asdict(error.before)},
            "\n".join([_found(error.before, model, horizon), "", f"No new version: {error.what}."]),
        )
        return 1
    seq, digest = _shelve(args, settings, shelf, model, version, fitted)
    new = f"{model.name}@{version}"
    emit(
        args,
        {"model": new, "of": model.id, "digest": digest, "seq": seq, **fitted.plain()},
        "\n".join(
            [
                f"{fitted.before.n} patients, {fitted.before.events} events by {horizon:g} months, "
                f"{fitted.before.censored} lost before",
                "",
                table(["", f"before ({model.version})", "after, held out"], recalibration.rows(fitted)),
                "",
                f"Fitted: {fitted.fitted}. logit p' = {fitted.intercept:.4f} + {fitted.slope:.4f} x logit p",
                f"{new} is on the shelf (entry {seq}). No service uses it until: cds models use SERVICE {new}",
            ]
        ),
    )
    return 0


def _version(args: argparse.Namespace, shelf: Shelf, model: ModelVersion) -> str:
    from models.errors import Conflict, Misconfigured
    from models.recalibration import next_version
    from models.shelf import is_version

    taken = frozenset(known.version for known in shelf.all() if known.name == model.name)
    if args.out_version is None:
        return next_version(model, taken)
    if not is_version(args.out_version):
        raise Misconfigured("--out-version: lower-case letters, digits, dots and hyphens, a letter or digit first")
    if args.out_version in taken:
        raise Conflict("this version exists already, and a version is never changed", where="--out-version")
    return str(args.out_version)


def _shelve(
    args: argparse.Namespace,
    settings: Settings,
    shelf: Shelf,
    model: ModelVersion,
    version: str,
    fitted: Recalibration,
) -> tuple[int, str]:
    from models import recalibration, shelving

    manifest = recalibration.derive(model, version, fitted)
    card = recalibration.card_section(model, fitted)
    files = recalibration.files(model, shelf.path(model), card)
    actor = actor_of(args, settings)
    staged = shelving.stage(settings.model_roots[0], manifest, files)
    try:
        with parts_of(settings, actor) as parts:
            detail: dict[str, Any] = {
                "model": f"{model.name}@{version}",
                "digest": staged.manifest_digest,
                "of": model.id,
                "of_digest": model.manifest_digest,
                "outcomes": fitted.outcomes,
                "n": fitted.before.n,
                "events": fitted.before.events,
                "fitted": fitted.fitted,
            }
            seq = parts.store.writer.submit(lambda tx: int(tx.entry("recalibrate", actor, detail).seq)).result()
        staged.place()
    finally:
        staged.drop()
    return seq, staged.manifest_digest


def _found(before: Any, model: ModelVersion, horizon: float) -> str:
    ratio = f", observed/expected {before.ratio:.2f}"
    if before.ratio_interval is not None:
        ratio += f" ({before.ratio_interval[0]:.2f} to {before.ratio_interval[1]:.2f})"
    return (
        f"{model.id}: {before.n} patients, {before.events} events by {horizon:g} months, {before.censored} lost{ratio}"
    )
