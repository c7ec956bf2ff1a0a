"""Both sides of the witness protocol: what a witness signs and refuses, and what becomes of a witness that is wrong."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace as changed
from pathlib import Path

import httpx
import pytest
import respx
from starlette.testclient import TestClient

from cds_server.checkpoints import Checkpoints, Signed, states
from cds_server.ledger.note import Signer, checkpoint_text, growth_text, note
from cds_server.ledger.tree import EMPTY_ROOT, consistency, fold, leaf_hash, root_at
from cds_server.ledger.verifier import WITNESS, Checkpoint, open_cosignature, parse_note
from cds_server.ledger_doors import LedgerWatch
from cds_server.ledger_settings import WitnessSetting
from cds_server.settings import Settings, load
from cds_server.store.store import Store
from cds_server.witness import Witness, create_app
from cds_server.witnesses import Witnessing
from models.errors import Conflict, Misconfigured
from tests.cds_server.stores import stop_row

ORIGIN = "log.example.org/cds/1"
LOG = Signer(ORIGIN, bytes(range(32)))
LEAVES = [leaf_hash(n.to_bytes(2)) for n in range(40)]
LEVELS = fold(LEAVES)
NAME = "witness.example.org/1"


def node(level: int, index: int) -> bytes:
    return LEVELS[level][index]


def head(size: int, root: bytes | None = None, signer: Signer = LOG) -> bytes:
    text = checkpoint_text(Checkpoint(signer.key.name, size, root or root_at(node, size)))
    return note(text, [signer.line(text)])


def request(old: int, new: int, **more: object) -> bytes:
    hashes = consistency(node, old, new) if 0 < old <= new else []
    return growth_text(old, hashes, head(new, **more))  # type: ignore[arg-type]


@pytest.fixture
def witness(tmp_path: Path) -> Iterator[Witness]:
    found = Witness(tmp_path / "w", NAME, [str(LOG.key)], now=lambda: 1_700_000_000.9)
    yield found
    found.close()


def test_growth_is_signed_with_its_time(witness: Witness) -> None:
    for old, new in ((0, 5), (5, 5), (5, 17), (17, 32), (32, 40)):
        status, media_type, line = witness.add(request(old, new))
        assert (status, media_type.partition(";")[0]) == (200, "text/plain"), line
        signed = parse_note(head(new) + line)
        assert open_cosignature(signed, witness.key) == 1_700_000_000
    assert open_cosignature(parse_note(witness.seen()), witness.key) == 1_700_000_000
    assert b"\n40\n" in witness.seen()


def other_root() -> bytes:
    return root_at(node, 3)


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        pytest.param(lambda: b"", 400, id="nothing"),
        pytest.param(lambda: b"old 9\n\n", 400, id="no checkpoint"),
        pytest.param(lambda: request(9, 17).replace(b"old 9", b"old 09"), 400, id="a number with a zero"),
        pytest.param(lambda: growth_text(9, [EMPTY_ROOT] * 64, head(17)), 400, id="64 hashes"),
        pytest.param(lambda: growth_text(17, [], head(9)), 400, id="old is larger"),
        pytest.param(lambda: request(0, 9, signer=Signer("other.example.org", bytes(32))), 404, id="unknown log"),
        pytest.param(lambda: request(9, 17, signer=Signer(ORIGIN, bytes(32))), 403, id="another key"),
        pytest.param(lambda: request(9, 17).replace(b"\n17\n", b"\n18\n"), 403, id="a signature that does not hold"),
        pytest.param(lambda: request(9, 9, root=other_root()), 409, id="another root at the same size"),
        pytest.param(lambda: request(9, 17, root=other_root()), 422, id="a log written anew"),
        pytest.param(lambda: growth_text(9, [], head(17)), 422, id="no proof"),
        pytest.param(lambda: growth_text(9, consistency(node, 9, 17)[:-1], head(17)), 422, id="a short proof"),
    ],
)
def test_what_is_no_growth_is_not_signed(witness: Witness, sent: Callable[[], bytes], status: int) -> None:
    assert witness.add(request(0, 9))[0] == 200
    before = witness.seen()
    found, _, said = witness.add(sent())
    assert found == status, said
    assert witness.seen() == before


def test_a_stale_size_is_answered_with_the_one_that_is_known(witness: Witness) -> None:
    assert witness.add(request(9, 17)) == (409, "text/x.tlog.size", b"0\n")
    witness.add(request(0, 17))
    assert witness.add(request(9, 20)) == (409, "text/x.tlog.size", b"17\n")
    assert witness.add(request(0, 20)) == (409, "text/x.tlog.size", b"17\n")


def test_an_empty_log_has_no_proof_and_one_root(witness: Witness) -> None:
    assert witness.add(growth_text(0, [EMPTY_ROOT], head(5)))[0] == 422
    assert witness.add(growth_text(0, [], head(0, EMPTY_ROOT[::-1])))[0] == 422
    assert witness.add(growth_text(0, [], head(0, EMPTY_ROOT)))[0] == 200
    assert witness.add(request(0, 5))[0] == 200


def test_what_it_signed_outlives_it(witness: Witness, tmp_path: Path) -> None:
    witness.add(request(0, 17))
    with pytest.raises(Conflict):
        Witness(tmp_path / "w")
    witness.close()
    again = Witness(tmp_path / "w")  # name, key and logs are in its folder
    assert again.key == witness.key
    assert again.add(request(0, 20))[2] == b"17\n"
    assert again.add(request(17, 20))[0] == 200
    again.close()
    (tmp_path / "w" / "witness.key").unlink()
    with pytest.raises(Misconfigured, match="its key is gone"):
        Witness(tmp_path / "w")
    with pytest.raises(Misconfigured, match="another name"):
        Witness(tmp_path / "w", "witness.example.org/2")
    with pytest.raises(Misconfigured, match="needs a name"):
        Witness(tmp_path / "new")
    with pytest.raises(Misconfigured, match="key of a log"):
        Witness(tmp_path / "new2", NAME, ["x"])


def test_of_two_forms_at_once_one_is_signed(witness: Witness) -> None:
    """Two threads send different trees of one size: the look and the signature are one step."""
    witness.add(request(0, 5))
    answers: list[int] = []
    forms = [request(5, 9), growth_text(5, consistency(node, 5, 9), head(9, other_root())), request(5, 17)]
    threads = [threading.Thread(target=lambda form=form: answers.append(witness.add(form)[0])) for form in forms * 4]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(answer == 200 for answer in answers) == 1


def test_the_doors_of_a_witness(witness: Witness) -> None:
    with TestClient(create_app(witness)) as client:
        answer = client.post("/add-checkpoint", content=request(0, 17))
        assert answer.status_code == 200
        assert answer.text.startswith(f"\u2014 {NAME} ")
        stale = client.post("/add-checkpoint", content=request(0, 20))
        assert (stale.status_code, stale.text, stale.headers["content-type"]) == (409, "17\n", "text/x.tlog.size")
        assert client.post("/add-checkpoint", content=b"x" * 70_000).status_code == 413
        assert client.get("/add-checkpoint").status_code == 405
        assert client.get("/checkpoints").content == witness.seen()


# ---- our side --------------------------------------------------------------------------------------------------------

SEEN = Signer(NAME, bytes(reversed(range(32))), WITNESS)
URL = "http://127.0.0.1:9"
SETTING = WitnessSetting(URL, SEEN.key)


@pytest.fixture
def signed(store: Store) -> tuple[Checkpoints, Signed]:
    checkpoints = Checkpoints(store, "https://cds.example.org")
    for _ in range(3):
        store.writer.submit(stop_row).result()
    made = checkpoints.make()
    assert made is not None
    return checkpoints, made


def submit(store: Store, checkpoints: Checkpoints, answer: object) -> tuple[bool, str]:
    """Whether it signed, and what is noted about it."""
    with respx.mock(assert_all_called=False) as peer:
        peer.post(f"{URL}/add-checkpoint").mock(side_effect=answer)  # type: ignore[arg-type]
        good = Witnessing(store, checkpoints, SETTING).submit()
    return good, states(store).get(f"witness {NAME}", ("", ""))[0]


def cosignature(made: Signed, signer: Signer = SEEN, seconds: float | None = None) -> str:
    return signer.cosignature(parse_note(made.note).text, int(seconds if seconds is not None else time.time()))


def test_a_witness_on_the_wire_signs_what_we_made(
    store: Store, signed: tuple[Checkpoints, Signed], tmp_path: Path
) -> None:
    checkpoints, _ = signed
    (key,) = checkpoints.signing_keys()
    ours = Witness(tmp_path / "w", NAME, [str(key)])
    setting = WitnessSetting(URL, ours.key)
    witnessing = Witnessing(store, checkpoints, setting)

    def answer(sent: httpx.Request) -> httpx.Response:
        status, media_type, body = ours.add(sent.content)
        return httpx.Response(status, content=body, headers={"Content-Type": media_type})

    with respx.mock() as peer:
        route = peer.post(f"{URL}/add-checkpoint").mock(side_effect=answer)
        assert witnessing.submit()
        assert witnessing.submit()  # signed already: it is not asked again
        assert route.call_count == 1
        for _ in range(300):
            store.writer.submit(stop_row)
        checkpoints.rotate("user:test")
        checkpoints.make()
        assert witnessing.submit()
        last = checkpoints.last()
        assert last is not None
        assert open_cosignature(parse_note(last.note), ours.key)
        assert witnessing.cosigned() == last.checkpoint.size
        fresh = Witnessing(store, checkpoints, changed(setting))
        assert fresh.cosigned() == last.checkpoint.size
    ours.close()


def test_a_size_that_we_had_forgotten_is_taken_from_the_witness(
    store: Store, signed: tuple[Checkpoints, Signed], tmp_path: Path
) -> None:
    checkpoints, made = signed
    ours = Witness(tmp_path / "w", NAME, [str(checkpoints.signing_keys()[0])])
    assert ours.add(growth_text(0, [], made.note))[0] == 200
    store.writer.submit(stop_row).result()
    checkpoints.make()
    with respx.mock() as peer:
        route = peer.post(f"{URL}/add-checkpoint")

        def answer(sent: httpx.Request) -> httpx.Response:
            status, media_type, body = ours.add(sent.content)
            return httpx.Response(status, content=body, headers={"Content-Type": media_type})

        route.mock(side_effect=answer)
        assert Witnessing(store, checkpoints, WitnessSetting(URL, ours.key)).submit()
        assert route.call_count == 2
    ours.close()


STRANGER = Signer(NAME, bytes(32), WITNESS)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (httpx.ConnectError("x"), "no answer: ConnectError"),
        (httpx.ReadTimeout("x"), "no answer: ReadTimeout"),
        (httpx.Response(500), "answered 500"),
        (httpx.Response(404), "it does not know this log"),
        (httpx.Response(403), "it does not know the key that signs this log"),
        (httpx.Response(422), "it does not find that this log only grew"),
        (httpx.Response(409, text="x"), "at the same size it saw another root"),
        (httpx.Response(200, content=b"x" * 70_000), "answered with a body over the limit"),
        (httpx.Response(200, text="junk\n"), "a note has a line among its signatures that is none"),
        (httpx.Response(200, text=""), "a note"),
        (
            httpx.Response(409, text="999\n", headers={"Content-Type": "text/x.tlog.size"}),
            "entry 5: it signed 999 entries of this log, which has signed 4",
        ),
        (httpx.Response(409, text="0\n", headers={"Content-Type": "text/x.tlog.size"}), "it refuses the size"),
        (httpx.Response(409, text="-1\n", headers={"Content-Type": "text/x.tlog.size"}), "a number is not written"),
    ],
)
def test_a_witness_that_is_down_or_lies_is_shown_and_stops_nothing(
    store: Store, signed: tuple[Checkpoints, Signed], answer: object, said: str
) -> None:
    checkpoints, _ = signed
    good, what = submit(store, checkpoints, answer)
    assert not good
    assert what.startswith(said)
    store.writer.submit(stop_row).result()
    assert checkpoints.make() is not None
    assert store.reads.query("SELECT 1 FROM ledger_cosignature") == []


def test_a_signature_over_something_else_is_not_kept(store: Store, signed: tuple[Checkpoints, Signed]) -> None:
    checkpoints, made = signed
    over_other = SEEN.cosignature(checkpoint_text(Checkpoint(made.checkpoint.origin, 9, EMPTY_ROOT)), 1_700_000_000)
    for line, what in (
        (over_other, "the signature of witness.example.org/1 does not hold"),
        (cosignature(made, STRANGER), "its answer carries no signature of its key"),
        (cosignature(made, seconds=1_000_000_000), "its clock and ours differ by more than an hour"),
    ):
        assert submit(store, checkpoints, httpx.Response(200, text=line)) == (False, what)
    stranger_too = cosignature(made, STRANGER) + cosignature(made)
    assert submit(store, checkpoints, httpx.Response(200, text=stranger_too)) == (True, "")
    (kept,) = store.reads.query("SELECT line FROM ledger_cosignature")
    assert kept[0] == cosignature(made) or open_cosignature(parse_note(made.note + kept[0].encode()), SEEN.key)


def test_trouble_is_a_warning(store: Store, settings: Settings, signed: tuple[Checkpoints, Signed]) -> None:
    checkpoints, _ = signed
    submit(store, checkpoints, httpx.Response(422))
    watch = LedgerWatch(store, changed(settings, witnesses=(SETTING,)))
    assert list(watch.warnings()) == [f"witness {NAME}"]
    assert watch.figures() == (0, 0.0, False, {NAME: (4, True)})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[ledger]\nx = 1\n", "unknown key 'x' of [ledger]"),
        ("[ledger]\ncheckpoint_seconds = -1\n", "checkpoint_seconds of [ledger]"),
        ("[[witness]]\nkey = 'x'\n", "[[witness]] number 1 in cds.toml has no url"),
        (f"[[witness]]\nurl = 'http://w.example.org'\nkey = '{SEEN.key}'\n", "is not an https URL"),
        ("[[witness]]\nurl = 'https://w.example.org'\nkey = 'x'\n", "is not what `cds witness` prints"),
        (f"[[witness]]\nurl = 'https://w.example.org'\nkey = '{LOG.key}'\n", "is the key of a log"),
        (f"[[witness]]\nurl = 'https://w.example.org'\nkey = '{SEEN.key}'\n" * 2, "keys of the same name"),
    ],
)
def test_a_wrong_setting_stops_the_start(tmp_path: Path, text: str, said: str) -> None:
    config = tmp_path / "cds.toml"
    config.write_text(text)
    with pytest.raises(Misconfigured) as wrong:
        load({"CDS_CONFIG": str(config)})
    assert said in wrong.value.what


def test_settings_of_the_log(tmp_path: Path) -> None:
    config = tmp_path / "cds.toml"
    witness = f"[[witness]]\nurl = 'https://w.example.org/x/'\nkey = '{SEEN.key}'\n"
    config.write_text(f"[ledger]\ncheckpoint_seconds = 3\n{witness}")
    found = load({"CDS_CONFIG": str(config)})
    assert (found.checkpoint_seconds, found.witnesses) == (3, (WitnessSetting("https://w.example.org/x", SEEN.key),))
    assert load({}).checkpoint_seconds == 10
