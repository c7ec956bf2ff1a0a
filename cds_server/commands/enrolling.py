"""The verb `cds models enrol`: see `models.enrolment`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cds_server.commands.opening import actor_of, common, emit, existing, parts_of

if TYPE_CHECKING:
    from cds_server.settings import Settings
    from models.shelf import Shelf


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", metavar="DIR", help="manifest.json, MODEL_CARD.md and the files that it names")
    common(parser)


def run(args: argparse.Namespace, settings: Settings, shelf: Shelf) -> int:
    """The version is staged, loaded and tried, put on record, and only then found by anybody."""
    from models import enrolment, shelving

    submission = enrolment.read(Path(args.folder))
    enrolment.free(submission, shelf)
    existing(settings)
    actor = actor_of(args, settings)
    staged = shelving.stage(settings.model_roots[0], submission.manifest, submission.files)
    try:
        model = enrolment.check(submission, staged.path, staged.manifest_digest)
        detail: dict[str, Any] = {
            "model": model.id,
            "digest": staged.manifest_digest,
            "submitted": submission.submitted,
            "files": dict(sorted(model.files.items())),
        }
        with parts_of(settings, actor) as parts:
            seq = parts.store.writer.submit(lambda tx: int(tx.entry("enrol", actor, detail).seq)).result()
        staged.place()
    finally:
        staged.drop()
    modalities = [part["name"] for part in model.manifest["modalities"]]
    emit(
        args,
        {"model": model.id, "digest": staged.manifest_digest, "modalities": modalities, "seq": seq},
        f"{model.id} is on the shelf (entry {seq}), beside the fused risk: not part of it. No service uses it.",
    )
    return 0
