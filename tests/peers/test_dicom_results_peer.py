"""From the objects of a study to the report that Orthanc keeps of its score: both ways out, with real senders."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from cds_server.app import Parts
from cds_server.destinations import destinations
from cds_server.sending import Sender
from cds_server.settings import load
from tests.cds_server.test_continuous import ILL, WELL
from tests.cds_server.test_outgoing_reports import ARCHIVE, arrive, header, images, vital_signs
from tests.cds_server.test_results_due import opened, queued
from tests.dicom_made import uid
from tests.peers.pacs import Pacs, free_ports

US = "RESULTSCU"


@pytest.fixture
def parts(pacs: Pacs, data_dir: Path) -> Iterator[Parts]:
    (word,) = free_ports(1)
    pacs.introduce(US, word)
    said = f'ae_title = "ORTHANC"\nour_ae_title = "{US}"\ncommitment = true\ncommitment_listen = "127.0.0.1:{word}"'
    text = ARCHIVE.replace('port = 104\nae_title = "PACS"', f"port = {pacs.port}\n{said}")
    text = text.replace("http://127.0.0.1:8042/dicom-web", pacs.dicomweb)
    config = data_dir / "cds.toml"
    config.write_text(text)
    url = f"sqlite:///{data_dir / 'cds.db'}"
    yield from opened(load({"CDS_CONFIG": str(config)}, data_dir=data_dir, database_url=url, trust="open"))


def send(parts: Parts, *names: str) -> None:
    """Until everything that is queued for them was taken."""

    async def run() -> None:
        stopping = asyncio.Event()
        found = destinations(parts.settings)
        senders = [asyncio.create_task(Sender(parts.store, found[each], stopping).run()) for each in names]
        try:
            async with asyncio.timeout(60):
                while not all(  # noqa: ASYNC110 (what is looked at is a database)
                    job.state == "acknowledged" for each in names for job in queued(parts, each)
                ):
                    await asyncio.sleep(0.1)
        finally:
            stopping.set()
            await asyncio.gather(*senders)

    asyncio.run(run())


def test_a_score_of_a_study_comes_to_stand_beside_it(parts: Parts, pacs: Pacs) -> None:
    assert set(pacs.load(images())) == {200}
    arrive(parts, *images(), vital_signs(1, ILL))
    arrive(parts, vital_signs(2, WELL, replaces=1))
    send(parts, "archive", "web")
    asked = json.dumps({"Level": "Instance", "Expand": True, "Query": {"StudyInstanceUID": str(uid("out"))}}).encode()
    held = {each["MainDicomTags"]["SOPInstanceUID"] for each in json.loads(pacs.ask("POST", "/tools/find", asked)[1])}
    for name in ("archive", "web"):
        sent = [header(job) for job in queued(parts, name)]
        assert len(sent) == 2
        assert {each.sop_uid for each in sent} <= held
    assert len(held) == 3 + 4  # the images as they were, and the reports
