"""`cds models`"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from cds_server.commands import enrolling, recalibrating
from cds_server.commands.opening import actor_of, common, emit, existing, parts_of, settings_of, table

if TYPE_CHECKING:
    from models.nouns import ModelVersion

NAME = "models"
HELP = "model versions: list, show, verify, pin one for a service, run one on a table of features, enrol one, fit one"


def arguments(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    common(verbs.add_parser("list", help="every version on the shelf"))
    show = verbs.add_parser("show", help="the manifest of one version")
    show.add_argument("model", metavar="NAME[@V]")
    common(show)
    use = verbs.add_parser("use", help="pin a version for a service, from now on, on record")
    use.add_argument("service")
    use.add_argument("model", metavar="NAME@V")
    common(use)
    common(verbs.add_parser("verify", help="hold every file against its manifest"))
    run_ = verbs.add_parser("run", help="feature rows in, outputs out; no patient involved")
    run_.add_argument("model", metavar="NAME[@V]")
    run_.add_argument("--features", required=True, metavar="FILE.csv", help="columns named as in the manifest")
    run_.add_argument("--out", metavar="FILE.csv", help="default: standard output")
    enrolling.arguments(verbs.add_parser("enrol", help="take a third party's model from a folder, on record"))
    recalibrating.arguments(verbs.add_parser("recalibrate", help="fit a model to a site's own outcomes: a new version"))


def run(args: argparse.Namespace) -> int:
    from models.shelf import SHIPPED, Shelf

    settings = settings_of(args)
    shelf = Shelf((SHIPPED, *settings.model_roots))
    if args.verb == "list":
        versions = shelf.all()
        emit(
            args,
            [
                {"name": m.name, "version": m.version, "digest": m.manifest_digest, "title": m.manifest["title"]}
                for m in versions
            ],
            table(
                ["model", "title", "manifest"],
                [[m.id, str(m.manifest["title"]), m.manifest_digest[:16]] for m in versions],
            ),
        )
        return 0
    if args.verb == "verify":
        found = shelf.verify()
        emit(
            args,
            found,
            "\n".join(f"{model}: " + ("ok" if not wrong else "; ".join(wrong)) for model, wrong in found.items()),
        )
        return 1 if any(found.values()) else 0
    if args.verb == "enrol":
        return enrolling.run(args, settings, shelf)
    if args.verb == "recalibrate":
        return recalibrating.run(args, settings, shelf)
    name, _, version = args.model.partition("@")
    model = shelf.get(name, version or None)
    if args.verb == "show":
        print(json.dumps(model.manifest, indent=2, ensure_ascii=False))
        return 0
    if args.verb == "run":
        return _run(args, shelf.path(model), model)
    existing(settings)
    actor = actor_of(args, settings)
    with parts_of(settings, actor) as parts:
        seq = parts.registry.use(args.service, model, actor)
    emit(
        args, {"service": args.service, "model": model.id, "seq": seq}, f"{args.service} uses {model.id} (entry {seq})"
    )
    return 0


def _run(args: argparse.Namespace, directory: Path, model: ModelVersion) -> int:
    from models.table import run_table

    with open(args.features, newline="", encoding="utf-8-sig") as features:
        results = run_table(model, directory, csv.DictReader(features))
        out = open(args.out, "w", newline="", encoding="utf-8") if args.out else sys.stdout  # noqa: SIM115
        try:
            writer = None
            for row in results:
                if writer is None:
                    writer = csv.DictWriter(out, list(row), lineterminator="\n")
                    writer.writeheader()
                writer.writerow(row)
        finally:
            if args.out:
                out.close()
    return 0
