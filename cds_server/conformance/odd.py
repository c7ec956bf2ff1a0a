"""Check 4: what the conformance suite does not look at, and an EHR meets sooner or later: a server when things are odd.

Only the status map and the words of CDS Hooks 2.0.1 are required of a stranger's server; what is merely wise is a
warning.
"""

from __future__ import annotations

import base64
import json
import re
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from cds_server.conformance import answers
from cds_server.conformance.peer import Peer, Said, Signer
from cds_server.conformance.requests import Bodies
from cds_server.conformance.results import Result, judged, unseen
from cds_server.conformance.sound import Called
from models.nouns import JSON

MARK = "conformance-mark-7f3a9c"
"""Sent where it should not come back."""
STRANGER = "https://conformance-stranger.example"
"""An origin that nobody configured."""
_STACK = re.compile(rb"Traceback|Exception in thread|\bat [\w.$]+\([\w.]+:\d+\)|\.py\", line \d+|node_modules")
QUICK = 0.5
"""Seconds: CDS Services SHOULD respond quickly, on the order of 500 ms (2.0.1, Calling a CDS Service)."""


def odd_checks(peer: Peer, bodies: Bodies, called: Called, cards: Called | None) -> Iterator[Result]:
    """`called`: a call that was answered with 200. `cards`: one that was answered with a card, if any."""
    yield from _refusals(peer, bodies, called.service)
    yield from _prefetch(peer, bodies, called)
    yield from _patience(called)
    yield from _feedback(peer, called, cards)
    yield from _origins(peer, called.service)
    if peer.signer is not None:
        yield from _tokens(peer, peer.signer, bodies, called.service)


# ---- 4.1: what is wrong is refused -----------------------------------------------------------------------------------


def _refusals(peer: Peer, bodies: Bodies, service: JSON) -> Iterator[Result]:
    url, sound = peer.service_url(service["id"]), bodies.of(service)
    whole = json.dumps(sound)
    broken = {
        "not JSON": whole[:-1],
        "NaN": whole[:-1] + ', "x": NaN}',
        "no object": json.dumps([MARK]),
        "no hookInstance": json.dumps(_without(sound, "hookInstance")),
        "hookInstance is no UUID": json.dumps({**sound, "hookInstance": MARK}),
        "no context": json.dumps(_without(sound, "context")),
        "context without patientId": json.dumps({**sound, "context": _without(sound["context"], "patientId")}),
        "another hook": json.dumps({**sound, "hook": f"org.example.{MARK}"}),
    }
    said = {name: peer.post(url, body.encode()) for name, body in broken.items()}
    said["text/plain"] = peer.post(url, whole.encode(), content_type="text/plain")
    taken = [f"{name}: {_answered(each)}" for name, each in said.items() if not 400 <= each.status < 500]
    yield judged("4.01", "a body that breaks the contract answers 4xx, never an empty success", "", taken)
    unknown = peer.call(f"no-such-service-{uuid.uuid4().hex[:8]}", sound)
    yield judged("4.02", "an unknown service answers 404", "", [] if unknown.status == 404 else [_answered(unknown)])
    errors = {**said, "unknown service": unknown}
    spoken = [name for name, each in errors.items() if _STACK.search(each.raw)]
    yield judged("4.03", "no error shows a stack", "", [f"{name}: a stack" for name in spoken])
    echoed = [f"{name}: the input came back" for name, each in errors.items() if MARK.encode() in each.raw]
    yield judged("4.04", "no error echoes what was sent", "", echoed)
    plain = [f"{name}: no OperationOutcome" for name, each in errors.items() if not _outcome(each)]
    yield judged("4.05", "an error is an OperationOutcome (CDS Hooks 3.0)", "", plain, owed=False)
    loose = {
        "a name twice": whole[:-1] + f', "hook": {json.dumps(sound["hook"])}}}',
        "a lone surrogate": whole[:-1] + r', "x": "\ud800"}',
        "NUL": whole[:-1] + r', "x": "\u0000"}',
    }
    lax = [f"{name}: {_answered(each)}" for name, body in loose.items() if (each := peer.post(url, body.encode())).ok]
    yield judged("4.06", "JSON that two readers read differently is refused", "", lax, owed=False)
    slash = peer.send("GET", f"{peer.discovery_url}/")
    moved = [f"a slash at the end answers {slash.status}"] if 300 <= slash.status < 400 else []
    yield judged("4.07", "nothing redirects", "", moved)


def _without(members: JSON, name: str) -> dict[str, Any]:
    return {key: value for key, value in members.items() if key != name}


def _answered(said: Said) -> str:
    return f"answered {said.status}" if said.status else "no answer"


def _outcome(said: Said) -> bool:
    try:
        body = said.json()
    except ValueError:
        return False
    return isinstance(body, dict) and body.get("resourceType") == "OperationOutcome" and bool(body.get("issue"))


# ---- 4.2: data that lack ---------------------------------------------------------------------------------------------


def _prefetch(peer: Peer, bodies: Bodies, called: Called) -> Iterator[Result]:
    """Absent, null and OperationOutcome: each is answered with guidance, or with 412."""
    service = called.service
    keys = list(service.get("prefetch") or {})
    title = "prefetch that lacks is answered by 200 or 412"
    if not keys:
        yield unseen("4.10", title, called.about, "the service asks for none")
        return
    failed = {"resourceType": "OperationOutcome", "issue": [{"severity": "error", "code": "exception"}]}
    ways: dict[str, JSON | None] = {
        "absent": None,
        "null": dict.fromkeys(keys),
        "OperationOutcome": dict.fromkeys(keys, failed),
        "unasked": {"unasked-key": None},
    }
    wrong = []
    for name, prefetch in ways.items():
        body = _without(bodies.of(service), "prefetch")
        said = peer.call(service["id"], body if prefetch is None else {**body, "prefetch": prefetch})
        if said.status not in (200, 412):
            wrong.append(f"{name}: {_answered(said)}")
        elif said.status == 200 and not _has_cards_member(said):
            wrong.append(f"{name}: 200 without cards")
    yield judged("4.10", title, called.about, wrong)


def _has_cards_member(said: Said) -> bool:
    try:
        body = said.json()
    except ValueError:
        return False
    return isinstance(body, dict) and isinstance(body.get("cards"), list)


def _patience(called: Called) -> Iterator[Result]:
    took = called.said.seconds
    slow = [] if took <= QUICK else [f"{1000 * took:.0f} ms"]
    yield judged("4.11", "an answer within 500 ms", called.about, slow, owed=False)


# ---- 4.3: feedback ---------------------------------------------------------------------------------------------------


def _feedback(peer: Peer, called: Called, spoke: Called | None) -> Iterator[Result]:
    """The endpoint is optional; where there is one, it keeps the contract."""
    title = "feedback is taken, also twice and for an unknown card"
    service = (spoke or called).service
    url = f"{peer.service_url(service['id'])}/feedback"
    uuids = answers.uuids_of({"cards": [answers.cards_of(spoke.body)[0]]}) if spoke else []
    items = [_item(uuids[0])] if uuids else []
    stranger = peer.post(url, _batch(_item(str(uuid.uuid4()))))
    if stranger.status in (404, 405, 501):
        yield unseen("4.20", title, "", f"there is no feedback endpoint ({stranger.status})")
        return
    wrong = [] if stranger.ok else [f"unknown card: {_answered(stranger)}"]
    for name, body in (("once", items), ("twice", items), ("two items", [*items, _item(str(uuid.uuid4()))])):
        said = peer.post(url, _batch(*body)) if body else stranger
        wrong += [] if said.ok else [f"{name}: {_answered(said)}"]
    yield judged("4.20", title, "", wrong)
    sound = _item(str(uuid.uuid4()))
    broken = {
        "no card": _without(sound, "card"),
        "outcome maybe": {**sound, "outcome": "maybe"},
        "no outcomeTimestamp": _without(sound, "outcomeTimestamp"),
        "accepted without acceptedSuggestions": _without({**sound, "outcome": "accepted"}, "overrideReason"),
    }
    taken = [
        f"{name}: {_answered(said)}"
        for name, item in broken.items()
        if not 400 <= (said := peer.post(url, _batch(sound, item))).status < 500
    ]
    yield judged("4.21", "a batch with a broken item is refused", "", taken, owed=False)


def _item(card: str) -> dict[str, Any]:
    reason = {"code": "conformance-check", "system": "https://conformance.example/reasons"}
    at = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    return {"card": card, "outcome": "overridden", "overrideReason": {"reason": reason}, "outcomeTimestamp": at}


def _batch(*items: JSON) -> bytes:
    return json.dumps({"feedback": items}).encode()


# ---- 4.4: origins ----------------------------------------------------------------------------------------------------


def _origins(peer: Peer, service: JSON) -> Iterator[Result]:
    """No page of a stranger may call with somebody's credentials."""
    asked = {
        "origin": STRANGER,
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,content-type",
    }
    said = peer.send("OPTIONS", peer.service_url(service["id"]), headers=asked)
    allowed = said.headers.get("access-control-allow-origin", "")
    with_credentials = said.headers.get("access-control-allow-credentials") == "true"
    wrong = [f"{allowed} with credentials"] if allowed in (STRANGER, "*") and with_credentials else []
    wrong += ["the preflight answers an error of the server"] if said.status >= 500 or not said.status else []
    yield judged("4.30", "a stranger's page is not let in with credentials", "", wrong)


# ---- 4.5: tokens -----------------------------------------------------------------------------------------------------


def _tokens(peer: Peer, signer: Signer, bodies: Bodies, service: JSON) -> Iterator[Result]:
    """Every token that is not sound answers 401, alike for every cause."""
    url, now = peer.service_url(service["id"]), int(time.time())
    elsewhere = f"{STRANGER}/cds-services/{service['id']}"
    used = signer.token(url)
    peer.post(url, json.dumps(bodies.of(service)).encode(), authorization=f"Bearer {used}")
    bad = {
        "no token": "",
        "no scheme": signer.token(url),
        "another algorithm: none": f"Bearer {_unsigned(signer.token(url))}",
        "a changed claim": f"Bearer {_changed(signer.token(url))}",
        "another audience": f"Bearer {signer.token(elsewhere)}",
        "another issuer": f"Bearer {signer.token(url, iss=STRANGER)}",
        "expired": f"Bearer {signer.token(url, iat=now - 7200, exp=now - 3600)}",
        "no exp": f"Bearer {signer.token(url, exp=...)}",
        "no jti": f"Bearer {signer.token(url, jti=...)}",
        "used before": f"Bearer {used}",
    }
    said = {
        name: peer.post(url, json.dumps(bodies.of(service)).encode(), authorization=token)
        for name, token in bad.items()
    }
    wrong = [f"{name}: {_answered(each)}" for name, each in said.items() if each.status != 401]
    yield judged("4.40", "a token that is not sound answers 401", "", wrong)
    told = {(each.status, each.raw) for each in said.values() if each.status == 401}
    yield judged(
        "4.41", "a 401 does not tell its cause", "", ["the answers differ"] if len(told) > 1 else [], owed=False
    )
    bare = peer.send("GET", peer.discovery_url, headers={"authorization": ""})
    yield judged(
        "4.42", "discovery wants a token, too", "", [] if bare.status == 401 else [_answered(bare)], owed=False
    )


def _unsigned(token: str) -> str:
    header, claims, _ = token.split(".")
    told = json.loads(base64.urlsafe_b64decode(header + "=" * (-len(header) % 4)))
    return f"{_part({**told, 'alg': 'none'})}.{claims}."


def _changed(token: str) -> str:
    header, claims, signature = token.split(".")
    told = json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))
    return f"{header}.{_part({**told, 'jti': str(uuid.uuid4())})}.{signature}"


def _part(value: JSON) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()
