"""Checks 1 to 3: discovery, calls and their answers, by the numbers of the conformance suite (Inferno, CRD server)."""

from __future__ import annotations

import socket
import ssl
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from cds_server.conformance import answers, crd, requests
from cds_server.conformance.peer import Peer, Said
from cds_server.conformance.requests import Bodies
from cds_server.conformance.results import Result, Verdict, judged, unseen
from cds_server.hooks.published import HOOKS
from cds_server.hooks.templates import lint
from models.nouns import JSON

GROUPS: Mapping[str, str] = {
    "appointment-book": "3.1",
    "encounter-start": "3.2",
    "encounter-discharge": "3.3",
    "order-select": "3.4",
    "order-dispatch": "3.5",
    "order-sign": "3.6",
}
"""The suite's group of a hook; what it does not know is numbered 2, as it calls a demonstration of any hook."""
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_TEXTS = ("hook", "description", "id")


@dataclass(frozen=True, slots=True)
class Called:
    """One service, called once."""

    service: JSON
    sent: JSON
    said: Said
    body: Any
    """None: not JSON."""

    @property
    def about(self) -> str:
        return about(self.service)


def about(service: JSON) -> str:
    return f"{service['id']} ({service['hook']})"


# ---- 1: discovery ----------------------------------------------------------------------------------------------------


def discovery(peer: Peer) -> tuple[list[Result], list[JSON]]:
    """Checks 1.01 to 1.04, and the services that can be called."""
    said = peer.discover()
    results = [_tls(peer.base)]
    wrong = [] if said.status == 200 else [f"status {said.status}"]
    body = _json(said)
    wrong += [] if body is not None else ["the body is not JSON"]
    wrong += [] if _is_json_type(said) else ["the content type is not application/json"]
    results.append(judged("1.02", "GET /cds-services answers 200 with JSON", "", wrong))
    services, wrong = _services(body)
    results.append(judged("1.03", "services is a list; each has hook, description and id", "", wrong))
    results.append(judged("1.04", "discovery is legal: ids, empty members, prefetch templates", "", _legal(services)))
    titles = [f"{about(each)}: no title" for each in services if not each.get("title")]
    results.append(judged("1.05", "each service has a title", "", titles, owed=False))
    repeated = [f"{id_}: a client that keys services by URL sees one of them" for id_ in _repeated(services)]
    results.append(judged("1.06", "each service has an id of its own", "", repeated, owed=False))
    return results, services


def _tls(base: str) -> Result:
    """1.01: TLS 1.2 or better. Plain HTTP is for a server on this machine only."""
    parts = urlsplit(base)
    title, host = "TLS 1.2 or better", parts.hostname or ""
    if parts.scheme != "https":
        if host in _LOOPBACK:
            return Result("1.01", title, "", Verdict.UNSEEN, "plain HTTP, on this machine")
        return judged("1.01", title, "", ["plain HTTP"])
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # the calls themselves check whose it is
    try:
        with (
            socket.create_connection((host, parts.port or 443), timeout=5) as plain,
            context.wrap_socket(plain, server_hostname=host) as secured,
        ):
            version = secured.version() or "none"
    except OSError as error:
        return judged("1.01", title, "", [f"no TLS connection ({type(error).__name__})"])
    return judged("1.01", title, "", [] if version in ("TLSv1.2", "TLSv1.3") else [version])


def _services(body: Any) -> tuple[list[JSON], list[str]]:
    listed = body.get("services") if isinstance(body, dict) else None
    if not isinstance(listed, list):
        return [], ["/services: not an array"]
    sound, wrong = [], []
    for ordinal, service in enumerate(listed):
        lacking = [name for name in _TEXTS if not _text(service, name)]
        wrong += [f"/services/{ordinal}/{name}: not a text" for name in lacking]
        if not lacking:
            sound.append(service)
    return sound, wrong


def _text(service: Any, name: str) -> bool:
    value = service.get(name) if isinstance(service, dict) else None
    return isinstance(value, str) and bool(value.strip())


def _legal(services: Sequence[JSON]) -> list[str]:
    wrong = []
    for service in services:
        empty = [name for name, value in service.items() if value is None or value in ("", [], {})]
        wrong += [f"{about(service)}: {name} is empty" for name in empty]
        if urlsplit(f"http://x/{service['id']}").path != f"/{service['id']}" or "/" in service["id"]:
            wrong.append(f"{about(service)}: the id is no segment of a URL")
        templates = service.get("prefetch", {})
        if not isinstance(templates, dict) or not all(isinstance(each, str) for each in templates.values()):
            wrong.append(f"{about(service)}: prefetch is no object of texts")
            continue
        context = HOOKS.get(service["hook"])
        if context is not None:  # of a hook of somebody's own we do not know the fields
            wrong += [f"{about(service)}, {k}: {each}" for k, t in templates.items() for each in lint(t, context)]
    pairs = Counter((service["id"], service["hook"]) for service in services)
    return wrong + [f"{id_} stands twice on {hook}" for (id_, hook), count in pairs.items() if count > 1]


def _repeated(services: Sequence[JSON]) -> list[str]:
    return [id_ for id_, count in Counter(service["id"] for service in services).items() if count > 1]


# ---- 2 and 3: each service -------------------------------------------------------------------------------------------


def call(peer: Peer, bodies: Bodies, service: JSON) -> Called:
    sent = bodies.of(service)
    said = peer.call(service["id"], sent)
    return Called(service, sent, said, _json(said))


def service_checks(called: Called, *, as_crd: bool) -> Iterator[Result]:
    """Checks .01 to .11 of one call, and those of suggestions."""
    hook, subject, body = called.service["hook"], called.about, called.body
    group = GROUPS.get(hook, "2")
    wrong = [] if called.said.status == 200 else [_status(called.said)]
    wrong += [] if body is not None else ["the answer is not JSON"]
    wrong += [] if _is_json_type(called.said) else ["the content type is not application/json"]
    yield judged(f"{group}.01", "the call answers 200 with JSON", subject, wrong)
    yield judged(f"{group}.02", "request: required members", subject, requests.check_required(hook, called.sent))
    known = hook in HOOKS or "patientId" in called.sent["context"]
    checked = requests.check_context(called.sent) if known else []
    yield judged(f"{group}.03", "request: context of the hook", subject, checked)
    yield judged(f"{group}.04", "request: optional members", subject, requests.check_optional(called.sent), owed=False)
    if called.said.status != 200 or body is None:
        return
    wrong = answers.check_required(body)
    if as_crd:
        wrong += crd.topics(body) + crd.system_actions(hook, body)
    yield judged(f"{group}.05", "answer: required members", subject, wrong)
    yield judged(
        f"{group}.06", "answer: optional members are right, none is empty", subject, answers.check_optional(body)
    )
    yield from _kinds(group, subject, body)
    yield from _covered(group, subject, body, owed=as_crd and hook in crd.NEED_SYSTEM_ACTIONS)
    yield from _proposals(group, called, owed=as_crd)


def _kinds(group: str, subject: str, body: Any) -> Iterator[Result]:
    for number, title, count in (
        ("07", "answer: an External Reference card", crd.external_references(body)),
        ("08", "answer: a Launch SMART App card", crd.smart_launches(body)),
        ("09", "answer: an Instructions card", crd.instructions(body)),
    ):
        if count:
            yield judged(f"{group}.{number}", title, subject, [])
        else:
            yield unseen(f"{group}.{number}", title, subject, "not seen")


def _covered(group: str, subject: str, body: Any, *, owed: bool) -> Iterator[Result]:
    actions = crd.coverage_information(body)
    title = "answer: Coverage Information"
    if not actions:
        yield unseen(f"{group}.10", title, subject, "not seen", owed=owed)
        return
    yield judged(f"{group}.10", title, subject, [])
    yield judged(f"{group}.11", f"{title} is valid", subject, crd.coverage_breaches(actions))


def _proposals(group: str, called: Called, *, owed: bool) -> Iterator[Result]:
    body, drafted = called.body, requests.drafts(called.sent)
    looked = [("14", "Request Form Completion", crd.form_completions(body)), ("15", "Coverage", crd.coverages(body))]
    if called.service["hook"] in ("order-select", "order-sign"):
        looked = [
            ("12", "Propose Alternate Request", crd.alternate_requests(body, drafted)),
            ("13", "Additional Orders", crd.additional_orders(body)),
            *looked,
        ]
    for number, title, (count, wrong) in looked:
        if count:
            yield judged(f"{group}.{number}", f"suggestion: {title}", called.about, wrong, owed=owed)
        else:
            yield unseen(f"{group}.{number}", f"suggestion: {title}", called.about, "not seen")


def across(calls: Sequence[Called], *, as_crd: bool) -> Iterator[Result]:
    """Check 3.7: what at least one hook must have shown, for the guide."""
    told = [called for called in calls if called.said.status == 200 and called.body is not None]
    for number, title, found in (
        ("3.7.01", "some hook answers an External Reference card", any(crd.external_references(c.body) for c in told)),
        ("3.7.02", "some hook answers an Instructions card", any(crd.instructions(c.body) for c in told)),
        ("3.7.03", "some hook answers Coverage Information", any(crd.coverage_information(c.body) for c in told)),
    ):
        yield judged(number, title, "", []) if found else unseen(number, title, "", "not seen", owed=as_crd)
    uuids = [uuid for called in told for uuid in answers.uuids_of(called.body)]
    twice = ["a uuid occurs in two answers"] if len(set(uuids)) != len(uuids) else []
    yield judged("3.7.04", "each card and suggestion has a uuid of its own", "", twice)
    unnamed = [called.about for called in told if any("uuid" not in card for card in answers.cards_of(called.body))]
    yield judged("3.7.05", "each card has a uuid, so that feedback can be given", "", unnamed, owed=False)
    guided = any(answers.cards_of(called.body) or called.body.get("systemActions") for called in told)
    silent = [] if guided else ["every answer was without guidance: send bodies that your services speak on"]
    yield judged("3.7.06", "some call was answered with guidance", "", silent, owed=False)


def _status(said: Said) -> str:
    return f"status {said.status}" if said.status else "no answer in time"


def _is_json_type(said: Said) -> bool:
    essence = said.headers.get("content-type", "").partition(";")[0].strip().lower()
    return essence == "application/json" or essence.endswith("+json")


def _json(said: Said) -> Any:
    try:
        return said.json()
    except ValueError:
        return None
