"""A sample of each feed's messages is held against its version: chosen fairly, within its time, counted once."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Future
from pathlib import Path

import pytest

from adapters.readers.hl7v2 import MESSAGE
from cds_server import hl7_conformance, hl7_sampling
from cds_server.__main__ import main
from cds_server.feeds import feed_sources
from cds_server.hl7_checking import Asked, Checker, Told, check
from cds_server.hl7_conformance import Conformer
from cds_server.hl7_sampling import OFF, Report, Sampling, chosen, reports
from cds_server.ops import Metrics
from cds_server.settings import load
from cds_server.store.store import Store
from models.errors import Misconfigured
from tests.cds_server.stores import land_parts

GOOD = "MSH|^~\\&|LAB|H|CDS|H|20261121120000||ORU^R01^ORU_R01|{}|P|2.5.1\rPID|1||77^^^H^MR||WARD^WILLA||19500301|F\r"
GOOD += "OBR|1|1^P|2^F|24323-8^Panel^LN\rOBX|1|NM|2160-0^Creatinine^LN||1.1|mg/dL|||||F\r"
SECRETS = ("WARD", "WILLA", "1950", "CTRL", "DOE", "77", "Panel")


def message(number: int, *, sex: str = "F", more: str = "") -> bytes:
    return (GOOD.format(f"CTRL{number}").replace("19500301|F", f"19500301|{sex}") + more).encode()


class Here(Checker):
    """Checks at once, in this process."""

    def __init__(self) -> None:
        self.batches: list[Sequence[Asked]] = []

    def submit(self, asked: Sequence[Asked]) -> Future[list[Told]]:
        self.batches.append(asked)
        future: Future[list[Told]] = Future()
        future.set_result(check(asked))
        return future

    def stop(self) -> None:
        pass


@pytest.fixture(autouse=True)
def always_looking(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hl7_conformance, "LOOK", 0.0)


@pytest.fixture
def url(request: pytest.FixtureRequest, data_dir: Path) -> str:
    """SQLite, where a test does not ask for both."""
    if getattr(request, "param", "sqlite") == "sqlite":
        return f"sqlite:///{data_dir / 'cds.db'}"
    return str(request.getfixturevalue("postgres_url"))


BOTH = pytest.mark.parametrize("url", ["sqlite", "postgres"], indirect=True)


@pytest.fixture
def conformer(store: Store) -> Conformer:
    return Conformer(store, {"test": Sampling(1.0)}, Here())


def land(store: Store, *messages: bytes) -> None:
    for each in messages:
        land_parts(store, [each], namespace="ward", media_type=MESSAGE)


def through(conformer: Conformer) -> int:
    """Until there is nothing more to do."""
    counted = 0
    for _ in range(100):
        done = conformer.some()
        counted += done
        if not done and conformer._pending is None:
            return counted
    raise AssertionError("it never ends")


def only(store: Store) -> Report:
    (report,) = reports(store)
    return report


@BOTH
def test_findings_are_counted_by_event_version_place_and_rule(store: Store, conformer: Conformer) -> None:
    land(store, message(1), message(2, sex="F~M"), message(3, sex="F~M", more="OBX|one|NM|A^B^L||x||||||F\rDOE|1\r"))
    land_parts(store, [b'{"resourceType": "Patient"}'], namespace="ward")
    through(conformer)
    report = only(store)
    assert (report.source, report.seen, report.checked, report.unreadable, report.passed_over) == ("test", 3, 3, 0, 0)
    found = {(each.event, each.version, each.place, each.code, each.messages, each.times) for each in report.findings}
    assert found == {
        ("ORU^R01", "2.5.1", "PID-8", "repeated", 2, 2),
        ("ORU^R01", "2.5.1", "OBX-1", "form", 1, 1),
        ("ORU^R01", "2.5.1", "OBX-5", "form", 1, 1),
        ("ORU^R01", "2.5.1", "a segment of no version", "segment", 1, 1),
    }
    assert report.findings[0].share == pytest.approx(2 / 3)
    assert report.findings[0].first < report.findings[0].last
    assert report.first <= report.findings[0].first
    assert report.seconds > 0


def test_what_is_missing_or_moved_is_placed_in_its_structure(store: Store, conformer: Conformer) -> None:
    land(
        store,
        message(1).replace(b"OBR|1|1^P|2^F|24323-8^Panel^LN\r", b""),
        message(2, more="EVN|A01\rORC|RE\rPV1|1|I\r"),
    )
    through(conformer)
    found = {(each.place, each.code) for each in only(store).findings}
    assert {("ORU_R01/OBR", "missing"), ("ORU_R01/PV1", "order"), ("ORU_R01/EVN", "segment")} <= found


def test_no_value_of_a_message_is_kept(store: Store, conformer: Conformer) -> None:
    land(
        store,
        message(1, sex="WARD", more="WAR|DOE\rOBX|77|NM|A||WILLA|||||DOE\r"),
        message(2).replace(b"ORU^R01^ORU_R01", b"DOE^77^WILLA"),
        message(3).replace(b"|2.5.1", b"|2.77.1950"),
        b"not a message of WILLA WARD",
    )
    through(conformer)
    rows = store.reads.query("SELECT * FROM hl7_finding") + store.reads.query("SELECT * FROM hl7_sample")
    texts = [cell for row in rows for cell in row if isinstance(cell, str)]
    assert len(texts) > 20
    instants = re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+Z")  # when it was counted: any digits
    assert not [text for text in texts if not instants.fullmatch(text) and any(each in text for each in SECRETS)]
    report = only(store)
    assert (report.checked, report.unreadable) == (4, 1)
    assert {each.event for each in report.findings} == {"ORU^R01", "other"}


@BOTH
def test_a_restart_goes_on_where_it_was_and_counts_nothing_twice(
    open_store: Callable[[], Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hl7_conformance, "FEW", 3)
    store = open_store()
    land(store, *(message(number, sex="F~M") for number in range(4)))
    land_parts(store, [message(10 + number) for number in range(5)], namespace="ward", media_type=MESSAGE)
    first = Conformer(store, {"test": Sampling(1.0)}, Here())
    first.some()  # three are being checked,
    first.some()  # and counted,
    first.some()  # and the next three are lost with the process
    assert only(store).seen == 3
    again = Conformer(store, {"test": Sampling(1.0)}, Here())
    through(again)
    report = only(store)
    assert (report.seen, report.checked, report.findings[0].messages) == (9, 9, 4)
    assert through(again) == 0


def test_the_sample_is_the_same_when_it_is_done_again_and_fair(store: Store) -> None:
    def drawn(share: float) -> set[int]:
        return {number for number in range(20_000) if chosen(b"%064d" % number, 0, share)}

    assert drawn(0.01) == drawn(0.01) < drawn(0.1) < drawn(1.0) == set(range(20_000))
    assert drawn(0.0) == set()
    assert 140 < len(drawn(0.01)) < 260  # 200 are expected: four standard deviations
    halves = [sum(number % 2 == side for number in drawn(0.1)) for side in (0, 1)]
    assert abs(halves[0] - halves[1]) < 250
    parts = [chosen(b"one delivery", part, 0.1) for part in range(20_000)]
    assert 1830 < sum(parts) < 2170

    land(store, *(message(number) for number in range(60)))
    through(Conformer(store, {"test": Sampling(0.2)}, here := Here()))
    store.writer.submit(lambda tx: tx.execute("DELETE FROM cursor")).result()
    through(Conformer(store, {"test": Sampling(0.2)}, again := Here()))
    sampled = [each.raw for batch in here.batches for each in batch]
    assert [each.raw for batch in again.batches for each in batch] == sampled
    assert 1 <= len(sampled) < 30


def test_the_hour_ends_where_its_time_is_spent_and_the_report_says_so(
    store: Store, monkeypatch: pytest.MonkeyPatch, conformer: Conformer
) -> None:
    monkeypatch.setattr(hl7_conformance, "FEW", 2)
    monkeypatch.setattr(
        "cds_server.hl7_checking.time.process_time",
        iter(range(10_000)).__next__,  # each look at the clock is a second later
    )
    conformer._sources["test"] = Sampling(1.0, seconds=20)
    hour = [1000]
    monkeypatch.setattr(hl7_conformance, "_hour", lambda: hour[0])
    land(store, *(message(number) for number in range(8)))
    through(conformer)
    first = only(store)
    assert first.seen == 8
    assert 0 < first.checked < 8
    assert first.checked + first.passed_over == 8
    assert reports(store, now=1000 * 3600.0)[0].spent
    land(store, message(8))
    through(conformer)
    assert only(store).passed_over == first.passed_over + 1
    hour[0] = 1001
    land(store, message(9))
    through(conformer)
    last = only(store)
    assert (last.checked, last.passed_over) == (first.checked + 1, first.passed_over + 1)
    assert not reports(store, now=1001 * 3600.0)[0].spent


def test_a_check_that_fails_is_counted_and_not_tried_for_ever(store: Store) -> None:
    class Failing(Here):
        def submit(self, asked: Sequence[Asked]) -> Future[list[Told]]:
            future: Future[list[Told]] = Future()
            future.set_exception(EOFError())
            return future

    land(store, message(1), message(2))
    through(Conformer(store, {"test": Sampling(1.0)}, Failing()))
    report = only(store)
    assert (report.seen, report.checked, report.failed) == (2, 0, 2)


def test_kinds_of_findings_have_an_end(store: Store, conformer: Conformer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hl7_conformance, "MOST_KINDS", 2)
    wrong = [message(1, sex="F~M"), message(2, more="QQQ|1\r"), message(3, more="OBX|x\r"), message(4, more="SCH|1\r")]
    land(store, *wrong)
    through(conformer)
    findings = only(store).findings
    assert len(findings) == 3
    assert "other" in {each.event for each in findings}


def test_other_sources_and_sources_that_are_off_are_left_alone(store: Store) -> None:
    land(store, message(1, sex="F~M"))
    assert through(Conformer(store, {"test": OFF}, Here())) == 0
    assert through(Conformer(store, {"another": Sampling(1.0)}, Here())) == 1
    assert reports(store) == []


@pytest.fixture
def checker() -> Iterator[Checker]:
    made = Checker()
    yield made
    made.stop()


def test_a_process_of_its_own_checks_and_nobody_waits_for_it(store: Store, checker: Checker) -> None:
    land(store, message(1, sex="F~M"), message(2))
    conformer = Conformer(store, {"test": Sampling(1.0)}, checker)
    assert conformer.some() == 0
    assert conformer.some() == 0, "it is asked, and has not come up yet"
    while not conformer.some():
        time.sleep(0.05)
    assert (only(store).checked, only(store).findings[0].place) == (2, "PID-8")
    process = checker._process
    assert process is not None
    assert process.pid is not None
    policy = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[38]
    assert policy == "5", "SCHED_IDLE (sched(7)): only what nobody else wants"
    process.kill()
    process.join()
    land(store, message(3))
    while not conformer.some():
        time.sleep(0.05)
    assert only(store).checked == 3, "a process that was killed is started again"


def test_it_ends_at_once_while_a_check_begins() -> None:
    checker = Checker()
    future = checker.submit([Asked("test", "", message(1), None, 1000)])
    checker.stop()
    with pytest.raises((EOFError, OSError, CancelledError)):
        future.result(timeout=0)
    assert checker._process is None or checker._process._closed  # type: ignore[attr-defined]


# ---- settings, command, metrics --------------------------------------------------------------------------------------

SOURCE = '[[source]]\nname = "test"\nkind = "hl7v2-mllp"\nnamespace = "ward"\nlisten = "127.0.0.1:0"\n'


def configured(tmp_path: Path, text: str = "") -> Sampling:
    (tmp_path / "cds.toml").write_text(SOURCE + text)
    return feed_sources(load({"CDS_CONFIG": str(tmp_path / "cds.toml")}))["test"].sampling


def test_what_a_source_says_of_its_sample(tmp_path: Path) -> None:
    assert configured(tmp_path) == Sampling(0.01, 60)
    assert configured(tmp_path, "conformance_share = 0\n").share == 0
    said = "conformance_share = 0.25\nconformance_seconds = 10\ncharset = '8859/1'\n"
    assert configured(tmp_path, said) == Sampling(0.25, 10, "8859/1")
    for wrong in ("conformance_share = 1.5", "conformance_share = true", "conformance_share = 'off'"):
        with pytest.raises(Misconfigured, match=r"conformance_share .* is not a number from 0"):
            configured(tmp_path, wrong)
    with pytest.raises(Misconfigured, match="conformance_seconds"):
        configured(tmp_path, "conformance_seconds = 7200")


def test_the_report_in_a_terminal_and_as_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    configured(tmp_path, "[[source]]\nname = 'idle'\nkind = 'hl7v2-files'\nnamespace = 'ward'\n")
    monkeypatch.setenv("CDS_CONFIG", str(tmp_path / "cds.toml"))
    monkeypatch.setenv("CDS_DATA_DIR", str(tmp_path / "var"))
    store = Store.open(tmp_path / "var", f"sqlite:///{tmp_path}/var/cds.db")
    land(store, *(message(number, sex="F~M" if number % 2 else "F") for number in range(10)), b"junk")
    through(Conformer(store, {"test": Sampling(1.0)}, Here()))
    store.close()
    assert main(["hl7", "conformance"]) == 0
    text = capsys.readouterr().out
    assert "test: 11 of 11 messages checked, " in text
    assert "1 message of them could not be read at all" in text
    assert "ORU^R01  2.5.1    PID-8  does not repeat         5   45.5%      5  20" in text
    assert "idle: no message has been looked at yet" in text
    assert max(map(len, text.splitlines())) <= 120
    assert main(["hl7", "conformance", "test", "--json"]) == 0
    (report,) = json.loads(capsys.readouterr().out)
    assert (report["checked"], report["findings"][0]["code"], report["findings"][0]["messages"]) == (11, "repeated", 5)
    assert main(["hl7", "conformance", "nobody"]) != 0


def test_metrics_name_the_source_and_nothing_else() -> None:
    metrics = Metrics()
    metrics.checked.labels("lab").set(12)
    metrics.unchecked.labels("lab").set(1)
    metrics.findings.labels("lab").set(34)
    text = metrics.text().decode()
    assert 'cds_hl7_checked_messages{source="lab"} 12.0' in text
    assert 'cds_hl7_findings{source="lab"} 34.0' in text
    assert hl7_sampling.HOUR == 3600
