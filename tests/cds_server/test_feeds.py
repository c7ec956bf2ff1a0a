"""A source of kind hl7v2-mllp: what its table may say, and the sentence for what it may not."""

from __future__ import annotations

import resource
from ipaddress import ip_network
from pathlib import Path

import pytest

from adapters.hl7v2.frames import MAX_MESSAGE
from cds_server import listening
from cds_server.feeds import FeedSource, feed_sources
from cds_server.settings import load
from cds_server.source_rules import rules_of
from models.errors import CdsError, Misconfigured

HEAD = "[[source]]\nname = 'lab'\nkind = 'hl7v2-mllp'\nnamespace = 'hosp'\n"
LOCAL = f"{HEAD}listen = '127.0.0.1:2575'\n"
WIDE = f"{HEAD}listen = '10.1.2.3:2575'\n"


def sources(tmp_path: Path, text: str) -> dict[str, FeedSource]:
    config = tmp_path / "cds.toml"
    config.write_text(text)
    return feed_sources(load({"CDS_CONFIG": str(config)}))


@pytest.fixture
def pair(tmp_path: Path) -> str:
    for name in ("cert", "key", "ca"):
        (tmp_path / f"{name}.pem").write_text("-")
    return f"tls_cert_file = '{tmp_path}/cert.pem'\ntls_key_file = '{tmp_path}/key.pem'\n"


def test_the_least_that_a_table_says(tmp_path: Path) -> None:
    found = sources(tmp_path, LOCAL)["lab"]
    assert (found.name, found.kind, found.namespace, found.feed.namespace) == ("lab", "hl7v2-mllp", "hosp", "hosp")
    at = found.listening
    assert at is not None
    assert (at.host, at.port, at.allow, at.tls) == ("127.0.0.1", 2575, (), None)
    assert (at.max_message, at.max_connections, at.lenient_trailer) == (MAX_MESSAGE, 256, False)
    assert (at.idle_seconds, at.write_seconds, at.silence_minutes) == (30, 30, 0)
    assert (at.ack_after, at.on_trouble, at.processing) == ("persist", "AE", {"P"})
    assert (found.feed.charset, found.feed.zone, found.feed.accept_claims) == (None, None, False)


def test_all_that_a_table_may_say(tmp_path: Path, pair: str) -> None:
    (tmp_path / "codes.csv").write_text("source_system,source_code,target_system,target_code,equivalence\n")
    found = sources(
        tmp_path,
        f"""{HEAD}
listen = '[::1]:6661'
allow = ['10.1.0.0/16', 'fd00::/8', '192.0.2.7']
{pair}
tls_client_ca_file = '{tmp_path}/ca.pem'
tls_subjects = ['engine', 'lab.hospital.example']
max_message = 2048
max_connections = 5000
lenient_trailer = true
idle_seconds = 5
write_seconds = 6
silence_minutes = 30
ack_after = 'applied'
on_trouble = 'AR'
processing = ['P', 'T']
charset = '8859/1'
zone = 'Europe/Zurich'
patient_types = ['PI']
unit_system = 'http://unitsofmeasure.org'
accept_claims = true
[source.systems]
HOSP = 'http://hospital.example/ids'
""",
    )["lab"]
    at = found.listening
    assert at is not None
    assert at.tls is not None
    assert (at.host, at.port) == ("::1", 6661)
    assert at.allow == tuple(map(ip_network, ("10.1.0.0/16", "fd00::/8", "192.0.2.7/32")))
    assert at.tls.client_ca_file == tmp_path / "ca.pem"
    assert at.tls.subjects == {"engine", "lab.hospital.example"}
    assert (at.max_message, at.max_connections, at.lenient_trailer) == (2048, 5000, True)
    assert (at.idle_seconds, at.write_seconds, at.silence_minutes) == (5, 6, 30)
    assert (at.ack_after, at.on_trouble, at.processing) == ("applied", "AR", {"P", "T"})
    feed = found.feed
    assert (feed.charset, feed.zone, feed.patient_types, feed.accept_claims) == (
        "8859/1",
        "Europe/Zurich",
        ("PI",),
        True,
    )
    assert feed.systems == {"HOSP": "http://hospital.example/ids"}


def test_files_are_read_by_the_same_rules_and_do_not_listen(tmp_path: Path) -> None:
    head = HEAD.replace("hl7v2-mllp", "hl7v2-files")
    found = sources(tmp_path, f"{head}charset = 'UNICODE UTF-8'\n")["lab"]
    assert found.listening is None
    with pytest.raises(Misconfigured, match="unknown key 'listen'"):
        sources(tmp_path, f"{head}listen = '127.0.0.1:2575'\n")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (HEAD, r"\[\[source\]\] 'lab' in .*cds.toml has no listen"),
        (f"{HEAD}listen = '2575'\n", r"^listen of \[\[source\]\] 'lab' in .*cds.toml is not HOST:PORT"),
        (f"{HEAD}listen = '127.0.0.1:99999'\n", "is not HOST:PORT"),
        (f"{HEAD}listen = ':2575'\n", "is not HOST:PORT"),
        (WIDE, "listen .* is without TLS beyond this machine"),
        (f"{HEAD}listen = '0.0.0.0:2575'\nallow = ['10.0.0.0/8']\n", "listen .* without TLS on every interface"),
        (f"{HEAD}listen = '[::]:2575'\nallow = ['10.0.0.0/8']\n", "listen .* without TLS on every interface"),
        (f"{LOCAL}allow = ['10.1.0.0/33']\n", "allow .* is not a list of addresses and networks"),
        (f"{LOCAL}allow = ['10.1.2.3/16']\n", "allow .* is not a list of addresses and networks"),
        (f"{LOCAL}tls_cert_file = 'cert.pem'\n", "tls_cert_file .* and tls_key_file belong together"),
        (f"{LOCAL}tls_client_ca_file = 'ca.pem'\n", "tls_client_ca_file .* of no use without tls_cert_file"),
        (f"{LOCAL}tls_cert_file = 'no.pem'\ntls_key_file = 'no.key'\n", "tls_cert_file .* names no file"),
        (f"{LOCAL}ack_after = 'never'\n", "ack_after .* neither 'persist' nor 'applied'"),
        (f"{LOCAL}on_trouble = 'AA'\n", "on_trouble .* neither 'AE' nor 'AR'"),
        (f"{LOCAL}processing = ['X']\n", "processing .* not a list of P, T and D"),
        (f"{LOCAL}max_message = 5\n", "max_message .* not a whole number between 1024 and 1073741824"),
        (f"{LOCAL}max_connections = 0\n", "max_connections .* not a whole number between 1 and 65536"),
        (f"{LOCAL}idle_seconds = true\n", "idle_seconds .* not a whole number of seconds"),
        (f"{LOCAL}lenient_trailer = 1\n", "lenient_trailer .* neither true nor false"),
        (f"{LOCAL}charset = 'EBCDIC'\n", "charset .* is no character set of table 0211"),
        (f"{LOCAL}zone = 'Zurich'\n", "zone .* is no name of an IANA time zone"),
        (f"{LOCAL}zone = '../etc/passwd'\n", "zone .* is no name of an IANA time zone"),
        (f"{LOCAL}maps = ['nowhere.csv']\n", "nowhere.csv"),
        (f"{LOCAL}[source.systems]\nHOSP = 'ids'\n", "systems .* not a table of names and URIs"),
        (f"{LOCAL}lissten = 1\n", "unknown key 'lissten'"),
    ],
)
def test_what_a_table_may_not_say(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(CdsError, match=sentence):
        sources(tmp_path, text)


def test_plain_text_needs_a_named_interface_and_named_senders(tmp_path: Path, pair: str) -> None:
    """(F8): or a certificate, with which any interface will do."""
    assert sources(tmp_path, f"{WIDE}allow = ['10.1.0.0/16']\n")["lab"].listening is not None
    assert sources(tmp_path, f"{HEAD}listen = '0.0.0.0:2575'\n{pair}")["lab"].listening is not None
    with pytest.raises(Misconfigured, match=r"tls_subjects .* checked only where clients show certificates"):
        sources(tmp_path, f"{LOCAL}{pair}tls_subjects = ['engine']\n")


def test_which_of_them_listen(tmp_path: Path) -> None:
    second = LOCAL.replace("'lab'", "'ward'").replace("2575", "2576")
    files = HEAD.replace("hl7v2-mllp", "hl7v2-files").replace("'lab'", "'drop'")
    config = tmp_path / "cds.toml"
    config.write_text(LOCAL + second + files)
    settings = load({"CDS_CONFIG": str(config)})
    assert [each.name for each in listening.listeners(settings)] == ["lab", "ward"]
    assert [each.name for each in listening.listeners(settings, ["ward"])] == ["ward"]
    assert set(rules_of(settings)) == {"lab", "ward", "drop"}
    with pytest.raises(Misconfigured, match=r"no .* that listens by that name in .*: lab, ward"):
        listening.listeners(settings, ["drop"])
    with pytest.raises(Misconfigured, match=r"no .* listens"):
        listening.listen(load({"CDS_DATA_DIR": str(tmp_path)}))


def test_what_decides_the_reading_has_a_digest(tmp_path: Path) -> None:
    """Where a map of codes changes, what was read by the old one can be told from what is read by the new."""
    header = "source_system,source_code,target_system,target_code,equivalence\n"
    codes = tmp_path / "codes.csv"
    digests = set()
    for line in ("", "local,GLU,http://loinc.org,2345-7,equal\n", "local,GLU,http://loinc.org,14749-6,equal\n"):
        codes.write_text(header + line)
        digests.add(sources(tmp_path, f"{LOCAL}maps = ['{codes}']\n")["lab"].digest)
    assert len(digests) == 3
    for line in ("zone = 'Europe/Zurich'", "charset = '8859/1'", "patient_types = ['PI']", "accept_claims = true"):
        digests.add(sources(tmp_path, f"{LOCAL}maps = ['{codes}']\n{line}\n")["lab"].digest)
    digests.add(sources(tmp_path, f"{LOCAL}maps = ['{codes}']\n[source.systems]\nHOSP = 'urn:x:y'\n")["lab"].digest)
    assert len(digests) == 8
    assert sources(tmp_path, f"{LOCAL}maps = ['{codes}']\nidle_seconds = 5\n")["lab"].digest in digests


def test_as_many_open_files_as_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    """(F7): the soft limit goes as far as the hard one lets it; it never goes down."""
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "setrlimit", lambda _which, limits: asked.append(limits))
    for now in ((1024, 20_000), (1024, 4000), (8000, 8000), (1024, resource.RLIM_INFINITY)):
        monkeypatch.setattr(resource, "getrlimit", lambda _which, now=now: now)
        listening._enough_files(5000)
    assert asked == [(5256, 20_000), (4000, 4000), (5256, resource.RLIM_INFINITY)]


def test_what_is_taken_besides_and_for_whom(tmp_path: Path) -> None:
    """(C12)"""
    at = sources(tmp_path, LOCAL)["lab"].listening
    assert at is not None
    assert (at.modes, at.receivers) == (frozenset(), frozenset())
    said = f"{LOCAL}modes = ['I', 'R']\nreceivers = ['CDS|HOSP', 'TWIN']\ngroups = 'add'\n"
    found = sources(tmp_path, said)["lab"]
    assert found.listening is not None
    assert found.listening.modes == {"I", "R"}
    assert found.listening.receivers == {("CDS", "HOSP"), ("TWIN", "")}
    assert found.feed.groups == "add"


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("modes = ['T', 'X']", r"modes .* not a list of A, I and R"),
        ("receivers = ['|HOSP']", "receivers .* not a list of APPLICATION or"),
        ("receivers = ['A|B|C']", "receivers .* not a list of APPLICATION or"),
        ("groups = 'merge'", "groups .* neither 'snapshot' nor 'add'"),
    ],
)
def test_what_these_keys_may_not_say(tmp_path: Path, line: str, sentence: str) -> None:
    with pytest.raises(Misconfigured, match=sentence):
        sources(tmp_path, f"{LOCAL}{line}\n")
