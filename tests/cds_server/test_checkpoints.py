"""Signed heads: made where the log only grew, refused where it did not, and every attack named, on both databases."""

from __future__ import annotations

import dataclasses
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cds_server.audit import Report, audit
from cds_server.checkpoints import FILE, Checkpoints, replace, say, states
from cds_server.clock_steps import Clock
from cds_server.keeper import Keeper, sign
from cds_server.ledger import verifier
from cds_server.ledger.entry import GENESIS, Entry, chain_hash, seal_entry
from cds_server.ledger.tree import leaf_hash
from cds_server.ledger.verifier import (
    Key,
    Wrong,
    open_checkpoint,
    parse_growth,
    parse_note,
    parse_proof,
)
from cds_server.ledger.verify import walk
from cds_server.ledger_doors import LedgerWatch
from cds_server.proving import entry_of, growth, prove
from cds_server.settings import Settings
from cds_server.store.store import Store
from cds_server.store.tiles import Tiles
from cds_server.store.writer import Tx
from models.errors import Conflict, LedgerBroken, Misconfigured, NotFound, TooLarge
from tests.cds_server.stores import ACTOR, stop_row

URL = "https://cds.example.org"


def act(store: Store, times: int = 1) -> None:
    for waiting in [store.writer.submit(stop_row) for _ in range(times)]:
        waiting.result()


def owner(store: Store, *statements: str, parameters: tuple[object, ...] = ()) -> None:
    """Run statements as somebody who owns the database: triggers and grants gone."""
    with store.database.engine.begin() as connection:
        for statement in statements:
            for table in re.findall(r"(?:UPDATE|FROM|INTO) (\w+)", statement):
                if store.database.sqlite:
                    for verb in ("update", "delete"):
                        connection.exec_driver_sql(f"DROP TRIGGER IF EXISTS {table}_no_{verb}")
                else:
                    connection.exec_driver_sql(f"DROP TRIGGER IF EXISTS {table}_insert_only ON {table}")
                    connection.exec_driver_sql(f"DROP TRIGGER IF EXISTS {table}_let_go ON {table}")
                    connection.exec_driver_sql(f"GRANT ALL ON {table} TO CURRENT_USER")
            connection.exec_driver_sql(store.database.sql(statement), parameters)


def rechain(store: Store, seq: int) -> None:
    """The attack that a chain alone does not notice: edit an entry, and compute everything after it anew."""
    entries = list(store.reads.entries())
    chain = entries[seq - 2].chain if seq > 1 else GENESIS
    for entry in entries[seq - 1 :]:
        body = entry.body.replace(b"user:test", b"user:evil") if entry.seq == seq else entry.body
        leaf = leaf_hash(body)
        chain = chain_hash(chain, leaf)
        owner(
            store,
            "UPDATE ledger_entry SET body = ?, leaf = ?, chain = ? WHERE seq = ?",
            parameters=(body, leaf, chain, entry.seq),
        )


@pytest.fixture
def log(data_dir: Path, url: str) -> Callable[[], Report]:
    """What a check says about the log alone."""
    return lambda: audit(data_dir, url, rows=False)


def told(report: Report) -> list[str]:
    return list(map(str, report.findings))


# ---- growth ----------------------------------------------------------------------------------------------------------


def test_heads_are_signed_as_the_log_grows(store: Store, data_dir: Path, url: str) -> None:
    checkpoints = Checkpoints(store, URL)
    assert checkpoints.make() is None  # nothing to sign
    assert checkpoints.lag() == (0, 0.0)
    act(store, 300)
    assert checkpoints.lag()[0] == 300
    first = checkpoints.make()
    assert first is not None
    assert first.checkpoint.size == 301  # with the entry of the key
    assert first.checkpoint.origin == f"cds.example.org/cds/{store.instance}"
    assert checkpoints.make() is None  # a checkpoint is no entry: it asks for no other
    assert open_checkpoint((data_dir / FILE).read_bytes(), checkpoints.signing_keys()) == first.checkpoint
    act(store, 700)
    other = Checkpoints(store, URL)  # of another process
    second = other.make()
    assert second is not None
    assert second.checkpoint.size == 1001
    old, hashes, note = parse_growth(growth(other, second, 301))
    verifier.verify_consistency(old, first.checkpoint.root, 1001, second.checkpoint.root, hashes)
    assert note == second.note
    for seq in (1, 256, 257, 768, 769, 1001):
        proof = parse_proof(prove(store, other, seq))
        assert proof.body is not None
        verifier.verify_inclusion(leaf_hash(proof.body), seq - 1, 1001, second.checkpoint.root, proof.hashes)
    assert store.reads.query("SELECT level, number FROM ledger_tile ORDER BY level, number") == [(0, 0), (0, 1), (0, 2)]
    report = audit(data_dir, url)
    assert (report.findings, report.signed) == ((), 1001)
    with pytest.raises(NotFound):
        prove(store, other, 1002)
    act(store)
    with pytest.raises(NotFound, match="no checkpoint covers"):
        prove(store, other, 1002)


def test_a_new_key_is_handed_over_to_and_both_sign(store: Store) -> None:
    checkpoints = Checkpoints(store, URL)
    act(store)
    checkpoints.make()
    (old,) = checkpoints.signing_keys()
    new = checkpoints.rotate(ACTOR)
    signed = checkpoints.make()
    assert signed is not None
    assert open_checkpoint(signed.note, [old]) == open_checkpoint(signed.note, [new]) == signed.checkpoint
    trusted = [old]
    (handover,) = store.reads.query("SELECT handover FROM ledger_key WHERE handover IS NOT NULL")
    verifier.follow(bytes(handover[0]), trusted)
    assert trusted == [old, new]
    third = checkpoints.rotate(ACTOR)
    act(store)
    signed = checkpoints.make()
    assert signed is not None
    assert {key_id for _, key_id, _ in parse_note(signed.note).signatures} == {new.id, third.id}


def test_the_private_key_is_not_in_the_database(store: Store, data_dir: Path) -> None:
    checkpoints = Checkpoints(store, URL)
    act(store)
    checkpoints.make()
    seed = store.vault.key(b"c" + checkpoints.signing_keys()[0].raw)
    assert seed is not None
    assert len(seed) == 32
    for path in data_dir.rglob("cds.db*"):
        assert seed not in path.read_bytes()


def test_a_card_and_an_inference_name_their_entry(store: Store) -> None:
    assert entry_of(store, "17") == 17
    for unknown in ("3f8e4d5c-0000-4000-8000-000000000000", "x", "-1", ""):
        with pytest.raises(NotFound):
            entry_of(store, unknown)


# ---- what must not be signed -----------------------------------------------------------------------------------------


def signed_log(data_dir: Path, url: str, entries: int = 20) -> tuple[Store, Checkpoints]:
    store = Store.open(data_dir, url)
    checkpoints = Checkpoints(store, URL)
    act(store, entries)
    assert checkpoints.make() is not None
    return store, checkpoints


def refused(store: Store) -> str:
    with pytest.raises(LedgerBroken) as error:
        Checkpoints(store, URL).make()
    return error.value.what


def test_an_edited_entry_is_named_before_it_is_signed(data_dir: Path, url: str, log: Callable[[], Report]) -> None:
    store, _ = signed_log(data_dir, url)
    act(store, 5)
    owner(store, "UPDATE ledger_entry SET body = ? WHERE seq = 24", parameters=(b'{"seq":24,"v":1}',))
    assert refused(store).startswith("entry 24: its body was edited")
    assert told(log())[0].startswith("entry 24: its body was edited")
    store.close()


def test_an_edited_byte_under_a_signed_head_is_named(data_dir: Path, url: str, log: Callable[[], Report]) -> None:
    store, _ = signed_log(data_dir, url)
    body = store.reads.query("SELECT body FROM ledger_entry WHERE seq = 7")[0][0]
    owner(
        store,
        "UPDATE ledger_entry SET body = ? WHERE seq = 7",
        parameters=(bytes(body).replace(b"user:test", b"user:tesu"),),
    )
    assert told(log())[0] == "entry 7: its body was edited (the leaf hash differs)"
    store.close()


def test_a_deleted_entry_is_named(data_dir: Path, url: str, log: Callable[[], Report]) -> None:
    store, _ = signed_log(data_dir, url)
    owner(store, "DELETE FROM ledger_entry WHERE seq = 9")
    assert told(log())[0] == "entry 10: entry 9 is missing"
    act(store)
    assert "entry 9" in refused(store)
    store.close()


def test_a_cut_off_end_is_noticed_by_what_was_signed(data_dir: Path, url: str, log: Callable[[], Report]) -> None:
    store, _ = signed_log(data_dir, url)
    owner(store, "DELETE FROM ledger_entry WHERE seq > 15", "DELETE FROM ledger_checkpoint", "DELETE FROM ledger_key")
    what = told(log())
    assert len(what) == 1  # its keys are gone, too: only whoever kept one can say more
    assert "not one of this log" in what[0]
    store.close()


def test_a_cut_off_end_is_named(data_dir: Path, url: str, log: Callable[[], Report]) -> None:
    store, _ = signed_log(data_dir, url)
    owner(store, "DELETE FROM ledger_entry WHERE seq > 15", "DELETE FROM ledger_checkpoint")
    assert told(log()) == ["entry 16: it is missing: 21 entries were signed, the end was cut off"]
    assert refused(store).startswith("entry 16: 21 entries were signed, and the log has 15")
    store.close()


def test_swapped_entries_are_named(data_dir: Path, url: str, log: Callable[[], Report]) -> None:
    store, _ = signed_log(data_dir, url)
    owner(
        store,
        "UPDATE ledger_entry SET seq = 1000 WHERE seq = 5",
        "UPDATE ledger_entry SET seq = 5 WHERE seq = 6",
        "UPDATE ledger_entry SET seq = 6 WHERE seq = 1000",
    )
    found = told(log())
    assert "entry 5: its body says that it is entry 6: reordered" in found
    assert found[0].startswith("entry 5: ")
    store.close()


@pytest.mark.parametrize("entries", [20, 600])
def test_a_log_that_was_chained_anew_is_found_and_not_signed(
    entries: int, data_dir: Path, url: str, log: Callable[[], Report]
) -> None:
    """Section 4's attack: a chain says that all is well; what was signed before says which entries are not."""
    store, checkpoints = signed_log(data_dir, url, entries)
    act(store, 10)
    checkpoints.make()
    rechain(store, 11)
    assert not list(walk([store.reads.query("SELECT seq, body, leaf, chain FROM ledger_entry ORDER BY seq")], id))
    found = told(log())
    act(store)
    if entries == 20:
        assert found == ["entry 1: this or one up to entry 21 is not the one that was signed: the log was written anew"]
        assert refused(store).startswith("entries 1 to 31: one of them is not the one that was signed")
    else:  # a full tile names it
        assert found[0] == "entry 11: it is not the one that stands in the tree: it was replaced"
        assert refused(store) == "entry 11: it is not the one that stands in the tree: it was replaced"
    owner(store, "DELETE FROM ledger_tile", "DELETE FROM ledger_checkpoint")  # and somebody more thorough
    assert told(log())[0].startswith("entry 1: this or one up to entry")
    assert "not the one that was signed" in refused(store)
    store.close()


def test_a_pinned_key_and_a_kept_checkpoint_convince_who_trusts_nothing_here(data_dir: Path, url: str) -> None:
    store, checkpoints = signed_log(data_dir, url)
    (key,), kept = checkpoints.signing_keys(), (data_dir / FILE).read_bytes()
    rechain(store, 3)
    owner(store, "DELETE FROM ledger_checkpoint", "DELETE FROM ledger_key")
    (data_dir / FILE).unlink()
    assert audit(data_dir, url, rows=False).findings == ()  # nothing is left here that could say so
    (finding,) = audit(data_dir, url, rows=False, keys=[key], notes=[kept]).findings
    assert str(finding).startswith("entry 1: this or one up to entry 21 is not the one that was signed")
    with pytest.raises(Wrong):
        audit(data_dir, url, rows=False, keys=[Key(key.name, key.kind, bytes(32))], notes=[kept])
    store.close()


def test_a_checkpoint_of_another_log_is_refused(data_dir: Path, url: str, tmp_path: Path) -> None:
    elsewhere = Store.open(tmp_path / "other", f"sqlite:///{tmp_path / 'other' / 'cds.db'}")
    act(elsewhere, 2)
    assert Checkpoints(elsewhere, URL).make()
    store, _ = signed_log(data_dir, url)
    replace(data_dir / FILE, (tmp_path / "other" / FILE).read_bytes())
    assert "it is of another log" in refused(store)
    assert "not one of this log" in told(audit(data_dir, url, rows=False))[0]
    elsewhere.close()
    store.close()


def test_a_forged_checkpoint_in_the_database_is_named(data_dir: Path, url: str, log: Callable[[], Report]) -> None:
    store, _ = signed_log(data_dir, url)
    owner(store, "UPDATE ledger_checkpoint SET note = ?", parameters=(b"x\n21\nAAAA\n\n\xe2\x80\x94 x AAAAAAAA\n",))
    assert told(log())[0].startswith("entry 21: the checkpoint at this entry: ")
    store.close()


# ---- breaks ----------------------------------------------------------------------------------------------------------


def test_an_older_copy_is_not_signed_until_an_operator_says_so_on_record(data_dir: Path, tmp_path: Path) -> None:
    url = f"sqlite:///{data_dir / 'cds.db'}"
    store, checkpoints = signed_log(data_dir, url)
    store.close()
    shutil.copyfile(data_dir / "cds.db", tmp_path / "older.db")
    store, checkpoints = Store.open(data_dir, url), checkpoints
    act(store, 5)
    Checkpoints(store, URL).make()
    store.close()
    for left in data_dir.glob("cds.db*"):
        left.unlink()
    shutil.copyfile(tmp_path / "older.db", data_dir / "cds.db")
    store = Store.open(data_dir, url)
    assert refused(store).startswith("entry 22: 26 entries were signed, and the log has 21: an older copy")
    act(store, 30)  # it goes on, and grows beyond what was signed
    what = refused(store)
    assert what.startswith("entries 22 to 26: one of them is not the one that was signed: another copy")
    assert "cds ledger break --reason TEXT" in what
    checkpoints = Checkpoints(store, URL)
    with pytest.raises(Misconfigured):
        checkpoints.give_up("  ", ACTOR)
    key = checkpoints.give_up("disk of the server lost, backup of last night", ACTOR)
    assert key.name.endswith("#2")
    signed = checkpoints.make()
    assert signed is not None
    assert (signed.checkpoint.origin, signed.checkpoint.size) == (key.name, 52)
    assert (data_dir / f"{FILE}.given-up-26").exists()
    with pytest.raises(Conflict):
        checkpoints.give_up("again", ACTOR)
    kinds = [entry.body for entry in store.reads.entries() if b'"kind":"ledger-break"' in entry.body]
    assert len(kinds) == 1
    assert b'"size":26' in kinds[0]
    store.close()
    assert audit(data_dir, url, deep=True).findings == ()


def test_a_copy_without_the_file_is_not_signed_and_the_last_checkpoint_brings_it_back(data_dir: Path, url: str) -> None:
    store, checkpoints = signed_log(data_dir, url)
    kept = (data_dir / FILE).read_bytes()
    (data_dir / FILE).unlink()
    act(store)
    assert "the file `checkpoint` is missing" in refused(store)
    replace(data_dir / FILE, kept)
    assert Checkpoints(store, URL).make() is not None
    (data_dir / FILE).unlink()
    checkpoints.give_up("the machine is gone", ACTOR)
    assert checkpoints.make() is not None
    store.close()
    assert audit(data_dir, url, deep=True).findings == ()


def test_a_crash_between_the_database_and_the_file_is_no_break(store: Store, data_dir: Path) -> None:
    checkpoints = Checkpoints(store, URL)
    act(store)
    checkpoints.make()
    older = (data_dir / FILE).read_bytes()
    act(store)
    checkpoints.make()
    replace(data_dir / FILE, older)
    act(store)
    assert Checkpoints(store, URL).make() is not None


# ---- clock, size, form -----------------------------------------------------------------------------------------------


def entries_at(*times: tuple[str, int, str]) -> list[Entry]:
    """Entries with (time of day, monotonic seconds, process)."""
    found, previous = [], GENESIS
    for seq, (at, mono, boot) in enumerate(times, 1):
        found.append(
            seal_entry(
                seq,
                previous,
                kind="test",
                at=f"2026-01-01T{at}Z",
                actor=ACTOR,
                boot=boot,
                mono_ns=mono * 10**9,
                rows={},
                detail={},
            )
        )
        previous = found[-1].chain
    return found


@pytest.mark.parametrize(
    ("times", "steps"),
    [
        ([("00:00:00", 0, "a"), ("00:00:05", 5, "a"), ("00:00:06", 2, "b")], []),
        ([("00:00:00", 0, "a"), ("00:00:09", 5, "a")], [(2, 4000)]),
        ([("00:00:10", 0, "a"), ("00:00:05", 5, "a"), ("00:00:06", 6, "a")], [(2, -5000)]),
        ([("00:00:10", 0, "a"), ("00:00:07", 99, "b")], [(2, -3000)]),
        ([("00:00:00", 0, "a"), ("06:00:04", 21_600, "a")], []),  # put right slowly over six hours
    ],
)
def test_a_clock_that_jumps_is_named(times: list[tuple[str, int, str]], steps: list[tuple[int, int]]) -> None:
    clock = Clock()
    assert len(list(clock.watched(iter(entries_at(*times))))) == len(times)
    assert [(step["entry"], step["milliseconds"]) for step in clock.steps] == steps


def test_a_jump_becomes_an_entry_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoints = Checkpoints(store, URL)
    act(store, 2)

    def later(tx: Tx) -> None:
        tx.now = "2031-01-01T00:00:00.000000Z"
        stop_row(tx)

    store.writer.submit(later).result()
    checkpoints.make()
    steps = [entry for entry in store.reads.entries() if b'"kind":"clock_step"' in entry.body]
    assert [b'"entry":3' in entry.body for entry in steps] == [True, False]  # forwards, and back again
    for _ in range(2):
        checkpoints.make()
    assert sum(b'"kind":"clock_step"' in entry.body for entry in store.reads.entries()) == 2


def test_an_entry_that_no_bundle_can_carry_is_refused(store: Store) -> None:
    def large(tx: Tx) -> None:
        stop_row(tx, "x" * 65_000)

    def too_large(tx: Tx) -> None:
        stop_row(tx, "x" * 66_000)

    store.writer.submit(large).result()
    with pytest.raises(TooLarge):
        store.writer.submit(too_large).result()


def test_an_entry_in_another_form_is_found_by_the_walk() -> None:
    first, second = entries_at(("00:00:00", 0, "a"), ("00:00:01", 1, "a"))
    body = second.body.replace(b'"seq":2', b'"seq": 2')
    loose = Entry(2, body, leaf_hash(body), chain_hash(first.chain, leaf_hash(body)), b"")
    stored = [(each.seq, each.body, each.leaf, each.chain) for each in (first, loose)]
    assert [str(each) for each in walk([stored], id)] == []  # sound as it was signed; its form is what --deep checks
    third = Entry(2, b"{", leaf_hash(b"{"), chain_hash(first.chain, leaf_hash(b"{")), b"")
    stored[1] = (2, third.body, third.leaf, third.chain)
    assert [str(each) for each in walk([stored], id)] == ["entry 2: its body cannot be read"]


# ---- the tree that is kept -------------------------------------------------------------------------------------------


def test_a_gap_under_the_tree_is_named(store: Store) -> None:
    act(store, 3)
    with pytest.raises(LedgerBroken, match="entry 4: it is missing"):
        Tiles(store.reads).node(0, 3)


def test_how_it_goes_is_kept_and_changed(store: Store) -> None:
    say(store, "signing", "wrong")
    say(store, "signing", "wrong")
    assert states(store)["signing"][0] == "wrong"
    say(store, "signing", "")
    assert states(store)["signing"][0] == ""


def test_an_entry_that_stays_unsigned_is_a_warning_and_so_is_a_refusal(
    store: Store, settings: Settings, data_dir: Path
) -> None:
    checkpoints = Checkpoints(store, URL)
    assert sign(store, checkpoints)
    assert LedgerWatch(store, settings).warnings() == {}

    def long_ago(tx: Tx) -> None:
        tx.now = "2020-01-01T00:00:00.000000Z"
        stop_row(tx)

    store.writer.submit(long_ago).result()
    (what,) = LedgerWatch(store, settings).warnings().values()
    assert re.fullmatch(r"1 entries are not signed yet, the oldest for \d+ s", what)
    assert sign(store, checkpoints)
    kept = (data_dir / FILE).read_bytes()
    (data_dir / FILE).unlink()
    assert not sign(store, checkpoints)
    watch = LedgerWatch(store, settings)
    assert "the file `checkpoint` is missing" in watch.warnings()["checkpoint"]
    assert watch.figures()[2]
    replace(data_dir / FILE, kept)
    assert sign(store, checkpoints)
    assert not LedgerWatch(store, settings).figures()[2]


def test_a_keeper_signs_while_it_runs_and_stops(store: Store, settings: Settings) -> None:
    keeper = Keeper(store, dataclasses.replace(settings, checkpoint_seconds=1))
    act(store)
    keeper.start()
    try:
        give_up = time.monotonic() + 30
        while Checkpoints(store).last() is None:
            assert time.monotonic() < give_up
            time.sleep(0.05)
    finally:
        keeper.stop()
    by_hand = Keeper(store, dataclasses.replace(settings, checkpoint_seconds=0))
    by_hand.start()
    by_hand.stop()
