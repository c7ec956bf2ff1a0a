"""Quirks are data: each deviation from the generic server has a source, and an operator's own switches are checked."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest

from adapters.bulk import profiles
from adapters.bulk.profiles import PROFILES, EhrProfile, overridden, switches
from models.errors import Misconfigured

ROOT = Path(__file__).parents[2]


def test_the_profiles_are_those_of_the_servers_that_are_known() -> None:
    assert set(PROFILES) == {"generic", "epic", "oracle", "hapi", "medplum"}
    assert all(name == profile.name for name, profile in PROFILES.items())


@pytest.mark.parametrize("name", sorted(PROFILES))
def test_a_source_is_stated_for_each_switch_that_differs_from_generic_and_for_no_other(name: str) -> None:
    generic, profile = PROFILES["generic"], PROFILES[name]
    differing = {each for each in switches() if getattr(profile, each) != getattr(generic, each)}
    assert set(profile.sources) == differing
    assert all(len(source) > 10 for source in profile.sources.values())


@pytest.mark.parametrize("name", sorted(PROFILES))
def test_no_profile_holds_a_value_that_an_operator_could_not_set(name: str) -> None:
    profile = PROFILES[name]
    table = {each: getattr(profile, each) for each in switches() if getattr(profile, each) is not None}
    again = overridden(PROFILES["generic"], table)
    assert all(getattr(again, each) == getattr(profile, each) for each in switches())


def test_an_operator_overrides_single_switches() -> None:
    epic = PROFILES["epic"]
    own = overridden(epic, {"kick_off": "post", "since_overlap": 0, "files_in_parallel": 1})
    assert (own.kick_off, own.since_overlap, own.files_in_parallel) == ("post", 0, 1)
    assert own.reauthorize_on_400 is epic.reauthorize_on_400
    assert own.sources["kick_off"] == "the configuration"
    assert epic.kick_off == "get"


def test_no_override_is_the_profile_itself() -> None:
    assert overridden(PROFILES["hapi"], {}) == PROFILES["hapi"]


@pytest.mark.parametrize(
    ("table", "named"),
    [
        ({"kickoff": "post"}, "kickoff"),
        ({"name": "epic"}, "name"),
        ({"sources": {}}, "sources"),
        ({"kick_off": "put"}, "kick_off"),
        ({"kick_off": True}, "kick_off"),
        ({"kick_off": None}, "kick_off"),
        ({"kick_off": ["get"]}, "kick_off"),
        ({"repeat_types": 1}, "repeat_types"),
        ({"repeat_types": "yes"}, "repeat_types"),
        ({"since_overlap": -1}, "since_overlap"),
        ({"since_overlap": 1.5}, "since_overlap"),
        ({"since_overlap": True}, "since_overlap"),
        ({"files_in_parallel": 0}, "files_in_parallel"),
        ({"files_in_parallel": "3"}, "files_in_parallel"),
        ({"max_group": 0}, "max_group"),
        ({"max_group": "many"}, "max_group"),
        ({"filter_commas": ","}, "filter_commas"),
        ({"assertion_audience": "base"}, "assertion_audience"),
    ],
)
def test_a_switch_that_does_not_exist_or_does_not_fit_is_named(table: dict[str, Any], named: str) -> None:
    with pytest.raises(Misconfigured) as error:
        overridden(EhrProfile("generic"), table)
    assert named in error.value.what


def test_no_other_file_knows_a_vendor_by_name() -> None:
    """The flow asks switches (the house: quirks are data): no string or name of a vendor in the rooms' code."""
    vendors = set(PROFILES) - {"generic"}
    for path in (ROOT / "adapters" / "bulk").glob("*.py"):
        if path.name == Path(profiles.__file__).name:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            said = node.value if isinstance(node, ast.Constant) else getattr(node, "id", None)
            assert not (isinstance(said, str) and said.lower() in vendors), f"{path.name} names a vendor"
