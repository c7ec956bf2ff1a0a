"""A patient's opt-out, from their FHIR Consent resources. The rule, whole:

- Only a Consent with `status` active counts, of any scope but advance directives and treatment consent (`adr`,
  `treatment`: they are about care, not about data), in its `provision.period`.
- It denies where `provision.type` is deny, where a provision inside says deny, or where it has no provision and its
  `policyRule` is OPTOUT (v3-ActCode).
- A denial with `purpose` (v3-ActReason) denies those purposes, one without denies all; scope `research` denies HRESCH.
- What else narrows a denial (actor, action, class, code, data, securityLabel) is not weighed: the denial stands as a
  whole. So are permits inside a denial. Somebody who must look can break the glass.
- One active denial suffices, on any record of the person; a Consent that cannot be read denies everything.

R4 consent.html, 6.2.4; it leaves open how provisions are evaluated, so this is ours, on the strict side.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

EVERYTHING = "*"
"""All purposes."""

_CARE = frozenset({"adr", "treatment"})
_RESEARCH = frozenset({"research"})
RESEARCH = "HRESCH"
_EMERGENCY = {"ETREAT": "TREAT", "BTG": "TREAT"}
"""A purpose that is one of another (v3-ActReason is a hierarchy)."""


def denied(consent: Mapping[str, Any], at: str) -> frozenset[str]:
    """Purposes that this resource denies at that instant; `EVERYTHING` stands for all. Empty: none."""
    if consent.get("status") != "active":
        return frozenset()
    scope = _codes(consent.get("scope"))
    if scope & _CARE:
        return frozenset()
    provision = consent.get("provision")
    if provision is None:
        denies = "OPTOUT" in _codes(consent.get("policyRule"))
        return (frozenset({RESEARCH}) if scope & _RESEARCH else frozenset({EVERYTHING})) if denies else frozenset()
    if not isinstance(provision, Mapping):
        return frozenset({EVERYTHING})
    purposes = frozenset().union(*(_purposes(each) for each in _denials(provision, at)))
    return frozenset({RESEARCH}) if scope & _RESEARCH and EVERYTHING in purposes else purposes


def denies(purposes: frozenset[str], purpose: str) -> bool:
    """Whether a look for this purpose is denied."""
    return EVERYTHING in purposes or purpose in purposes or _EMERGENCY.get(purpose) in purposes


def _denials(provision: Mapping[str, Any], at: str) -> Iterator[Mapping[str, Any]]:
    if not _in_period(provision.get("period"), at):
        return
    if provision.get("type") == "deny":
        yield provision
        return
    inside = provision.get("provision", [])
    for each in inside if isinstance(inside, list) else ():
        if isinstance(each, Mapping):
            yield from _denials(each, at)


def _purposes(provision: Mapping[str, Any]) -> frozenset[str]:
    said = provision.get("purpose", [])
    codes = {str(each["code"]) for each in said if isinstance(each, Mapping) and each.get("code")}
    return frozenset(codes or {EVERYTHING})


def _in_period(period: Any, at: str) -> bool:
    """FHIR times are text whose prefix is their precision: what is compared is what both say."""
    if not isinstance(period, Mapping):
        return True
    start, end = str(period.get("start") or ""), str(period.get("end") or "")
    return at[: len(start[:10])] >= start[:10] and (not end or at[: len(end[:10])] <= end[:10])


def _codes(concept: Any) -> frozenset[str]:
    codings = concept.get("coding", []) if isinstance(concept, Mapping) else []
    return frozenset(str(each["code"]) for each in codings if isinstance(each, Mapping) and each.get("code"))
