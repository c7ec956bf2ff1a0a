"""`cds ledger`"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cds_server.commands.access import export_fhir, reviewed, spanned
from cds_server.commands.guiding import export_inferences
from cds_server.commands.opening import actor_of, common, emit, existing, settings_of, store_of, table

if TYPE_CHECKING:
    from cds_server.ledger.verify import Finding
    from cds_server.settings import Settings

NAME = "ledger"
HELP = "the log: check it, sign its head, prove an entry, hand it over to an auditor"


def arguments(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    verify = verbs.add_parser("verify", help="walk the log; exit code 1 and a sentence for each thing that is wrong")
    verify.add_argument("--deep", action="store_true", help="check canonical form and the bytes of every landing too")
    verify.add_argument("--log-only", action="store_true", help="entries, chain, tree and checkpoints, not the rows")
    verify.add_argument("--key", action="append", default=[], help="public key of the log as you kept it (else: ours)")
    verify.add_argument(
        "--checkpoint",
        action="append",
        default=[],
        metavar="FILE",
        help="a checkpoint that you kept: hold the log to it",
    )
    common(verify)
    sign = verbs.add_parser("checkpoint", help="sign the head, if the log only grew, and have witnesses sign it")
    sign.add_argument("--since", type=int, metavar="N", help="print the proof of growth from N entries instead")
    sign.add_argument("--out", metavar="FILE", help="write it to a file")
    common(sign)
    prove = verbs.add_parser("prove", help="the offline proof of an entry, by its number or by a card's uuid")
    prove.add_argument("named", metavar="SEQ|CARD")
    prove.add_argument("--out", metavar="FILE", required=True, help="where to write the .tlog-proof")
    common(prove)
    export = verbs.add_parser("export", help="entries, tree, checkpoints, keys and verifier, for an auditor; no PHI")
    export.add_argument("--out", metavar="DIR", required=True, help="a new or empty folder")
    export.add_argument(
        "--format",
        choices=("log", "fhir", "fhir-inferences"),
        default="log",
        help="fhir: who saw what, as AuditEvent (IHE BALP) and Provenance; fhir-inferences: what was concluded, as "
        "NDJSON of RiskAssessment, GuidanceResponse, Provenance; both name patients",
    )
    export.add_argument("--pseudonymous", action="store_true", help="with fhir: patients by random references only")
    spanned(export)
    common(export)
    report = verbs.add_parser("report", help="for a reviewer: top readers, after hours, broken glass, refusals")
    spanned(report)
    common(report)
    keys = verbs.add_parser("keys", help="the public keys that auditors and witnesses need")
    keys.add_argument("--rotate", action="store_true", help="make a new key, handed over to by the old one")
    common(keys)
    sample = verbs.add_parser("audit", help="score some past inferences again, drawn by a seed, and compare bits")
    sample.add_argument("--sample", type=int, required=True, metavar="N", help="how many")
    sample.add_argument("--seed", metavar="TEXT", help="the same seed draws the same ones (default: a new one)")
    sample.add_argument("--since", metavar="T", help="made at this instant or later (RFC 3339, or a date)")
    common(sample)
    common(verbs.add_parser("anchor", help="hand the newest signed head to each [[anchor]], now; and list receipts"))
    give_up = verbs.add_parser(
        "break", help="after a restore that lost signed entries: go on under another origin, on record"
    )
    give_up.add_argument("--reason", metavar="TEXT", required=True)
    common(give_up)


def run(args: argparse.Namespace) -> int:
    settings = settings_of(args)
    existing(settings)
    return {
        "verify": _verify,
        "checkpoint": _checkpoint,
        "prove": _prove,
        "export": {"fhir": export_fhir, "fhir-inferences": export_inferences}.get(getattr(args, "format", ""), _export),
        "report": reviewed,
        "keys": _keys,
        "audit": _audit,
        "break": _break,
        "anchor": _anchor,
    }[args.verb](args, settings)


def _verify(args: argparse.Namespace, settings: Settings) -> int:
    from cds_server.audit import audit
    from cds_server.ledger.verifier import Wrong, parse_key
    from models.errors import BadInput

    try:
        report = audit(
            settings.data_dir,
            settings.database_url,
            deep=args.deep,
            rows=not args.log_only,
            keys=[parse_key(key) for key in args.key],
            notes=[Path(name).read_bytes() for name in args.checkpoint],
        )
    except Wrong as wrong:
        raise BadInput(str(wrong), where="--key, --checkpoint") from None
    report = replace(report, findings=(*report.findings, *_receipts(settings)))
    result: dict[str, Any] = {
        "entries": report.entries,
        "head": report.head,
        "signed": report.signed,
        "ok": not report.findings,
        "findings": [str(f) for f in report.findings],
    }
    signed = f", signed up to {report.signed}" if report.signed else ", never signed"
    lines = [
        f"{report.entries} entries{signed}, head {report.head[:16]}…: "
        + ("the log verifies" if not report.findings else "THE LOG DOES NOT VERIFY")
    ]
    emit(args, result, "\n".join([*lines, *map(str, report.findings)]))
    return 1 if report.findings else 0


def _receipts(settings: Settings) -> list[Finding]:
    """What is wrong with receipts of anchors."""
    from cds_server.anchors import wrong_receipts
    from cds_server.ledger.verify import Finding
    from cds_server.store.engine import Database
    from cds_server.store.reads import Reads
    from cds_server.store.vault import Vault

    database = Database(settings.database_url, settings.data_dir)
    try:  # without any key, as the log itself
        reads = Reads(database, Vault.closed())
        return [Finding(size, what) for size, what in wrong_receipts(reads, settings.anchors)]
    finally:
        database.close()


def _anchor(args: argparse.Namespace, settings: Settings) -> int:
    from cds_server.anchors import Anchoring, receipts, state_of
    from cds_server.checkpoints import Checkpoints, states
    from cds_server.http import authorities

    with store_of(settings) as store:
        checkpoints = Checkpoints(store, settings.public_url)
        checkpoints.make(actor_of(args, settings))
        trust = authorities(settings.ca_file)
        done = {each.name: Anchoring(store, checkpoints, each, trust).submit() for each in settings.anchors}
        said = states(store)
        kept = [
            {"size": each.size, "anchor": each.anchor, "kind": each.kind, "at": each.at, "bytes": len(each.receipt)}
            for each in receipts(store.reads)
        ]
    wrong = [f"{each.name}: {said[state_of(each)][0]}" for each in settings.anchors if not done[each.name]]
    columns = ["size", "anchor", "kind", "at", "bytes"]
    told = table(columns, [[str(row[column]) for column in columns] for row in kept]) if kept else "no receipt yet"
    emit(args, {"anchors": done, "receipts": kept}, "\n".join([told, *wrong]))
    return 0 if not wrong else 3


def _checkpoint(args: argparse.Namespace, settings: Settings) -> int:
    from cds_server.checkpoints import Checkpoints, say, states
    from cds_server.http import authorities
    from cds_server.keeper import SIGNING
    from cds_server.proving import growth
    from cds_server.witnesses import Witnessing, name_of
    from models.errors import LedgerBroken, NotFound

    with store_of(settings) as store:
        checkpoints = Checkpoints(store, settings.public_url)
        try:
            checkpoints.make(actor_of(args, settings))
        except LedgerBroken as error:
            say(store, SIGNING, error.what)
            raise
        say(store, SIGNING, "")
        trust = authorities(settings.ca_file) if settings.witnesses else True
        said = {each.name: Witnessing(store, checkpoints, each, trust).submit() for each in settings.witnesses}
        signed = checkpoints.last()
        if signed is None:
            raise NotFound("the log is empty: there is nothing to sign")
        content = growth(checkpoints, signed, args.since) if args.since is not None else signed.note
        wrong = [
            f"{each.name}: {states(store)[name_of(each)][0]}" for each in settings.witnesses if not said[each.name]
        ]
    if args.out:
        Path(args.out).write_bytes(content)
    head = {"size": signed.checkpoint.size, "origin": signed.checkpoint.origin, "root": signed.checkpoint.root.hex()}
    told = f"{signed.checkpoint.size} entries signed; written to {args.out}" if args.out else content.decode().rstrip()
    emit(args, {**head, "witnesses": said, "note": content.decode()}, "\n".join([told, *wrong]))
    return 0 if not wrong else 3


def _prove(args: argparse.Namespace, settings: Settings) -> int:
    from cds_server.checkpoints import Checkpoints
    from cds_server.proving import entry_of, prove

    with store_of(settings) as store:
        checkpoints, seq = Checkpoints(store, settings.public_url), entry_of(store, args.named)
        last = checkpoints.last()
        if last is None or last.checkpoint.size < seq:
            checkpoints.make(actor_of(args, settings))
        proof = prove(store, checkpoints, seq)
    Path(args.out).write_bytes(proof)
    emit(args, {"seq": seq, "bytes": len(proof)}, f"proof of entry {seq} ({len(proof)} bytes) written to {args.out}")
    return 0


def _export(args: argparse.Namespace, settings: Settings) -> int:
    from cds_server.checkpoints import Checkpoints
    from cds_server.proving import export

    with store_of(settings) as store:
        checkpoints = Checkpoints(store, settings.public_url)
        checkpoints.make(actor_of(args, settings))
        signed = export(store, checkpoints, Path(args.out))
    told = f"{signed.checkpoint.size} entries exported; check them elsewhere: python {args.out}/verifier.py {args.out}"
    emit(args, {"entries": signed.checkpoint.size}, f"{told} --key KEY, with the key that the auditor has from before")
    return 0


def _audit(args: argparse.Namespace, settings: Settings) -> int:
    from secrets import token_hex

    from cds_server.checkpoints import Checkpoints
    from cds_server.commands.opening import parts_of
    from cds_server.commands.patient import as_of
    from cds_server.sampled import audit_sample, said
    from models.errors import Misconfigured

    if args.sample < 1:
        raise Misconfigured("--sample is a number above 0")
    actor, since = actor_of(args, settings), as_of(args.since, "--since", end=False) if args.since else None
    with parts_of(settings, actor) as parts:
        checkpoints = Checkpoints(parts.store, settings.public_url)
        found = audit_sample(
            parts.store, parts.registry, checkpoints, args.sample, args.seed or token_hex(8), since, actor
        )
    emit(args, found.plain(), said(found))
    return 0 if found.ok else 1


def _keys(args: argparse.Namespace, settings: Settings) -> int:
    from cds_server.checkpoints import Checkpoints

    with store_of(settings) as store:
        checkpoints = Checkpoints(store, settings.public_url)
        if args.rotate or not checkpoints.signing_keys():
            checkpoints.rotate(actor_of(args, settings))
        keys = [str(key) for key in checkpoints.signing_keys()]
    emit(args, {"keys": keys, "signs": keys[-1]}, "\n".join(keys))
    return 0


def _break(args: argparse.Namespace, settings: Settings) -> int:
    from cds_server.checkpoints import Checkpoints

    with store_of(settings) as store:
        checkpoints = Checkpoints(store, settings.public_url)
        key = checkpoints.give_up(args.reason, actor_of(args, settings))
        signed = checkpoints.make(actor_of(args, settings))
    size = signed.checkpoint.size if signed else 0
    told = f"the log goes on, on record, as {key.name} ({size} entries signed)"
    emit(args, {"key": str(key), "size": size}, f"{told}\ngive every witness and auditor this key: {key}")
    return 0
