"""`cds doctor`"""

from __future__ import annotations

import argparse
import os
import shutil
from typing import Any

from cds_server.commands.opening import common, emit, existing, settings_of, table

NAME = "doctor"
HELP = "what works, what does not, what to do: configuration, store, models, keys, clock, certificates, peers, log"


def arguments(parser: argparse.ArgumentParser) -> None:
    common(parser)


def run(args: argparse.Namespace) -> int:
    from cds_server.audit import audit
    from cds_server.commands.opening import parts_of
    from cds_server.ledger_doors import LedgerWatch
    from cds_server.ops import readiness
    from cds_server.trust.checks import outside
    from models.errors import CdsError

    settings = settings_of(args)
    existing(settings)
    checks: list[tuple[str, str, str]] = [("configuration", "ok", f"read from {settings.origin}")]
    try:
        with parts_of(settings, "system") as parts:
            for name, state in readiness(parts.store, parts.registry).items():
                checks.append((name, "ok" if state == "ok" else "FAILS", "" if state == "ok" else state))
            warnings = LedgerWatch(parts.store, settings).warnings()
            checks += [(name, "LOOK", what) for name, what in warnings.items()] or [("checkpoint", "ok", "")]
            for version, wrong in parts.registry.shelf.verify().items():
                checks.append((f"model {version}", "FAILS" if wrong else "ok", "; ".join(wrong)))
            checks += _past_models(parts)
            checks += _kept(parts, settings)
            checks += _anchored(parts, settings)
            last = parts.store.reads.last_entry_at()
            checks.append(_clock(last))
            checks += _pulls(parts, settings)
            checks += _sending(parts, settings)
            if any(ehr.app is not None for ehr in settings.ehrs):
                from cds_server.smart.checks import apps

                checks += apps(settings, parts.store)
            waiting = parts.store.reads.open_flags()
            checks.append(
                (
                    "work",
                    "ok" if not waiting else "LOOK",
                    ", ".join(f"{n} {k}" for k, n in waiting.items()) or "nothing waits",
                )
            )
    except CdsError as error:
        checks.append(("store", "FAILS", str(error)))
    try:
        report = audit(settings.data_dir, settings.database_url)
        checks.append(
            (
                "log",
                "ok" if not report.findings else "FAILS",
                f"{report.entries} entries" if not report.findings else str(report.findings[0]),
            )
        )
    except CdsError as error:
        checks.append(("log", "FAILS", str(error)))
    free = shutil.disk_usage(settings.data_dir if settings.data_dir.exists() else ".").free
    checks.append(("disk", "ok" if free > 1 << 30 else "LOOK", f"{free >> 20} MiB free"))
    keys = settings.data_dir / "keys.db"
    if keys.exists() and os.stat(keys).st_mode & 0o077:
        checks.append(("key file", "FAILS", "others may read keys.db: chmod 600"))
    trust = (
        "anybody on loopback is let in: never with real data" if settings.trust == "open" else "calls must be signed"
    )
    checks.append(("trust", "LOOK" if settings.trust == "open" else "ok", trust))
    checks += outside(settings)
    if any(source.kind.startswith("dicom") for source in settings.sources):
        from cds_server.dicom_checks import dicom

        checks += dicom(settings)
    emit(
        args,
        [dict(zip(("check", "state", "what"), row, strict=True)) for row in checks],
        table(["check", "state", "what"], [list(row) for row in checks]),
    )
    return 1 if any(state == "FAILS" for _, state, _ in checks) else 0


def _past_models(parts: Any) -> list[tuple[str, str, str]]:
    """Of the model versions that past inferences were made by: whether their files are still at hand."""
    from cds_server.kept import needed

    found = needed(parts.store, parts.registry.shelf)
    lost = [each for each in found if each.wrong is not None]
    told = f"{len(found)} versions made {sum(each.inferences for each in found)} inferences, all at hand"
    return [
        (
            f"past model {each.model}",
            "FAILS",
            f"{each.inferences} inferences cannot be scored again, manifest {each.digest[:16]}: {each.wrong}",
        )
        for each in lost
    ] or [("past models", "ok", told if found else "nothing was inferred yet")]


def _kept(parts: Any, settings: Any) -> list[tuple[str, str, str]]:
    """How keys stand at rest."""
    if parts.store.vault.keys.under_master:
        return [("keys at rest", "ok", f"sealed under {settings.master.name}")]
    if settings.master is not None:
        return [("keys at rest", "LOOK", "[master_key] is configured, and seals nothing yet: cds keys master seal")]
    return [("keys at rest", "LOOK", "keys.db opens everything: no [master_key] seals it")]


def _anchored(parts: Any, settings: Any) -> list[tuple[str, str, str]]:
    """Whether receipts of anchors are of the heads that they stand under."""
    from cds_server.anchors import receipts, wrong_receipts
    from models.errors import CdsError

    kept = receipts(parts.store.reads)
    if not kept:
        return []
    try:
        wrong = wrong_receipts(parts.store.reads, settings.anchors)
    except CdsError as error:
        return [("anchors", "LOOK", error.what)]
    told = f"{len(kept)} receipts, the newest over {kept[-1].size} entries"
    return [("anchors", "FAILS" if wrong else "ok", f"at {wrong[0][0]} entries: {wrong[0][1]}" if wrong else told)]


def _pulls(parts: Any, settings: Any) -> list[tuple[str, str, str]]:
    """Of each source that is pulled: whether we could sign in, and what became of its last run."""
    from cds_server.bulk_sources import bulk_sources
    from cds_server.jobs import pull_states
    from cds_server.keys import KeySigner

    found = []
    runs = {each.source: (each.cursor, each.states) for each in pull_states(parts.store)}
    for name, source in bulk_sources(settings).items():
        check = f"source {name}"
        if source.client_id is not None and not KeySigner(parts.store, source.registration).algorithms():
            meant = f" --for {source.registration}" if source.registration else ""
            found.append((check, "FAILS", f"there is no key to sign with: cds keys new{meant}"))
            continue
        cursor, states = runs.get(name, (None, {}))
        found.append((check, *_last_run(cursor, states)))
    for each in settings.sources:
        if each.kind == "dicom":
            found.append((f"source {each.name}", *_last_run(*runs.get(each.name, (None, {})))))
    return found


def _last_run(cursor: str | None, states: dict[str, int]) -> tuple[str, str]:
    if not states:
        return "ok", "never pulled"
    told = ", ".join(f"{count} {state}" for state, count in states.items())
    bad = not states.keys().isdisjoint({"done with faults", "failed", "cancelled", "partial"})
    return "LOOK" if bad else "ok", told + (f"; pulled up to {cursor[:19]}" if cursor else "")


def _sending(parts: Any, settings: Any) -> list[tuple[str, str, str]]:
    """Of each destination: what waits for it, and whether its configuration can be used."""
    if not settings.destinations:
        return []
    from cds_server.destinations import check
    from cds_server.outbox import waiting
    from models.errors import Misconfigured

    found = []
    try:
        check(settings)
    except Misconfigured as error:
        found.append(("destinations", "FAILS", str(error)))
    for each in waiting(parts.store, [each.name for each in settings.destinations]):
        told = f"{each.waiting} waiting, {each.parked} refused"
        if each.oldest:
            told += f"; the oldest since {each.oldest[:19]}"
        told += f"; last yes {each.heard[:19]}" if each.heard else "; no yes yet"
        if each.trouble:
            told += f"; {each.trouble}"
        found.append((f"destination {each.destination}", "LOOK" if each.trouble or each.parked else "ok", told))
    return found


def _clock(last: str | None) -> tuple[str, str, str]:
    from cds_server.decisions import now

    if last is not None and last > now():
        return ("clock", "FAILS", "the last entry of the log lies in the future: set the clock")
    return ("clock", "ok", "not behind the log")
