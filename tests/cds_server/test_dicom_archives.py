"""What a source of images says of its archive, and that its rules are for its images only."""

from __future__ import annotations

from pathlib import Path

import pytest

from adapters.dicom.part10 import MEDIA_TYPE
from adapters.imaging.examine import Looking
from adapters.imaging.full_set import FullSet
from adapters.readers.fhir import LINE
from cds_server.backlog import digest_backlog
from cds_server.dicom_archives import archive_of
from cds_server.imaging.choices import choices
from cds_server.imaging.work import Imaging
from cds_server.settings import Settings, load
from cds_server.source_rules import rules_of
from cds_server.store.store import Store
from models.errors import Misconfigured
from tests.cds_server.stores import ACTOR, JOINING, land_parts
from tests.cds_server.test_imaging import imaging
from tests.dicom_made import ct_series, part10

STORAGE = """
[[source]]
name = "test"
kind = "dicom-storage"
namespace = "a"
listen = "127.0.0.1:0"
ae_title = "CDS"
"""
ARCHIVE = """
issuer = "HOSP"
zone = "Europe/Berlin"
wado_base = "https://pacs.example.org/dicom-web/"
systems = { HOSP = "urn:oid:1.2.3" }
"""


def settings(tmp_path: Path, said: str) -> Settings:
    (tmp_path / "cds.toml").write_text(STORAGE + said)
    return load({"CDS_CONFIG": str(tmp_path / "cds.toml")})


def test_an_archive_is_what_its_source_says(tmp_path: Path) -> None:
    loaded = settings(tmp_path, ARCHIVE)
    archive = archive_of(loaded.sources[0], loaded)
    assert (archive.namespace, archive.issuer, archive.zone) == ("a", "HOSP", "Europe/Berlin")
    assert archive.wado_base == "https://pacs.example.org/dicom-web"
    assert dict(archive.systems) == {"HOSP": "urn:oid:1.2.3"}
    [[name, rules]] = rules_of(loaded).items()
    assert name == "test"
    other = settings(tmp_path, 'issuer = "OTHER"\n')
    assert rules_of(other)["test"].digest != rules.digest, "a redo reads anew what is read by other rules"


def test_what_is_made_of_a_study_is_what_its_source_says(tmp_path: Path) -> None:
    assert choices(settings(tmp_path, "")) == {"test": Looking()}
    said = "regions_by_rule = false\nkey_pictures = 0\nmax_voxels = 1000\n"
    assert choices(settings(tmp_path, said)) == {"test": Looking(max_voxels=1000, rules=False, pictures=0)}
    with pytest.raises(Misconfigured, match="encoder of"):
        choices(settings(tmp_path, f'encoder = "{tmp_path}/none.json"\n'))


def test_the_full_set_needs_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Misconfigured, match="mirp is not installed"):
        choices(settings(tmp_path, "radiomics = true\n"))
    monkeypatch.setattr("adapters.imaging.full_set.metadata.version", lambda _: "2.7.0")
    assert choices(settings(tmp_path, "radiomics = true\n"))["test"].full == FullSet("2.7.0")
    assert choices(settings(tmp_path, "radiomics = false\n"))["test"].full is None


def test_a_source_that_wants_no_rule_gets_no_region_of_a_rule(store: Store) -> None:
    for each in ct_series(slices=4):
        land_parts(store, [part10(each)], media_type=MEDIA_TYPE)
    Imaging(store, JOINING, {}, quiet=0.0, looking={"test": Looking(rules=False)}).some()
    media = store.reads.one("SELECT COUNT(*) FROM resource WHERE type = 'Media'")
    assert media is not None
    assert media[0] == 0


@pytest.mark.parametrize(
    ("said", "complaint"),
    [
        ('zone = "Nowhere/Land"\n', "zone of"),
        ('wado_base = "http://pacs.example.org"\n', "wado_base of"),
        ("systems = { HOSP = 1 }\n", "systems of"),
    ],
)
def test_what_is_wrong_is_said_by_its_key(tmp_path: Path, said: str, complaint: str) -> None:
    with pytest.raises(Misconfigured, match=complaint):
        rules_of(settings(tmp_path, said))


def test_one_source_may_bring_images_and_resources(store: Store, tmp_path: Path) -> None:
    """Rules of an archive are for the reader of images: a FHIR line of the same source is read without them."""
    rules = rules_of(settings(tmp_path, ARCHIVE))
    land_parts(store, [b'{"resourceType": "Patient", "id": "p"}'], media_type=LINE)
    for each in ct_series(slices=2):
        land_parts(store, [part10(each)], media_type=MEDIA_TYPE)
    assert digest_backlog(store, JOINING, ACTOR, rules=rules).quarantined == 0
    work = imaging(store, rules=rules)
    assert work.everything().quarantined == 0
    found = store.reads.query("SELECT reader FROM digestion ORDER BY id")
    assert ["dicom@1~" in row[0] for row in found] == [False, True, True, False]
    endpoints = store.reads.one("SELECT COUNT(*) FROM resource WHERE type = 'Endpoint'")
    assert endpoints is not None
    assert endpoints[0] == 1
