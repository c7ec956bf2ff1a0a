"""The envelope and the context of a hook call; the access token never becomes durable."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cds_server.hooks.context import HookRequest, parse, set_aside
from models.errors import BadInput, ContractBroken
from models.strict import loads

INSTANCE = "d1577c69-dfbe-44ad-ba6d-3e05e953b2ea"
AUTHORIZATION = {
    "access_token": "some-opaque-token",
    "token_type": "Bearer",
    "expires_in": 300,
    "scope": "user/Patient.read",
    "subject": "cds-service",
}


def a_body(**changes: Any) -> dict[str, Any]:
    body = {
        "hook": "patient-view",
        "hookInstance": INSTANCE,
        "context": {"userId": "Practitioner/7", "patientId": "1288992"},
        **changes,
    }
    return {name: member for name, member in body.items() if member is not ...}


def parsed(body: Any) -> HookRequest:
    raw = json.dumps(body).encode()
    return parse(raw, loads(raw))


def order_sign(peer_data: Path) -> bytes:
    return (peer_data / "cds-hooks" / "order_sign_hook_request.json").read_bytes()


def test_the_request_of_the_conformance_suite(peer_data: Path) -> None:
    raw = order_sign(peer_data)
    asked = parse(raw, loads(raw))
    assert (asked.hook, asked.patient_id, asked.user_id) == ("order-sign", "example", "Practitioner/example")
    assert asked.fhir_server == "https://example/r4"
    assert asked.fhir_authorization is not None
    assert asked.fhir_authorization.expires_in == 300
    assert "SAMPLE_TOKEN" not in repr(asked)
    assert b"SAMPLE_TOKEN" in raw
    assert b"SAMPLE_TOKEN" not in asked.without_token()
    assert asked.without_token() == raw.replace(b"SAMPLE_TOKEN", b"[set aside]")


def test_every_body_of_the_conformance_suite_is_held(peer_data: Path) -> None:
    bodies = sorted((peer_data / "cds-hooks").glob("*_hook_request.json"))
    assert len(bodies) == 7
    for path in bodies:
        raw = path.read_bytes()
        asked = parse(raw, loads(raw))
        assert asked.hook.replace("-", "_") == path.name.removesuffix("_hook_request.json")
        assert (asked.patient_id, asked.unknown) == ("example", ())


def test_order_select_and_encounter_start_are_known(peer_data: Path) -> None:
    selected, started = (
        parse(raw, loads(raw))
        for name in ("order_select", "encounter_start")
        for raw in [(peer_data / "cds-hooks" / f"{name}_hook_request.json").read_bytes()]
    )
    assert (selected.hook, selected.context["selections"][1]) == (
        "order-select",
        "MedicationRequest/smart-MedicationRequest-103",
    )
    assert (started.hook, started.context["encounterId"]) == ("encounter-start", "example")


@pytest.mark.parametrize("selections", [None, "MedicationRequest/1", ["1"], [1], [{}], ["MedicationRequest/<1>"]])
def test_selections_must_be_references(selections: Any) -> None:
    drafts = {"resourceType": "Bundle", "entry": []}
    context = {"userId": "Practitioner/7", "patientId": "1", "draftOrders": drafts, "selections": selections}
    with pytest.raises(ContractBroken, match=r"context\.selections"):
        parsed(a_body(hook="order-select", context=context))


def test_a_bare_call_needs_nothing_more() -> None:
    asked = parsed(a_body())
    assert (asked.prefetch, asked.fhir_server, asked.fhir_authorization) == (None, None, None)
    assert asked.without_token() == asked.raw


def test_unknown_members_are_kept_for_the_record() -> None:
    asked = parsed(a_body(vendor=1, context={"userId": "Patient/7", "patientId": "1", "theme": "dark"}))
    assert asked.unknown == ("/vendor", "/context/theme")


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"hook": ...}, "hook"),
        ({"hook": 7}, "hook"),
        ({"hook": "no-such-hook"}, "hook"),
        ({"hookInstance": ...}, "hookInstance"),
        ({"hookInstance": "not-a-uuid"}, "hookInstance"),
        ({"hookInstance": INSTANCE + "\n"}, "hookInstance"),
        ({"context": ...}, "context"),
        ({"context": {}}, "context"),
        ({"context": []}, "context"),
        ({"context": {"userId": "Practitioner/7"}}, "context.patientId"),
        ({"context": {"patientId": "1"}}, "context.userId"),
        ({"context": {"userId": "7", "patientId": "1"}}, "context.userId"),
        ({"context": {"userId": "Group/7", "patientId": "1"}}, "context.userId"),
        ({"context": {"userId": "Patient/7", "patientId": "Patient/1"}}, "context.patientId"),
        ({"context": {"userId": "Patient/7", "patientId": "1?_id=2"}}, "context.patientId"),
        ({"context": {"userId": "Patient/7", "patientId": "x" * 257}}, "context.patientId"),
        ({"context": {"userId": "Patient/7", "patientId": "1", "encounterId": None}}, "context.encounterId"),
        ({"fhirServer": None}, "fhirServer"),
        ({"fhirServer": "ftp://ehr/r4"}, "fhirServer"),
        ({"fhirServer": "https://user:secret@ehr/r4"}, "fhirServer"),
        ({"fhirServer": "https://ehr/r4?a=b"}, "fhirServer"),
        ({"fhirServer": "https://[broken/r4"}, "fhirServer"),
        ({"fhirAuthorization": AUTHORIZATION}, "fhirServer"),
        ({"fhirAuthorization": None}, "fhirAuthorization"),
        ({"prefetch": None}, "prefetch"),
        ({"prefetch": []}, "prefetch"),
        ({"prefetch": {"patient": "Jane"}}, "prefetch"),
        ({"prefetch": {"patient": {"id": "1"}}}, "prefetch"),
        ({"extension": []}, "extension"),
        ({"hook": "order-sign"}, "context.userId|context.draftOrders"),
    ],
)
def test_a_broken_envelope_is_refused_by_name(changes: dict[str, Any], where: str) -> None:
    with pytest.raises(ContractBroken) as refused:
        parsed(a_body(**changes))
    assert refused.value.where in where.split("|")
    assert "Jane" not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("access_token", ...),
        ("access_token", "short"),
        ("access_token", 'with"quote-and-more'),
        ("access_token", "with space in it"),
        ("token_type", "bearer"),
        ("expires_in", "300"),
        ("expires_in", True),
        ("scope", ...),
        ("subject", ""),
        ("patient", "Patient/1"),
    ],
)
def test_a_broken_authorization_is_refused(name: str, value: Any) -> None:
    granted = {key: member for key, member in {**AUTHORIZATION, name: value}.items() if member is not ...}
    with pytest.raises(ContractBroken) as refused:
        parsed(a_body(fhirServer="https://ehr/r4", fhirAuthorization=granted))
    assert refused.value.where == f"fhirAuthorization.{name}"


@pytest.mark.parametrize(
    "orders",
    [
        None,
        [],
        {"resourceType": "List"},
        {"resourceType": "Bundle", "entry": {}},
        {"resourceType": "Bundle", "entry": [{}]},
    ],
)
def test_draft_orders_are_a_bundle(orders: Any) -> None:
    context = {"userId": "Practitioner/7", "patientId": "1", "draftOrders": orders}
    with pytest.raises(ContractBroken) as refused:
        parsed(a_body(hook="order-sign", context=context))
    assert refused.value.where == "context.draftOrders"


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda each: st.lists(each) | st.dictionaries(st.text(), each),
    )
)
def test_any_json_is_refused_or_held(body: Any) -> None:
    """Whatever comes, the answer is an error of the tree."""
    with pytest.raises(BadInput):
        parsed(body)


# ---- the token -------------------------------------------------------------------------------------------------------

EDGES = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), max_size=8)
"""NUL never gets here: the parser refuses it."""
TOKENS = st.text(alphabet="abcXYZ019-._~+/=:{},", min_size=8, max_size=40)


def spelt(token: str, how: int) -> str:
    """A JSON string literal of the token: plain, or with some characters escaped."""
    if how == 0:
        return token
    return "".join(f"\\u{ord(c):04X}" if n % how == 0 else c.replace("/", "\\/") for n, c in enumerate(token))


@given(TOKENS, st.integers(0, 4), st.integers(0, 4), EDGES, EDGES)
def test_the_token_is_nowhere(token: str, how: int, again: int, before: str, after: str) -> None:
    """In whatever escaping, as a value, inside a text, as a name: no string of what is landed holds it."""
    edge, end = (json.dumps(text)[1:-1] for text in (before, after))
    raw = (
        f'{{"fhirAuthorization": {{"access_token": "{spelt(token, how)}"}}, "n": 1.50,'
        f'"echo": "{edge}{spelt(token, again)}{end}", "{spelt(token, again)}": [true]}}'
    ).encode()
    before_it = json.loads(raw)
    landed = set_aside(raw, token)
    assert token.encode() not in landed
    after_it = loads(landed)
    assert token not in json.dumps(after_it, default=str, ensure_ascii=False)
    assert after_it["fhirAuthorization"] == {"access_token": "[set aside]"}
    assert str(after_it["n"]) == "1.50"
    assert before_it["echo"].replace(token, "[set aside]") == after_it["echo"]


def test_what_is_not_the_token_stays_byte_for_byte() -> None:
    raw = b'{ "fhirAuthorization" : {"access_token":"secret-token"},\n "t": "\\u00e9 \\/ \\"x\\"", "d": 2.50 }'
    assert set_aside(raw, "secret-token") == raw.replace(b"secret-token", b"[set aside]")


def test_a_token_that_cannot_be_taken_out_is_refused() -> None:
    raw = b'{"fhirAuthorization": {"access_token": "12345678"}, "value": 0.12345678}'
    with pytest.raises(ContractBroken) as refused:
        set_aside(raw, "12345678")
    assert not re.search(r"\d{8}", str(refused.value))
