"""`cds keys`"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from cds_server.commands.opening import actor_of, common, emit, existing, settings_of, store_of, table

if TYPE_CHECKING:
    from cds_server.settings import Settings
    from cds_server.store.store import Store

NAME = "keys"
HELP = "our signing keys: make, list, retire; their public halves stand at /.well-known/jwks.json, private ones nowhere"


def arguments(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    new = verbs.add_parser("new", help="make a key; beside an older one it signs after a day, when peers know it")
    new.add_argument("--alg", choices=("RS384", "ES384"), help="default: as the registration's other keys, or RS384")
    new.add_argument(
        "--for",
        dest="registration",
        metavar="REGISTRATION",
        help="a set of its own, with one type of key, at /.well-known/jwks/REGISTRATION.json",
    )
    common(new)
    common(verbs.add_parser("list", help="every key, whether it signs, and when it was made and retired"))
    master = verbs.add_parser("master", help="the master key that seals all keys at rest: make, use, change")
    steps = master.add_subparsers(dest="step", metavar="STEP", required=True)
    fresh = steps.add_parser("new", help="write a new master key to a file for [master_key]")
    fresh.add_argument("file", metavar="FILE", help="a file that is not there yet; keep a copy in another place")
    common(fresh)
    common(steps.add_parser("seal", help="seal the keys of this instance under [master_key]; stop the server first"))
    rotate = steps.add_parser("rotate", help="from the master key of the configuration to another; touches no object")
    to = rotate.add_mutually_exclusive_group(required=True)
    to.add_argument("--to-file", metavar="FILE", help="a file with the other key")
    to.add_argument("--to-command", metavar="COMMAND", help="the other KMS's command, with its arguments")
    common(rotate)
    seal_file = steps.add_parser("seal-file", help="seal a secret's file (a client secret, a token) under [master_key]")
    seal_file.add_argument("file", metavar="FILE", help="what a `…_file` of the configuration names; it is replaced")
    common(seal_file)
    common(steps.add_parser("show", help="whether the keys are sealed, and by what"))
    retire = verbs.add_parser("retire", help="from now on it neither signs nor is published")
    retire.add_argument("kid", metavar="KID")
    common(retire)


def run(args: argparse.Namespace) -> int:
    from datetime import UTC, datetime

    from cds_server.keys import Keys, path_of, told

    if args.verb == "master":
        return _master(args)
    settings = settings_of(args)
    if args.verb != "new":
        existing(settings)
    actor = actor_of(args, settings)
    with store_of(settings) as store:
        keys = Keys(store)
        if args.verb == "retire":
            seq = keys.retire(args.kid, actor)
            emit(args, {"kid": args.kid, "state": "retired", "seq": seq}, f"{args.kid} retired (entry {seq})")
            return 0
        made = keys.new(args.registration, actor, args.alg) if args.verb == "new" else None
        every = keys.all()
        listed = [told(key, every, datetime.now(UTC)) for key in every]
    if made is not None:
        found = next(each for each in listed if each["kid"] == made.kid)
        url = (settings.public_url or "").rstrip("/") + path_of(made.registration)
        emit(args, {**found, "jwks": url}, f"{made.kid} ({made.alg}, {found['state']}), in the set {url}")
        return 0
    columns = ("kid", "alg", "registration", "state", "made_at", "retired_at")
    rows = [[str(each[column] or "-") for column in columns] for each in listed]
    emit(args, listed, table(list(columns), rows) if rows else "no key was made yet: cds keys new")
    return 0


def _master(args: argparse.Namespace) -> int:
    """Another master key is an entry, made before it is used: what it opens is the same."""
    import os
    import shlex
    from pathlib import Path

    from cds_server.master_key import HookMaster, from_file, new_text
    from cds_server.serve import only_one
    from cds_server.store.key_store import KeyStore, Master
    from models.errors import Misconfigured

    if args.step == "new":
        handle = os.open(args.file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w", encoding="ascii") as file:
            file.write(new_text() + "\n")
        told = f"a new master key stands in {args.file}: without it nothing sealed under it can ever be read again"
        emit(args, {"file": args.file}, told)
        return 0
    settings = settings_of(args)
    if args.step == "seal-file":
        return _seal_file(args, settings)
    existing(settings)
    with store_of(settings) as store:
        keys = store.vault.keys
        if not isinstance(keys, KeyStore):
            raise AssertionError("a store that is open has its keys")
        by = settings.master.name if settings.master and keys.under_master else None
        if args.step == "show":
            told = f"{keys.count()} keys, sealed under {by}" if by else f"{keys.count()} keys, in the clear"
            emit(args, {"keys": keys.count(), "sealed_under": by}, told)
            return 0
        if settings.master is None:
            raise Misconfigured(f"there is no [master_key] in {settings.origin}", where="master_key")
        if args.step == "seal":
            if keys.under_master:
                raise Misconfigured("the keys are sealed under a master key already: cds keys master rotate")
            with only_one(settings):
                _entry(store, actor_of(args, settings), "seal", settings.master.name)
                count = keys.seal_under(settings.master)
            told = f"{count} keys sealed under {settings.master.name}; start every process of this instance anew"
            emit(args, {"keys": count, "sealed_under": settings.master.name}, told)
            return 0
        other: Master = (
            from_file(Path(args.to_file), "--to-file")
            if args.to_file
            else HookMaster(tuple(shlex.split(args.to_command)))
        )
        _entry(store, actor_of(args, settings), "rotate", other.name)
        keys.rewrap(settings.master, other)
    told = f"the keys are sealed under {other.name} now: put it into [master_key] before a process starts"
    emit(args, {"sealed_under": other.name}, told)
    return 0


def _seal_file(args: argparse.Namespace, settings: Settings) -> int:
    """After a rotation the file has to be sealed anew: keep the secret where it came from."""
    import base64
    from pathlib import Path

    from cds_server.checkpoints import replace
    from cds_server.configured import SEALED
    from models.errors import Misconfigured

    path = Path(args.file)
    secret = path.read_text(encoding="utf-8").strip()
    if settings.master is None:
        raise Misconfigured(f"there is no [master_key] in {settings.origin}", where="master_key")
    if not secret or secret.startswith(SEALED):
        raise Misconfigured("the file is empty, or sealed already", where=path.name)
    wrapped = settings.master.wrap(secret.encode())
    replace(path, f"{SEALED}{base64.b64encode(wrapped).decode()}\n".encode())
    path.chmod(0o600)
    emit(args, {"file": args.file}, f"{args.file} is sealed under {settings.master.name}")
    return 0


def _entry(store: Store, actor: str, step: str, name: str) -> None:
    store.writer.submit(lambda tx: tx.entry("master-key", actor, {"step": step, "by": name}).seq).result()
