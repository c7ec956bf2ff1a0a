"""What a call brings: the resources of its prefetch, and those that were read for it from its EHR's FHIR server.

Both belong to the context's patient or refuse the call as a safety event. The token is used here, for this call, and
stands in nothing that is kept.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from adapters.fhir_read import Door, FhirServer, Reading, same
from adapters.readers import cds_hooks
from adapters.readers.subjects import subject_of
from cds_server.configured import reachable
from cds_server.deadline import FETCHED, Clock
from cds_server.hooks import prefetch
from cds_server.hooks.context import HookRequest, set_aside
from cds_server.hooks.routes import Caller
from cds_server.hooks.service import ServiceSpec
from cds_server.reading import PartRead, Read, reads_of
from cds_server.settings import Settings
from models import strict
from models.errors import BadInput, DataUnavailable, PeerFailed, WrongPatient
from models.nouns import JSON


@dataclass(frozen=True, slots=True)
class Brought:
    """What a call brings: its own part, and as a second one what was read for it."""

    parts: tuple[PartRead, ...]
    settled: bool
    """Each of its resources says by itself that it is the patient's, or is about nobody."""
    fetched: bytes | None = field(default=None, repr=False)
    """Each body as the FHIR server sent it, in the form of a prefetch; without the token."""
    lacking: tuple[str, ...] = ()
    """What was asked for and is not there, or not all: told on the card."""
    short: DataUnavailable | None = None
    """What the service needs did not come: the answer is 412."""

    @property
    def instead(self) -> DataUnavailable | None:
        """What is answered where there is nothing to say, but something lacks: that is not no guidance."""
        if not self.lacking:
            return None
        return DataUnavailable("there is nothing to say without data that did not come", where="; ".join(self.lacking))

    @property
    def reads(self) -> tuple[Read, ...]:
        return (
            self.parts[0].reads if len(self.parts) == 1 else tuple(read for part in self.parts for read in part.reads)
        )


class Refused(Exception):
    """A call's data refuse the call; carries what was read for it, which is kept like the rest."""

    def __init__(self, error: BadInput, fetched: bytes | None = None) -> None:
        super().__init__(error.what)
        self.error = error
        self.fetched = fetched


class Bringing:
    """Takes together what a call brings."""

    def __init__(self, settings: Settings, door: Door | None) -> None:
        self._settings = settings
        self._door = door

    async def read(self, spec: ServiceSpec, request: HookRequest, caller: Caller, clock: Clock) -> Brought:
        """What the prefetch states, and what was read from the FHIR server where something lacked.

        Raises: Refused, where a resource is another patient's (WrongPatient) or cannot be read.
        """
        try:
            own, settled = self._own(request)
        except BadInput as error:
            raise Refused(error) from None
        had = await prefetch.complete(spec.prefetch, request, self._reader(request, caller, clock), clock.left(FETCHED))
        fetched = prefetch.bring(request, had)
        lacking, short = had.lacking, had.need(spec.required)
        if fetched is None:
            return Brought((own,), settled, None, lacking, short)
        second, settled_too = _second(request, fetched)
        return Brought((own, second), settled and settled_too, fetched, lacking, short)

    def _own(self, request: HookRequest) -> tuple[PartRead, bool]:
        granted = request.fhir_authorization
        if granted is not None and granted.patient not in (None, request.patient_id):
            raise WrongPatient("the token is another patient's", where="/fhirAuthorization/patient")
        return _part(0, request, {"prefetch": request.prefetch, "fhirServer": request.fhir_server})

    def _reader(self, request: HookRequest, caller: Caller, clock: Clock) -> prefetch.FhirRead | None:
        """Reads for this call; None where it brought no token, or names a server that is not its EHR's."""
        granted, base = request.fhir_authorization, request.fhir_server
        if granted is None or base is None or self._door is None or granted.expires_in <= 0:
            return None
        allowed = self._settings.ehr(caller.namespace).allowed_fhir
        if not any(same(base, each) and reachable(each) for each in allowed):
            return None
        server = FhirServer(self._door, base, granted.access_token, self._settings.max_body, set_aside)

        async def fhir_read(url: str) -> Reading:
            began = time.monotonic()
            try:
                reading = await server.read(url)
            finally:
                clock.waited = max(clock.waited, time.monotonic() - began)
            for _, resource in reading.pages:
                try:
                    cds_hooks.read_request({"prefetch": {"page": resource}})
                except BadInput:
                    raise PeerFailed("answered with what cannot be read") from None
            return reading

        return fhir_read


def _second(request: HookRequest, fetched: bytes) -> tuple[PartRead, bool]:
    """What was read from the FHIR server, and whether it is settled. Raises: Refused."""
    try:
        return _part(1, request, strict.loads(fetched, what="what was read"))
    except BadInput as error:
        raise Refused(error, fetched) from None


def _part(ordinal: int, request: HookRequest, body: JSON) -> tuple[PartRead, bool]:
    """One part, and whether it is settled: each resource says by itself that it is the patient's, or is about nobody.

    Where one does not, or cannot be read, or holds others (a Bundle in a Bundle), every resource there is is looked at
    for another patient. That one was found is said rather than that something cannot be read.

    Raises: WrongPatient, Unreadable.
    """
    try:
        reads = reads_of(cds_hooks.read_request(body))
    except BadInput:
        prefetch.check_patient(request, subject_of, body["prefetch"])
        raise
    patient_id = request.patient_id
    settled, nested = True, False
    for read in reads:
        if read.subject is None:
            nested = nested or read.statement.resource_type == "Bundle"
        elif read.subject.local_id != patient_id:
            settled = False
    if nested or not settled:
        prefetch.check_patient(request, subject_of, body["prefetch"])
    return PartRead(ordinal, reads), settled
