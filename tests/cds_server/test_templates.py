"""Prefetch templates: what may be published, and that a start is refused where one may not."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from cds_server import services
from cds_server.hooks.published import HOOKS
from cds_server.hooks.templates import lint
from cds_server.services import all_services
from models.errors import Misconfigured

PATIENT_VIEW = HOOKS["patient-view"]

LEGAL = [
    "Patient/{{context.patientId}}",
    "Practitioner/{{userPractitionerId}}",
    "Observation?patient={{context.patientId}}&code=http://loinc.org|1-2,3-4&_sort=-date&_count=50",
    "Observation?patient={{context.patientId}}&code:in=http://x/vs&date=ge2020",
    "Encounter?_id={{context.encounterId}}",
    "{{context.userId}}",
]
ILLEGAL = [
    "Patient/{{context.medication.id}}",
    "Patient/{{patientId}}",
    "Patient/{{context.draftOrders}}",
    "Patient/{{context.patientId}",
    "Patient/{{%patient.id}}",
    "Patient/{{today()}}",
    "{{context.patientId}}",
    "Observation?patient={{context.patientId}}&_include=Observation:subject",
    "Observation?patient={{context.patientId}}&_revinclude=Provenance:target",
    "Observation?patient={{context.patientId}}&_has:Group:member:_id=1",
    "Observation?subject.name=x",
    "Observation?patient:not=x",
    "Observation?date=ne2020",
    "Observation?patient={{context.patientId}}&_count=many",
    "Observation?patient={{context.patientId}}&_sort=date desc",
    "Observation?{{context.patientId}}=1",
    "{{context.patientId}}?code=1",
    "_history",
    "https://ehr/r4/Patient/{{context.patientId}}",
    "Observation?patient=",
    "Observation?",
    "",
]


@pytest.mark.requirement("cds-hooks_2.0", "35", "55", "56", "57", "58", "59")
@pytest.mark.parametrize("template", LEGAL)
def test_a_legal_template_may_be_published(template: str) -> None:
    assert lint(template, PATIENT_VIEW) == []


@pytest.mark.requirement("cds-hooks_2.0", "55", "56", "57", "58", "59")
@pytest.mark.parametrize("template", ILLEGAL)
def test_an_illegal_one_is_named(template: str) -> None:
    assert lint(template, PATIENT_VIEW)


LIBRARY = "cds-hooks-library_1.0.1"


@pytest.mark.requirement(LIBRARY, "4", "8", "12", "20", "24", "28", "36", "40", "44", "48", "52", "56", "60", "68")
@pytest.mark.requirement(LIBRARY, "77", "81", "85")
@pytest.mark.parametrize(
    ("hook", "template"),
    [
        (hook, f"Patient?_id={{{{context.{name}}}}}")
        for hook in ("order-sign", "appointment-book", "encounter-start", "encounter-discharge", "order-select")
        for name in ("userId", "patientId", "encounterId")
    ]
    + [("order-dispatch", "Patient/{{context.patientId}}"), ("order-dispatch", "{{context.performer}}")],
)
def test_the_primitive_fields_of_a_hook_are_tokens(hook: str, template: str) -> None:
    assert lint(template, HOOKS[hook]) == []


@pytest.mark.requirement(LIBRARY, "16", "32", "73", "89", "93")
@pytest.mark.parametrize(
    ("hook", "name"),
    [
        ("order-sign", "draftOrders"),
        ("appointment-book", "appointments"),
        ("order-dispatch", "fulfillmentTasks"),
        ("order-dispatch", "dispatchedOrders"),
        ("order-select", "selections"),
        ("order-select", "draftOrders"),
    ],
)
def test_what_is_no_primitive_is_no_token(hook: str, name: str) -> None:
    assert lint(f"Patient?_id={{{{context.{name}}}}}", HOOKS[hook])


@pytest.mark.requirement("cds-hooks_2.0", "29", "36", "56", "57", "58", "59")
def test_what_we_publish_is_legal() -> None:
    published = [(spec, key) for spec in all_services(conformance=True) for key in spec.prefetch]
    assert len(published) > 20
    assert [(spec.id, key) for spec, key in published if lint(spec.prefetch[key], spec.hook_context)] == []


def test_a_spec_with_an_illegal_template_is_never_born() -> None:
    (spec, *_) = all_services()
    with pytest.raises(ValueError, match="prefetch template patient"):
        replace(spec, prefetch={**spec.prefetch, "patient": "Patient/{{context.medication.id}}"})


def test_an_illegal_template_stops_the_start_with_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file beside the services, as whoever writes one adds it."""
    spoilt = Path(services.__path__[0], "deterioration_news2.py").read_text().replace("Patient/{{context", "Patient/{{")
    (tmp_path / "zz_spoilt.py").write_text(spoilt.replace('NAME = "', 'NAME = "zz-'))
    monkeypatch.setattr(services, "__path__", [*services.__path__, str(tmp_path)])
    with pytest.raises(Misconfigured, match=r"prefetch template patient: \{\{\.patientId\}\} is not a prefetch token"):
        all_services()
    sys.modules.pop("cds_server.services.zz_spoilt", None)


@pytest.mark.requirement("cds-hooks_2.0", "210", "211")
def test_one_id_on_several_hooks_is_one_service_and_one_id_twice_on_a_hook_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hooks = [spec.hook for spec in all_services(conformance=True) if spec.id == "conformance"]
    assert len(hooks) == len(set(hooks)) > 1
    twice = Path(services.__path__[0], "deterioration_news2.py").read_text().replace('NAME = "', 'NAME = "zz-', 1)
    (tmp_path / "zz_twice.py").write_text(
        twice.replace('(NAME, "patient-view"', '("deterioration-news2", "patient-view"')
    )
    monkeypatch.setattr(services, "__path__", [*services.__path__, str(tmp_path)])
    with pytest.raises(Misconfigured, match="two services are called deterioration-news2 on patient-view"):
        all_services()
    sys.modules.pop("cds_server.services.zz_twice", None)


def test_the_conformance_service_is_off_unless_asked_for() -> None:
    assert "conformance" not in {spec.id for spec in all_services()}
