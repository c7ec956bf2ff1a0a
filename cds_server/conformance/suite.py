"""The black-box check of a CDS Hooks server, from discovery to its table."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from cds_server.conformance.answers import cards_of
from cds_server.conformance.odd import odd_checks
from cds_server.conformance.peer import Peer
from cds_server.conformance.requests import Bodies
from cds_server.conformance.results import Result, unseen
from cds_server.conformance.sound import Called, across, call, discovery, service_checks
from cds_server.hooks.published import HOOKS
from models.nouns import JSON

Progress = Callable[[int, int], None]


def check(
    peer: Peer,
    bodies: Bodies,
    *,
    only: Sequence[str] = (),
    as_crd: bool = False,
    oddities: bool = True,
    progress: Progress | None = None,
) -> list[Result]:
    """Every check, in the order of its number. `only`: ids of services. Errors: PeerFailed where nobody answers."""
    results, services = discovery(peer)
    chosen = [service for service in services if not only or service["id"] in only]
    calls = _calls(peer, bodies, chosen, progress)
    for called in calls:
        results += service_checks(called, as_crd=as_crd)
    results += across(calls, as_crd=as_crd) if calls else [_nothing_to_call(services)]
    sound = next((called for called in calls if called.said.status == 200), None)
    if oddities and sound is not None:
        results += odd_checks(peer, bodies, sound, _with_a_card(calls))
    return results


def _calls(peer: Peer, bodies: Bodies, services: Sequence[JSON], progress: Progress | None) -> list[Called]:
    calls = []
    for ordinal, service in enumerate(services):
        calls.append(call(peer, bodies, service))
        if progress is not None:
            progress(ordinal + 1, len(services))
    return sorted(calls, key=lambda called: called.service["hook"] not in HOOKS)


def _with_a_card(calls: Sequence[Called]) -> Called | None:
    told = (called for called in calls if called.said.status == 200 and cards_of(called.body))
    return next((called for called in told if "uuid" in cards_of(called.body)[0]), None)


def _nothing_to_call(services: Sequence[JSON]) -> Result:
    why = "no service is offered" if not services else "no service of that name is offered"
    return unseen("3", "a service is called", "", why, owed=bool(services))
