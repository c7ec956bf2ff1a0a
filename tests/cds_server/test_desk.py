"""The case pages over a real store: what was recorded is shown, what a person does is recorded, and nothing crosses."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from starlette.testclient import TestClient

from cds_server.actions import ACTION
from cds_server.app import Parts, build
from cds_server.audit import audit
from cds_server.checkpoints import Checkpoints
from cds_server.desk.imaging import viewer_url
from cds_server.ehrs import Ehr
from cds_server.imaging.pictures import pictures
from cds_server.reproduce import attempt, load
from cds_server.results_due import Due
from cds_server.settings import Settings
from cds_server.settings import load as settings_of
from cds_server.store.store import Store
from cds_server.what_if import WHAT_IF
from smart_app.desk import Case
from smart_app.registered import Registered
from smart_app.texts import t
from tests.cds_server.case_app import BEN, PROGNOSIS, GivenSessions, call, case_app, fixture, sized
from tests.cds_server.stores import learn, patient, weight
from tests.cds_server.test_imaging import arrive, imaging
from tests.dicom_made import ct_series

JENNY, CARLA = "jenny-m.patient-view", "carla-r.patient-view"
RESTRICTED = {"security": [{"system": "http://terminology.hl7.org/CodeSystem/v3-Confidentiality", "code": "R"}]}


class Clinic:
    """One instance with three patients, and who looks at them."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self.sessions = GivenSessions()
        self.client = TestClient(case_app(parts, self.sessions), follow_redirects=False)
        call(parts, PROGNOSIS, sized(JENNY, 1.8))
        call(parts, PROGNOSIS, fixture(JENNY))
        call(parts, PROGNOSIS, fixture(CARLA))
        learn(parts.store, patient("bare", born="1950-01-01"), weight("w1", "bare", 70.5), namespace="sandbox")
        Checkpoints(parts.store, parts.settings.public_url).make()
        self.jenny, self.carla = self.sessions.open(parts, "jenny-m"), self.sessions.open(parts, "carla-r")
        self.ben = self.sessions.open(parts, "jenny-m", BEN)
        self.bare = self.sessions.open(parts, "bare")

    def page(self, case: Case, below: str = "", status: int = 200, **headers: str) -> str:
        answer = self.client.get(f"/app/{case.id}/{below}", headers=headers)
        assert answer.status_code == status, answer.text
        return answer.text

    def form(self, case: Case, action: str = "act") -> dict[str, str]:
        """The hidden fields of one form of the page."""
        form = re.search(rf'<form method="post" action="/app/{case.id}/{action}".*?</form>', self.page(case), re.S)
        assert form is not None
        return dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', form[0]))

    def post(self, case: Case, action: str, form: dict[str, str]) -> Any:
        return self.client.post(f"/app/{case.id}/{action}", data=form)

    def entries(self) -> int:
        return self.parts.store.reads.head()[0]

    def own(self, case: Case) -> str:
        """The inference of the prognosis that the page shows."""
        found = re.search(rf"/app/{case.id}/model/([0-9a-f-]+)", self.page(case))
        assert found is not None
        return found[1]


@pytest.fixture(scope="module")
def clinic(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clinic]:
    home = tmp_path_factory.mktemp("clinic")
    data_dir = home / "var"
    data_dir.mkdir(mode=0o700)
    settings = settings_of({}, data_dir=data_dir, trust="open", deadline_ms=30_000)
    parts = build(settings)
    try:
        yield Clinic(parts)
    finally:
        parts.close()
    assert audit(data_dir, settings.database_url, deep=True).findings == ()


# ---- what is shown ---------------------------------------------------------------------------------------------------


def test_the_page_says_whom_what_and_by_which_model(clinic: Clinic) -> None:
    html = clinic.page(clinic.jenny)
    assert "Jenny M" in html
    assert "MRN1234" in html
    assert "Estimated 10-year survival" in html
    assert "predict-breast 3.2.0" in html
    assert "Observation/tumor-size-jenny-m" in html
    assert t("case.changed") in html


def test_the_numbers_are_those_that_were_recorded(clinic: Clinic) -> None:
    outputs = load(clinic.parts.store, clinic.own(clinic.jenny)).plain()["score"]["outputs"]
    html = clinic.page(clinic.jenny)
    for output in ("survival_s", "survival_r", "survival_rh", "survival_rhc"):
        for year in (5, 10, 15):
            assert f"{outputs[output][year - 1]:.1f} %</td>" in html
        assert f"{outputs[output][14]:.1f} %</text>" in html, "the chart has the number of the table"


def test_what_changed_since_the_last_inference_is_told(clinic: Clinic) -> None:
    html = clinic.page(clinic.jenny)
    assert re.search(r"Tumour size</th><td>18 mm</td><td>25 mm", html)
    assert t("case.changed_first") in clinic.page(clinic.carla)


def test_missing_modalities_have_a_reason_and_a_range(clinic: Clinic) -> None:
    html = clinic.page(clinic.jenny)
    assert "No expression subtype is known" in html
    assert re.search(r"No expression subtype is known</td><td class=\"right\">\d+–\d+\u00a0%", html)


def test_results_that_came_after_it_was_scored_are_told(clinic: Clinic) -> None:
    call(clinic.parts, PROGNOSIS, fixture("aisha-t.patient-view"))
    case = clinic.sessions.open(clinic.parts, "aisha-t")
    told = t("case.newer_one").partition(".")[0]
    assert told not in clinic.page(case)
    grade = {"coding": [{"system": "http://loinc.org", "code": "33732-9"}]}
    late = weight("late", "aisha-t", 3, code=grade, valueQuantity={"value": 3})
    learn(clinic.parts.store, late, namespace="sandbox")
    assert told in clinic.page(case)


def test_an_abstention_is_shown_with_its_reason(clinic: Clinic) -> None:
    html = clinic.page(clinic.carla)
    assert "No survival estimate: two tumours, none chosen" in html
    assert "<polyline" not in html


def test_of_whom_nothing_was_inferred_what_is_known_is_shown(clinic: Clinic) -> None:
    html = clinic.page(clinic.bare)
    assert t("case.nothing_inferred") in html
    assert "70.5 kg" in html
    assert t("frame.unknown_name") in html
    assert "1950-01-01" in html


def test_dates_and_numbers_follow_the_reader(clinic: Clinic) -> None:
    assert "70,5 kg" in clinic.page(clinic.bare, **{"accept-language": "de"})
    assert "1 Jan 1950" in clinic.page(clinic.bare, **{"accept-language": "en-GB"})


def test_a_model_card_is_one_click_away(clinic: Clinic) -> None:
    html = clinic.page(clinic.jenny, f"model/{clinic.own(clinic.jenny)}")
    assert "The year term alone moves observed/expected" in html
    assert "0.717" in html
    assert "Jenny M" in html


def test_the_proof_of_the_inference_can_be_kept(clinic: Clinic) -> None:
    own = clinic.own(clinic.jenny)
    answer = clinic.client.get(f"/app/{clinic.jenny.id}/proof?inference={own}")
    assert answer.status_code == 200
    assert answer.text.startswith("c2sp.org/tlog-proof@v1")
    assert answer.headers["content-disposition"] == f'attachment; filename="{own}.tlog-proof"'


# ---- nothing crosses -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("below", ["?inference={}", "model/{}", "proof?inference={}"])
def test_another_patients_inference_is_not_of_this_case(clinic: Clinic, below: str) -> None:
    html = clinic.page(clinic.carla, below.format(clinic.own(clinic.jenny)), 404)
    assert "Jenny" not in html


def test_another_patients_card_is_neither_shown_nor_acted_on(clinic: Clinic) -> None:
    form = clinic.form(clinic.jenny)
    before = clinic.parts.store.reads.query("SELECT COUNT(*) FROM action")
    assert clinic.client.get(f"/app/{clinic.carla.id}/done?card={form['card']}").status_code == 404
    crossed = {**form, "csrf": clinic.carla.csrf, "outcome": "accepted"}
    assert clinic.post(clinic.carla, "act", crossed).status_code == 404
    assert clinic.parts.store.reads.query("SELECT COUNT(*) FROM action") == before


def test_who_proves_no_session_sees_a_page_without_a_patient(clinic: Clinic) -> None:
    assert clinic.client.get("/app/" + "f" * 32 + "/").status_code == 404
    html = clinic.page(clinic.jenny, status=401, **{"x-test-gone": "1"})
    assert "Jenny" not in html
    assert t("error.401") in html.replace("&#39;", "'")


def test_each_page_is_one_access_entry_and_a_refused_one_too(clinic: Clinic) -> None:
    for below in ("", "timeline", f"model/{clinic.own(clinic.jenny)}"):
        before = clinic.entries()
        clinic.page(clinic.jenny, below)
        assert clinic.entries() == before + 1
    row = clinic.parts.store.reads.query("SELECT act, outcome, door FROM access ORDER BY id DESC LIMIT 1")[0]
    assert tuple(row) == ("inference", "seen", "smart-app")


def test_nobody_without_a_role_sees_anything(clinic: Clinic) -> None:
    viewer = type(BEN)(BEN.subject, BEN.name, frozenset(), BEN.door, BEN.ehr)
    stranger = clinic.sessions.open(clinic.parts, "jenny-m", viewer)
    assert "Jenny" not in clinic.page(stranger, status=403)
    card = clinic.form(clinic.jenny)["card"]
    assert clinic.client.get(f"/app/{stranger.id}/done?card={card}").status_code == 403


# ---- what a person does ----------------------------------------------------------------------------------------------


def said(store: Store) -> dict[str, Any]:
    ref, sealed = store.reads.query("SELECT ref, sealed FROM action ORDER BY id DESC LIMIT 1")[0]
    found: dict[str, Any] = store.reads.open_payload(ACTION, ref, sealed)
    return found


def test_an_override_is_the_same_action_as_feedback_by_another_door(clinic: Clinic) -> None:
    store, form = clinic.parts.store, clinic.form(clinic.jenny)
    filled = {
        **form,
        "outcome": "overridden",
        "reason": "expert-contradicts",
        "comment": "Böard",
        "instead": "Oncotype",
    }
    answer = clinic.post(clinic.jenny, "act", filled)
    assert answer.status_code == 303
    action = said(store)
    assert (action["outcome"], action["door"], action["name"]) == ("overridden", "smart-app", "Dr. Anna Weber")
    assert action["reason"]["system"].endswith("non-adherence-reason-codes")
    assert (action["comment"], action["instead"]) == ("Böard", "Oncotype")
    html = clinic.page(clinic.jenny, answer.headers["location"].partition(f"{clinic.jenny.id}/")[2])
    assert "On record: you overrode this" in html
    entry = store.reads.entry(clinic.entries() - 1)
    assert entry is not None
    bodies = [each.body.decode() for each in store.reads.entries(1)]
    assert not any(word in body for body in bodies for word in ("Böard", "Oncotype", "Anna", "jenny", "Jenny"))


def test_a_change_of_mind_is_added_and_others_see_it(clinic: Clinic) -> None:
    first = clinic.form(clinic.ben)
    for outcome in ("deferred", "accepted"):
        assert clinic.post(clinic.ben, "act", {**clinic.form(clinic.ben), "outcome": outcome}).status_code == 303
    seen = clinic.client.get(f"/app/{clinic.jenny.id}/done?card={first['card']}&n=3").text
    assert seen.index(t("act.did_accepted")) < seen.index(t("act.did_deferred")), "the newest first, both there"
    assert "Dr. Ben Okafor" in seen
    assert "n=4" in seen
    assert "hx-get" not in clinic.client.get(f"/app/{clinic.jenny.id}/done?card={first['card']}&n=14").text


def test_who_acts_learns_that_somebody_acted_meanwhile(clinic: Clinic) -> None:
    mine = clinic.form(clinic.jenny)
    assert clinic.post(clinic.ben, "act", {**clinic.form(clinic.ben), "outcome": "accepted"}).status_code == 303
    told = clinic.post(clinic.jenny, "act", {**mine, "outcome": "deferred"}).headers["location"]
    assert "others=1" in told
    assert t("act.meanwhile") in clinic.page(clinic.jenny, told.partition(f"{clinic.jenny.id}/")[2])


def test_the_same_form_twice_is_one_action(clinic: Clinic) -> None:
    form = {**clinic.form(clinic.carla), "outcome": "deferred"}
    once, twice = (clinic.post(clinic.carla, "act", form).headers["location"] for _ in range(2))
    assert "?done=" in once
    assert twice.replace("again", "done") == once
    assert clinic.page(clinic.carla).count(t("act.did_deferred") + "</span>") == 1


def test_a_form_without_its_token_changes_nothing(clinic: Clinic) -> None:
    form = {**clinic.form(clinic.jenny), "outcome": "accepted", "csrf": clinic.carla.csrf}
    before = clinic.entries()
    assert clinic.post(clinic.jenny, "act", form).status_code == 403
    assert clinic.post(clinic.jenny, "what-if", {"inference": clinic.own(clinic.jenny)}).status_code == 403
    assert clinic.entries() == before + 1, "only the look that found the inference"


def test_a_form_that_lacks_something_comes_back_filled(clinic: Clinic) -> None:
    form = {**clinic.form(clinic.jenny), "outcome": "overridden", "instead": "<watch> and wait"}
    answer = clinic.post(clinic.jenny, "act", form)
    assert answer.status_code == 400
    assert "an override needs a reason or a comment" in answer.text
    assert "&lt;watch&gt; and wait" in answer.text


# ---- what if ---------------------------------------------------------------------------------------------------------


def test_a_what_if_is_an_inference_of_its_own_and_never_a_fact(clinic: Clinic) -> None:
    store, own = clinic.parts.store, clinic.own(clinic.jenny)
    resources = store.reads.query("SELECT COUNT(*) FROM resource")
    form = {**clinic.form(clinic.jenny, "what-if"), "set.gen": "0", "set.horm": "1", "set.heart": "2,5"}
    assert clinic.post(clinic.jenny, "what-if", form).status_code == 303
    ref, service, outcome = store.reads.query(
        "SELECT i.ref, i.service, c.outcome FROM inference i JOIN call c ON c.id = i.call_id ORDER BY i.id DESC LIMIT 1"
    )[0]
    assert (service, outcome) == (f"{WHAT_IF}breast-cancer-prognosis", "what-if")
    asked, base = load(store, ref), load(store, own)
    assert asked.snapshot.facts == base.snapshot.facts
    assert asked.snapshot.context["what_if"] == {"gen": 0, "heart": 2.5}
    assert asked.snapshot.context["what_if_of"] == own
    assert asked.call["user"] == clinic.jenny.viewer.subject
    assert attempt(store, clinic.parts.registry, ref).equal
    assert store.reads.query("SELECT COUNT(*) FROM resource") == resources
    html = clinic.page(clinic.jenny)
    assert clinic.own(clinic.jenny) == own, "the page still shows what was said of the patient"
    assert "Chemotherapy: none" in html
    assert "Dose at the heart: 2.5" in html
    assert ref not in html.partition(t("case.lines"))[2].partition("</section>")[0]
    assert t("case.hypothetical") in clinic.page(clinic.jenny, f"?inference={ref}")


def test_of_two_tumours_one_can_be_chosen_as_a_what_if(clinic: Clinic) -> None:
    page = clinic.page(clinic.carla)
    offered = re.findall(r'<option value="(Condition/[^"]+)">([^<]+)', page)
    assert len(offered) == 2
    assert all("2026" in label for _, label in offered)
    form = clinic.form(clinic.carla, "what-if")
    assert clinic.post(clinic.carla, "what-if", {**form, "set.focus": "Condition/other"}).status_code == 400
    assert clinic.post(clinic.carla, "what-if", {**form, "set.focus": offered[0][0]}).status_code == 303
    html = clinic.page(clinic.carla)
    assert f"Tumour: {offered[0][1]}" in html
    assert "No survival estimate: two tumours, none chosen" in html, "what was said stands"
    ref = re.findall(r'<a href="\?inference=([0-9a-f-]+)">Open it', html)[0]
    assert "<polyline" in clinic.page(clinic.carla, f"?inference={ref}")


@pytest.mark.parametrize(
    "wrong", [{"set.size": "10"}, {"set.gen": "7"}, {"set.heart": "1e9"}, {"set.horm": "1"}, {"set.heart": "<b>"}]
)
def test_a_what_if_sets_treatments_within_the_models_rules_and_nothing_else(
    clinic: Clinic, wrong: dict[str, str]
) -> None:
    count = clinic.parts.store.reads.query("SELECT COUNT(*) FROM inference")
    answer = clinic.post(clinic.jenny, "what-if", {**clinic.form(clinic.jenny, "what-if"), **wrong})
    assert answer.status_code == 400
    assert "<b>" not in answer.text.replace("<b>Bold", "")
    assert clinic.parts.store.reads.query("SELECT COUNT(*) FROM inference") == count


def test_a_what_if_is_sent_to_nobody() -> None:
    """`results_due` looks at the service's name before anything else."""

    class Nothing:
        def one(self, *_: object) -> tuple[str, str]:
            return f"{WHAT_IF}breast-cancer-prognosis", "predict-breast@3.2.0"

    due = object.__new__(Due)
    due._store = type("S", (), {"reads": Nothing()})()
    event = type("E", (), {"inference": 1, "id": 7, "correction": False})()
    assert due._one(None, event, 3) == 3  # type: ignore[arg-type]


# ---- the timeline ----------------------------------------------------------------------------------------------------


def rows(html: str) -> list[str]:
    return re.findall(r'<th scope="row">([^<]*)</th>', html)


def test_a_person_can_filter_the_timeline(clinic: Clinic) -> None:
    everything = rows(clinic.page(clinic.jenny, "timeline"))
    assert len(everything) > 40
    drugs = rows(clinic.page(clinic.jenny, "timeline?group=drugs"))
    assert set(drugs) == {"anastrozole", "PACLitaxel", "cyclophosphamide", "DOXOrubicin"}
    assert rows(clinic.page(clinic.jenny, "timeline?text=DOXO")) == ["DOXOrubicin"]
    assert rows(clinic.page(clinic.jenny, "timeline?from=2018-09-01&to=2018-09-30")) == ["anastrozole"]
    assert "HER2 [Interpretation] in Tissue" in rows(clinic.page(clinic.jenny, "timeline?group=pathology"))
    assert t("timeline.none") in clinic.page(clinic.jenny, "timeline?text=%3Cscript%3E")
    assert "<script>" not in clinic.page(clinic.jenny, "timeline?text=%3Cscript%3E")
    clinic.page(clinic.jenny, "timeline?from=yesterday", 400)


def test_a_long_timeline_comes_in_pages(clinic: Clinic) -> None:
    many = [weight(f"many-{n}", "bare", 60 + n / 10, effectiveDateTime=f"2020-01-{1 + n % 28:02}") for n in range(170)]
    learn(clinic.parts.store, *many, namespace="sandbox")
    first = clinic.page(clinic.bare, "timeline?group=labs")
    assert len(rows(first)) == 150
    assert "skip=150" in first
    assert "group=labs" in first[first.index("skip=150") - 40 : first.index("skip=150")]
    assert len(rows(clinic.page(clinic.bare, "timeline?group=labs&skip=150"))) == 21
    assert len(first) < 150_000


# ---- what is withheld ------------------------------------------------------------------------------------------------


def test_labelled_data_is_withheld_until_somebody_breaks_the_glass(clinic: Clinic) -> None:
    learn(
        clinic.parts.store,
        patient("kept", born="1971-01-01"),
        weight("plain", "kept", 71.5),
        weight("secret", "kept", 99.5, meta=RESTRICTED),
        namespace="sandbox",
    )
    case = clinic.sessions.open(clinic.parts, "kept")
    for below in ("", "timeline"):
        html = clinic.page(case, below)
        assert "71.5" in html
        assert "99.5" not in html
        assert t("case.withheld_one") in html
    too_short = clinic.post(case, "break-glass", {"csrf": case.csrf, "reason": "x"})
    assert too_short.status_code == 400
    assert clinic.post(case, "break-glass", {"csrf": case.csrf, "reason": "bleeding in the ER"}).status_code == 303
    html = clinic.page(case)
    assert "99.5" in html
    assert "You broke the glass" in html


def test_a_restricted_record_asks_for_a_reason_and_says_nothing(clinic: Clinic) -> None:
    whole = patient("shut", born="1971-01-01", meta=RESTRICTED, name=[{"family": "Secret"}])
    learn(clinic.parts.store, whole, namespace="sandbox")
    case = clinic.sessions.open(clinic.parts, "shut")
    html = clinic.page(case, status=403)
    assert "Secret" not in html
    assert f'action="/app/{case.id}/break-glass"' in html
    assert (
        clinic.post(case, "break-glass", {"csrf": case.csrf, "reason": "unconscious, no relatives"}).status_code == 303
    )
    assert "Secret" in clinic.page(case)


# ---- images, and the other engine ------------------------------------------------------------------------------------


def test_key_images_are_served_behind_the_case(sqlite_settings: Settings) -> None:
    parts = build(sqlite_settings)
    try:
        arrive(parts.store, ct_series(slices=6))
        imaging(parts.store).some()
        learn(parts.store, patient("other"), namespace="a")
        sessions = GivenSessions()
        client = TestClient(case_app(parts, sessions))
        record = parts.store.reads.record("a", "MADE-made-1")
        assert record is not None
        viewer = type(BEN)(BEN.subject, BEN.name, BEN.roles, BEN.door, "a")
        mine = sessions.open(parts, "MADE-made-1", viewer, namespace="a")
        other = sessions.open(parts, "other", viewer, namespace="a")
        shown = pictures(parts.store, [record.id])
        html = client.get(f"/app/{mine.id}/").text
        assert all(f"/app/{mine.id}/pictures/{each.media}" in html for each in shown)
        assert t("case.viewer") not in html
        study = "https://pacs.example/viewer?study={study}&patient={patient}"
        registered = Registered("a", "A", "https://ehr.example/fhir", "app", image_viewer=study)
        viewing = replace(sqlite_settings, ehrs=(Ehr("a", app=registered),))
        url = str(viewer_url(parts.store, viewing, record, shown))
        assert re.fullmatch(r"https://pacs\.example/viewer\?study=[0-9.]+&patient=MADE-made-1", url)
        assert viewer_url(parts.store, viewing, record, []) is None, "a place that nothing fills: no link"
        got = client.get(f"/app/{mine.id}/pictures/{shown[0].media}")
        assert got.headers["content-type"] == "image/png"
        assert got.content.startswith(b"\x89PNG")
        assert got.headers["cache-control"] == "no-store"
        assert client.get(f"/app/{other.id}/pictures/{shown[0].media}").status_code == 404
        assert "pictures/" not in client.get(f"/app/{other.id}/").text
    finally:
        parts.close()
    assert audit(sqlite_settings.data_dir, sqlite_settings.database_url, deep=True).findings == ()


@pytest.mark.parametrize("url", ["postgres"], indirect=True)
def test_a_case_from_look_to_override_on_postgresql(settings: Settings) -> None:
    parts = build(settings)
    try:
        clinic = Clinic(parts)
        assert "Jenny M" in clinic.page(clinic.jenny)
        form = {**clinic.form(clinic.jenny), "outcome": "overridden", "comment": "no"}
        assert clinic.post(clinic.jenny, "act", form).status_code == 303
        what_if = {**clinic.form(clinic.jenny, "what-if"), "set.gen": "2"}
        assert clinic.post(clinic.jenny, "what-if", what_if).status_code == 303
        assert "Chemotherapy: second generation" in clinic.page(clinic.jenny)
        assert len(rows(clinic.page(clinic.jenny, "timeline"))) > 40
    finally:
        parts.close()
    assert audit(settings.data_dir, settings.database_url, deep=True).findings == ()
