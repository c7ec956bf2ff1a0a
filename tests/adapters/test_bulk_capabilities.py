"""What servers state about exports, sloppily, and how a request is put to them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.bulk.capabilities import SmartStated, Stated, choose, read, smart
from adapters.bulk.profiles import PROFILES
from adapters.bulk.request import ExportRequest, Level, Method, Shape
from models.errors import Misconfigured, Unreadable

GUIDE = "http://hl7.org/fhir/uv/bulkdata"
GENERIC = PROFILES["generic"]
EVERYTHING = ExportRequest(Level.SYSTEM)
TWO_PATIENTS = ExportRequest(Level.PATIENT, patients=("a", "b"))


def statement(version: str = "", **more: Any) -> dict[str, Any]:
    """As the guide's own example of a CapabilityStatement has it."""

    def operation(name: str) -> list[dict[str, str]]:
        return [{"name": "export", "definition": f"{GUIDE}/OperationDefinition/{name}{version}"}]

    return {
        "resourceType": "CapabilityStatement",
        "fhirVersion": "4.0.1",
        "software": {"name": "Some EHR", "version": "2026.2"},
        "rest": [
            {
                "mode": "server",
                "operation": operation("export"),
                "resource": [
                    {"type": "Patient", "operation": operation("patient-export"), "interaction": [{"code": "read"}]},
                    {"type": "Group", "operation": operation("group-export")},
                    {"type": "Observation", "interaction": [{"code": "read"}, {"code": "search-type"}]},
                ],
            }
        ],
        **more,
    }


def test_a_statement_by_the_book_is_read() -> None:
    assert read(statement("|3.0.0")) == Stated(
        shapes=(Shape.STU3,),
        levels=(Level.SYSTEM, Level.PATIENT, Level.GROUP),
        methods=("GET",),
        software="Some EHR 2026.2",
        fhir_version="4.0.1",
        searchable=frozenset({"Observation"}),
    )
    assert read(statement()).counts


@pytest.mark.parametrize(
    ("plain", "shapes", "methods"),
    [
        (statement(), (), ()),
        (statement("|1.0.1"), (Shape.STU2,), ("GET",)),
        (statement("|2.0.0"), (Shape.STU2,), ("GET",)),
        (statement("|4.0.0"), (Shape.STU4,), ("POST",)),
        (statement("|4.0.0-ballot"), (Shape.STU4,), ("POST",)),
        (statement("|latest"), (), ()),
        (statement("|"), (), ()),
        (statement(instantiates=[f"{GUIDE}/CapabilityStatement/bulk-data|2.0.0"]), (Shape.STU2,), ("GET",)),
        (statement(instantiates=[f"{GUIDE}/CapabilityStatement/bulk-data"]), (), ()),
        (statement(instantiates=f"{GUIDE}/CapabilityStatement/bulk-data|3.0.0"), (Shape.STU3,), ("GET",)),
        (
            statement(implementationGuide=[f"{GUIDE}/ImplementationGuide/hl7.fhir.uv.bulkdata|4.0.0-ballot"]),
            (Shape.STU4,),
            ("POST",),
        ),
        (
            statement("|4.0.0", instantiates=[f"{GUIDE}/CapabilityStatement/bulk-data|3.0.0"]),
            (Shape.STU3, Shape.STU4),
            ("GET", "POST"),
        ),
        (statement(instantiates=["http://hl7.org/fhir/us/core/CapabilityStatement/us-core-server|4.0.0"]), (), ()),
    ],
)
def test_the_version_is_read_wherever_it_is_stated(
    plain: dict[str, Any], shapes: tuple[Shape, ...], methods: tuple[Method, ...]
) -> None:
    assert (read(plain).shapes, read(plain).methods) == (shapes, methods)


@pytest.mark.parametrize(
    ("rest", "levels"),
    [
        # STU1: all three at the root of the server
        (
            {
                "operation": [
                    {"name": "export", "definition": f"{GUIDE}/OperationDefinition/export"},
                    {"name": "patient-export", "definition": f"{GUIDE}/OperationDefinition/patient-export"},
                    {"name": "group-export", "definition": f"{GUIDE}/OperationDefinition/group-export"},
                ]
            },
            (Level.SYSTEM, Level.PATIENT, Level.GROUP),
        ),
        # HAPI: definitions of the server's own
        (
            {"operation": [{"name": "export", "definition": "https://x/fhir/OperationDefinition/-s-export"}]},
            ("system",),
        ),
        (
            {
                "resource": [
                    {
                        "type": "Group",
                        "operation": [{"name": "$export", "definition": "/OperationDefinition/Group-i-x"}],
                    }
                ]
            },
            ("group",),
        ),
        ({"resource": [{"type": "Patient", "operation": [{"name": "export"}]}]}, ("patient",)),
        # a Reference where a canonical belongs
        (
            {"operation": [{"name": "x", "definition": {"reference": f"{GUIDE}/OperationDefinition/group-export"}}]},
            ("group",),
        ),
        ({"operation": [{"name": "everything", "definition": "http://x/OperationDefinition/everything"}]}, ()),
        ({"resource": [{"type": "Observation", "operation": [{"name": "export"}]}]}, ()),
        ({"operation": [{"name": "bulk-import", "definition": "http://x/OperationDefinition/ximport-export-x"}]}, ()),
    ],
)
def test_levels_are_read_from_sloppy_statements(rest: dict[str, Any], levels: tuple[str, ...]) -> None:
    assert read({"rest": [rest]}).levels == levels


def test_what_would_go_into_logs_is_kept_only_where_it_looks_like_a_name() -> None:
    odd = read({"software": {"name": "<script>", "version": "1\n2"}, "fhirVersion": 4})
    assert (odd.software, odd.fhir_version) == (None, None)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.sampled_from(["export", "Patient", "4.0.1", f"{GUIDE}/x|3"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["rest", "operation", "resource", "type", "name", "definition", "software", "interaction"]),
            inner,
        )
    ),
    max_leaves=15,
)


@given(st.dictionaries(st.sampled_from(["rest", "software", "instantiates", "implementationGuide"]), JSON))
def test_no_statement_is_too_odd_to_be_read(plain: dict[str, Any]) -> None:
    assert isinstance(read(plain), Stated)


@pytest.mark.parametrize(
    ("shapes", "kick_off", "request_", "chosen"),
    [
        ((), "stated", EVERYTHING, (Shape.STU3, "GET")),
        ((Shape.STU2,), "stated", EVERYTHING, (Shape.STU2, "GET")),
        ((Shape.STU2, Shape.STU3), "stated", EVERYTHING, (Shape.STU3, "GET")),
        ((Shape.STU4,), "stated", EVERYTHING, (Shape.STU4, "POST")),
        ((Shape.STU3, Shape.STU4), "stated", EVERYTHING, (Shape.STU3, "GET")),
        ((), "stated", TWO_PATIENTS, (Shape.STU3, "POST")),
        ((Shape.STU2,), "stated", TWO_PATIENTS, (Shape.STU2, "POST")),
        ((Shape.STU3, Shape.STU4), "stated", TWO_PATIENTS, (Shape.STU4, "POST")),
        ((), "post", EVERYTHING, (Shape.STU3, "POST")),
        ((Shape.STU3, Shape.STU4), "post", EVERYTHING, (Shape.STU4, "POST")),
        ((Shape.STU4,), "get", EVERYTHING, (Shape.STU3, "GET")),
        ((), "get", TWO_PATIENTS, (Shape.STU3, "POST")),
    ],
)
def test_shape_and_method_are_chosen_so_that_the_request_can_be_put(
    shapes: tuple[Shape, ...], kick_off: Any, request_: ExportRequest, chosen: tuple[Shape, Method]
) -> None:
    profile = replace(GENERIC, kick_off=kick_off)
    assert choose(Stated(shapes=shapes), profile, request_) == chosen
    shape, method = chosen
    assert request_.kick_off("https://ehr.example/fhir", profile, shape, method).method == method


def test_patients_are_not_asked_of_a_server_that_takes_none() -> None:
    with pytest.raises(Misconfigured, match="patient_parameter"):
        choose(Stated(), replace(GENERIC, patient_parameter=False), TWO_PATIENTS)


@pytest.mark.parametrize(
    ("endpoint", "absolute"),
    [
        ("https://auth.example/token", "https://auth.example/token"),
        ("auth/token", "https://ehr.example/r4/auth/token"),
        ("/auth/token", "https://ehr.example/auth/token"),
        ("//auth.example/token", "https://auth.example/token"),
    ],
)
@pytest.mark.parametrize("base", ["https://ehr.example/r4", "https://ehr.example/r4/"])
def test_a_relative_token_endpoint_is_below_the_fhir_base(endpoint: str, absolute: str, base: str) -> None:
    assert smart({"token_endpoint": endpoint}, base).token_endpoint == absolute


@pytest.mark.parametrize(
    "endpoint",
    [
        "ftp://x/token",
        "javascript:x",
        "https://u:p@x/token",
        "https://x/a b",
        "https://[x",
        "https://x:pq/",
        "http:///t",
        "https:///t",
        "https:t",
        "to\tken",
        "token#x",
    ],
)
def test_an_endpoint_that_is_no_http_url_is_refused_without_repeating_it(endpoint: str) -> None:
    with pytest.raises(Unreadable) as error:
        smart({"token_endpoint": endpoint}, "https://ehr.example/r4")
    assert error.value.where == "/token_endpoint"
    assert endpoint not in str(error.value)


def test_a_smart_configuration_is_read_as_far_as_it_goes() -> None:
    assert smart({}, "https://ehr.example") == SmartStated()
    assert smart(
        {
            "issuer": "https://auth.example",
            "token_endpoint_auth_signing_alg_values_supported": ["ES384", "RS384", "ES384", 7],
            "capabilities": ["permission-v1", "permission-v2", "client-confidential-asymmetric"],
        },
        "https://ehr.example",
    ) == SmartStated(None, "https://auth.example", ("ES384", "RS384"), True, True)
    odd = {"token_endpoint": 7, "issuer": "", "capabilities": "permission-v2", "jwks_uri": None}
    assert smart(odd, "https://ehr.example") == SmartStated(permission_v2=True)
