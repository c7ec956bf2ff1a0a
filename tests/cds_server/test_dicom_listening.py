"""What a `[[source]]` of kind `dicom-storage` may say, and what stops the start."""

from __future__ import annotations

import ipaddress
from pathlib import Path

import pytest

from adapters.sources.dicom_storage import Peer
from cds_server.dicom_listening import FREE_MB, listen, listens, storage_sources
from cds_server.settings import Settings, load
from cds_server.storage_process import StorageSource
from models.errors import Misconfigured

GIVEN = ("listen = '127.0.0.1:11112'", "ae_title = 'OURS'")


def settings(folder: Path, *lines: str) -> Settings:
    config = folder / "cds.toml"
    source = ("[[source]]", "name = 'pacs'", "kind = 'dicom-storage'", "namespace = 'hospital'", *lines, "")
    config.write_text("\n".join(source))
    return load({"CDS_CONFIG": str(config)}, data_dir=folder / "var", trust="open")


def read(folder: Path, *lines: str) -> StorageSource:
    return storage_sources(settings(folder, *lines))["pacs"]


def test_the_least_that_is_said(tmp_path: Path) -> None:
    source = read(tmp_path, *GIVEN)
    at = source.listening
    assert (source.namespace, at.host, at.port, at.ae_title) == ("hospital", "127.0.0.1", 11112, "OURS")
    assert (at.peers, at.tls, at.on_conflict, at.ignore_case) == ((), None, "keep", False)
    assert (at.max_associations, at.min_free) == (32, FREE_MB << 20)
    assert (at.request_seconds, at.idle_seconds, at.stall_seconds) == (30, 60, 30)
    assert listens(settings(tmp_path, *GIVEN))


def test_all_that_may_be_said(tmp_path: Path) -> None:
    at = read(
        tmp_path,
        "listen = '10.1.2.3:104'",
        "ae_title = 'OURS'",
        "peers = [{ ae_title = 'PACS', address = '10.1.2.4' }, { ae_title = 'CT1', address = ['10.2.0.0/16', '::1'] }]",
        "ignore_case = true",
        "on_conflict = 'refuse'",
        "max_associations = 4",
        "min_free_mb = 5",
        "idle_seconds = 600",
    ).listening
    first, second = at.peers
    assert first == Peer("PACS", (ipaddress.ip_network("10.1.2.4"),))
    assert [str(each) for each in second.networks] == ["10.2.0.0/16", "::1/128"]
    assert (at.on_conflict, at.max_associations, at.min_free, at.idle_seconds) == ("refuse", 4, 5 << 20, 600)
    assert second.at("10.2.9.9")
    assert second.at("::ffff:10.2.9.9")
    assert not second.at("10.3.0.1")
    assert not second.at("nonsense")


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (("ae_title = 'OURS'",), "has no listen"),
        (("listen = '127.0.0.1:11112'",), "has no ae_title"),
        (("listen = 'here'", "ae_title = 'OURS'"), "is not HOST:PORT"),
        (("listen = '127.0.0.1:1'", "ae_title = 'SEVENTEEN_LETTERS'"), "is no AE title"),
        (("listen = '127.0.0.1:1'", "ae_title = 'A\\B'"), "is no AE title"),
        ((*GIVEN, "on_conflict = 'drop'"), "is neither 'keep' nor 'refuse'"),
        ((*GIVEN, "peers = ['PACS']"), "is not a list of tables"),
        ((*GIVEN, "peers = [{ address = '10.1.2.4' }]"), "has no ae_title"),
        ((*GIVEN, "peers = [{ ae_title = 'PACS', address = 'pacs.local' }]"), "is no address"),
        ((*GIVEN, "peers = [{ ae_title = 'PACS', adress = '10.1.2.4' }]"), "unknown key 'adress'"),
        ((*GIVEN, "retries = 3"), "unknown key 'retries'"),
        ((*GIVEN, "max_associations = 0"), "between 1 and"),
        (("listen = '10.1.2.3:104'", "ae_title = 'OURS'"), "without TLS beyond this machine"),
        (("listen = '10.1.2.3:104'", "ae_title = 'OURS'", "peers = [{ ae_title = 'PACS' }]"), "without TLS beyond"),
        (
            ("listen = '0.0.0.0:104'", "ae_title = 'OURS'", "peers = [{ ae_title = 'P', address = '10.0.0.1' }]"),
            "without TLS on every interface",
        ),
        ((*GIVEN, "tls_cert_file = 'a.pem'"), "belong together"),
    ],
)
def test_what_stops_the_start(tmp_path: Path, lines: tuple[str, ...], said: str) -> None:
    with pytest.raises(Misconfigured, match=said) as error:
        read(tmp_path, *lines)
    assert "cds.toml" in str(error.value)


def test_a_name_that_does_not_listen_is_answered_with_those_that_do(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match=r"by that name in cds\.toml: pacs"):
        listen(settings(tmp_path, *GIVEN), ["pax"])
