"""The log: its hashes against RFC 8785 and RFC 6962, and every way of tampering found and named."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from cds_server.audit import audit
from cds_server.ledger.entry import GENESIS, Cell, Entry, row_leaf, seal_entry
from cds_server.ledger.tree import EMPTY_ROOT, audit_path, leaf_hash, node_hash, root
from cds_server.ledger.verify import verify
from cds_server.store.store import Store
from tests.cds_server.stores import learn, patient, stop_row, weight

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
CELLS = st.none() | TEXT | st.integers(-(2**53) + 1, 2**53 - 1) | st.booleans() | st.binary()
NAMES = st.from_regex(r"[a-z_]{1,12}", fullmatch=True)


@given(table=NAMES, row=st.dictionaries(NAMES, CELLS))
def test_a_row_leaf_is_the_hash_of_its_canonical_json(table: str, row: dict[str, Cell]) -> None:
    cells = {name: cell.hex() if isinstance(cell, bytes) else cell for name, cell in row.items() if cell is not None}
    assert row_leaf(table, row) == hashlib.sha256(b"\x00" + rfc8785.dumps([table, cells])).digest()


# ---- the tree --------------------------------------------------------------------------------------------------------

VECTORS = [
    bytes.fromhex(leaf)
    for leaf in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f")
]
ROOTS = (
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
)
"""Certificate Transparency's own test vectors (google/certificate-transparency, merkle_tree_test.cc)."""


def recursive(leaves: Sequence[bytes]) -> bytes:
    """RFC 6962 section 2.1 as written."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    k = 1 << (len(leaves) - 1).bit_length() - 1
    return hashlib.sha256(b"\x01" + recursive(leaves[:k]) + recursive(leaves[k:])).digest()


def recursive_path(leaves: Sequence[bytes], m: int) -> list[bytes]:
    """RFC 6962 section 2.1.1 as written."""
    if len(leaves) == 1:
        return []
    k = 1 << (len(leaves) - 1).bit_length() - 1
    if m < k:
        return [*recursive_path(leaves[:k], m), recursive(leaves[k:])]
    return [*recursive_path(leaves[k:], m - k), recursive(leaves[:k])]


def test_the_known_roots() -> None:
    leaves = [leaf_hash(vector) for vector in VECTORS]
    assert EMPTY_ROOT.hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert tuple(root(leaves[:size]).hex() for size in range(1, 9)) == ROOTS
    assert node_hash(leaves[0], leaves[1]).hex() == ROOTS[1]


@given(st.integers(1, 70), st.data())
def test_root_and_audit_path_are_those_of_the_rfc(size: int, data: st.DataObject) -> None:
    leaves = [leaf_hash(n.to_bytes(4)) for n in range(size)]
    index = data.draw(st.integers(0, size - 1))
    assert root(leaves) == recursive(leaves)
    assert audit_path(leaves, index) == recursive_path(leaves, index)
    with pytest.raises(IndexError):
        audit_path(leaves, size)


# ---- entries ---------------------------------------------------------------------------------------------------------


def log(length: int) -> list[Entry]:
    entries, previous = [], GENESIS
    for seq in range(1, length + 1):
        at = f"2026-01-01T00:00:{seq:02}.000000Z"
        entry = seal_entry(
            seq, previous, kind="test", at=at, actor="user:test", boot="b", mono_ns=seq, rows={}, detail={"n": seq}
        )
        entries.append(entry)
        previous = entry.chain
    return entries


def said(entries: Sequence[Entry]) -> list[str]:
    return list(map(str, verify(entries, deep=True)))


def test_a_log_verifies() -> None:
    assert said(log(9)) == []


def test_a_missing_entry_is_named() -> None:
    entries = log(6)
    chain = "the chain breaks here: this entry or the one before was replaced, moved or removed"
    assert said([*entries[:2], *entries[3:]]) == ["entry 4: entry 3 is missing", f"entry 4: {chain}"]
    assert said([*entries[:2], *entries[5:]]) == ["entry 6: entries 3 to 5 are missing", f"entry 6: {chain}"]
    assert said(entries[1:])[0] == "entry 2: entry 1 is missing"


def test_swapped_entries_are_named() -> None:
    first, second, third = log(3)

    def numbered(entry: Entry, seq: int) -> Entry:
        return Entry(seq, entry.body, entry.leaf, entry.chain, entry.row_leaves)

    found = said([first, numbered(third, 2), numbered(second, 3)])
    assert "entry 2: its body says that it is entry 3: reordered" in found
    assert "entry 3: its body says that it is entry 2: reordered" in found


def test_an_edited_body_is_named_even_with_its_leaf_made_to_fit() -> None:
    first, second, third = log(3)
    body = second.body.replace(b"user:test", b"user:evil")
    assert said([first, Entry(2, body, second.leaf, second.chain, b""), third]) == [
        "entry 2: its body was edited (the leaf hash differs)"
    ]
    (finding,) = said([first, Entry(2, body, leaf_hash(body), second.chain, b""), third])
    assert finding.startswith("entry 2: the chain breaks here")
    loose = second.body.replace(b'":', b'": ')
    assert "entry 2: its body is not in canonical form" in said([first, Entry(2, loose, leaf_hash(loose), b"", b"")])
    assert "entry 2: its body cannot be read" in said([first, Entry(2, b"{", leaf_hash(b"{"), b"", b"")])


# ---- tampering with a real database ----------------------------------------------------------------------------------


@pytest.fixture
def tampered(data_dir: Path, url: str) -> Iterator[Callable[..., list[str]]]:
    """Gives a function: run statements as somebody who owns the database, triggers gone, then what `verify` says."""
    store = Store.open(data_dir, url)
    learn(store, patient("1"), *(weight(f"w{n}", "1", 60 + n) for n in range(5)))
    learn(store, weight("later", "1", 70))
    store.writer.submit(stop_row).result()

    def tamper(*statements: str) -> list[str]:
        with store.database.engine.begin() as connection:
            for statement in statements:
                table = re.findall(r"(?:UPDATE|FROM|INTO) (\w+)", statement)[0]
                if store.database.sqlite:
                    for verb in ("update", "delete"):
                        connection.exec_driver_sql(f"DROP TRIGGER IF EXISTS {table}_no_{verb}")
                else:
                    connection.exec_driver_sql(f"DROP TRIGGER IF EXISTS {table}_insert_only ON {table}")
                    connection.exec_driver_sql(f"DROP TRIGGER IF EXISTS {table}_let_go ON {table}")
                    connection.exec_driver_sql(f"GRANT ALL ON {table} TO CURRENT_USER")
                assert connection.exec_driver_sql(statement).rowcount > 0
        return list(map(str, audit(data_dir, url, deep=True).findings))

    assert audit(data_dir, url, deep=True).findings == ()
    yield tamper
    store.close()


E2 = 2 << 20
"""Rows of entry 2, the first digest, are E2 | n."""


def second_resource(data_dir: Path, url: str) -> int:
    store = Store.open(data_dir, url)
    try:
        return int(store.reads.query("SELECT id FROM resource ORDER BY id")[1][0])
    finally:
        store.close()


def test_an_edited_row_is_named(tampered: Callable[..., list[str]], data_dir: Path, url: str) -> None:
    row = second_resource(data_dir, url)
    assert tampered(f"UPDATE resource SET type = 'http://loinc.org|1' WHERE id = {row}") == [
        f"entry 2: row {row} of table resource was edited or added"
    ]


def test_an_edited_cell_of_each_kind_is_found(tampered: Callable[..., list[str]], data_dir: Path, url: str) -> None:
    found = tampered(
        "UPDATE landing SET size = size + 1 WHERE entry = 1",
        "UPDATE resource SET test = true WHERE type = 'Patient'",
        "UPDATE validation SET problems = 'x' WHERE entry = 4",
        "UPDATE resource SET content = (SELECT row_leaves FROM ledger_entry WHERE seq = 1) "
        f"WHERE id = {second_resource(data_dir, url)}",
    )
    assert [re.sub(r"\d{5,}", "N", finding) for finding in found] == [
        "entry 1: row N of table landing was edited or added",
        "entry 2: row N of table resource was edited or added",
        "entry 2: row N of table resource was edited or added",
        "entry 4: row N of table validation was edited or added",
    ]


def test_a_deleted_row_is_named(tampered: Callable[..., list[str]], data_dir: Path, url: str) -> None:
    row = second_resource(data_dir, url)
    assert tampered(f"DELETE FROM resource WHERE id = {row}") == [f"entry 2: row {row} of table resource was deleted"]


def test_rows_deleted_from_several_tables_are_named(tampered: Callable[..., list[str]]) -> None:
    (found,) = tampered("DELETE FROM validation WHERE entry = 4", "DELETE FROM resource WHERE entry = 4")
    assert re.fullmatch(r"entry 4: rows of the tables resource, validation were deleted \(ids \d+(, \d+)+\)", found)


def test_an_edit_does_not_hide_a_deletion(tampered: Callable[..., list[str]], data_dir: Path, url: str) -> None:
    row = second_resource(data_dir, url)
    found = tampered(f"DELETE FROM resource WHERE id = {row}", "UPDATE resource SET type = 'x' WHERE entry = 2")
    assert f"entry 2: row {row} of table resource was deleted" in found
    assert sum("was edited or added" in finding for finding in found) > 1


def test_an_added_row_is_named(tampered: Callable[..., list[str]]) -> None:
    columns = "entry, service, state, reason, at"
    inside, outside, beyond = E2 | 999, 1 << 20 | 7, 99 << 20 | 1
    found = tampered(
        *(
            f"INSERT INTO service_state (id, {columns}) SELECT {row_id}, {row_id} >> 20, service, state, reason, at "
            "FROM service_state WHERE entry = 5"
            for row_id in (inside, outside, beyond)
        ),
    )
    added = "of table service_state stands in no entry: it was added behind the log"
    assert sorted(found) == sorted(
        f"entry {row_id >> 20}: row {row_id} {added}" for row_id in (inside, outside, beyond)
    )


def test_a_row_added_to_an_entrys_own_table_is_named(tampered: Callable[..., list[str]]) -> None:
    columns = "service, state, reason, at"
    assert tampered(
        f"INSERT INTO service_state (id, entry, {columns}) SELECT id + 1, entry, {columns} FROM service_state"
    ) == [f"entry 5: row {5 << 20 | 2} of table service_state was edited or added"]


def test_rows_that_changed_places_are_named(tampered: Callable[..., list[str]], data_dir: Path, url: str) -> None:
    row = second_resource(data_dir, url)
    found = tampered(
        f"UPDATE resource SET id = 7 WHERE id = {row}",
        f"UPDATE resource SET id = {row} WHERE id = (SELECT MAX(id) FROM resource WHERE id >> 20 = 2)",
    )
    assert f"entry 2: row {row} of table resource was edited or added" in found
    assert any("row 7 of table resource stands in no entry" in finding for finding in found)


def test_an_edited_entry_is_named(tampered: Callable[..., list[str]]) -> None:
    found = tampered("UPDATE ledger_entry SET body = (SELECT body FROM ledger_entry WHERE seq = 4) WHERE seq = 3")
    assert found[:2] == [
        "entry 3: its body was edited (the leaf hash differs)",
        "entry 3: its body says that it is entry 4: reordered",
    ]


def test_a_deleted_entry_is_named_and_so_are_its_rows(tampered: Callable[..., list[str]]) -> None:
    found = tampered("DELETE FROM ledger_entry WHERE seq = 3")
    assert found[0] == "entry 4: entry 3 is missing"
    assert any("of table landing stands in no entry" in finding for finding in found)


def test_a_cut_out_middle_is_named(tampered: Callable[..., list[str]]) -> None:
    assert tampered("DELETE FROM ledger_entry WHERE seq IN (2, 3, 4)")[0] == "entry 5: entries 2 to 4 are missing"


def test_a_cut_off_end_shows_by_its_rows(tampered: Callable[..., list[str]]) -> None:
    assert tampered("DELETE FROM ledger_entry WHERE seq = 5") == [
        f"entry 5: row {5 << 20 | 1} of table service_state stands in no entry: it was added behind the log"
    ]


def test_verify_while_others_write_finds_nothing(store: Store, data_dir: Path, url: str) -> None:
    """What is written after the check began is for the next one: no false alarm."""
    over = threading.Event()

    def write() -> None:
        while not over.is_set():
            store.writer.submit(stop_row).result()

    thread = threading.Thread(target=write)
    thread.start()
    try:
        reports = [audit(data_dir, url) for _ in range(8)]
    finally:
        over.set()
        thread.join()
    assert [report.findings for report in reports] == [()] * 8
    assert reports[-1].entries > 0
