"""A `[[destination]]` of kind `fhir`: an EHR's FHIR server that results go to as RiskAssessment and Provenance."""

from __future__ import annotations

from adapters.sinks.fhir import NAME, FhirServer
from cds_server.configured import Table
from cds_server.dicom_destinations import Archive
from cds_server.dicomweb_access import KEYS as WEB
from cds_server.dicomweb_access import access
from cds_server.settings import Settings

KEYS = {NAME: WEB}


def read(table: Table, settings: Settings) -> Archive:
    """Raises: Misconfigured, one sentence that names the key and the file."""
    web = access(table, settings)

    def check() -> None:
        web.door()

    return Archive(lambda: FhirServer(web.url, web.door, web.headers), check)
