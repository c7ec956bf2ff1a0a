"""Codes of v2 tables in FHIR, by mapping/vocabulary.toml; names of code systems as URIs."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from adapters.hl7v2.feed import Feed
from models.errors import Misconfigured

TERMINOLOGY = "http://terminology.hl7.org/CodeSystem/"
FOLDER = Path(__file__).with_name("mapping")

_HL7_TABLE = re.compile(r"HL7(?:nnnn)?0?(\d{4})")


class Table(NamedTuple):
    """One vocabulary map."""

    codes: Mapping[str, str]
    system: str | None
    """Code system of the targets, where they are codings."""


def load(name: str) -> dict[str, Any]:
    """One file of the mapping, by its name."""
    with (FOLDER / f"{name}.toml").open("rb") as file:
        return tomllib.load(file)


def _tables() -> dict[str, Table]:
    tables = {}
    for name, entry in load("vocabulary").items():
        codes = {**{code: code for code in entry.get("same", ())}, **entry["map"]}
        tables[name] = Table(codes, entry.get("system"))
    return tables


TABLES = _tables()
_SYSTEMS = TABLES["CodingSystem"].codes


def table(name: str) -> Table:
    found = TABLES.get(name)
    if found is None:
        raise Misconfigured(f"the mapping names the vocabulary {name}, which it does not have")
    return found


def code_system(feed: Feed, name: str, oid: str = "") -> str:
    """The URI of a coding system as CWE.3 (table 0396) or its OID names it; a local one is one of this feed."""
    if name in feed.systems:
        return feed.systems[name]
    if name in _SYSTEMS:
        return _SYSTEMS[name]
    if match := _HL7_TABLE.fullmatch(name):
        return f"{TERMINOLOGY}v2-{match[1]}"
    return feed.authority(name, oid)


def table_system(number: str) -> str:
    """The URI of a v2 table."""
    return f"{TERMINOLOGY}v2-{number}"


def expand(constant: Any) -> Any:
    """A constant of the mapping; `table|code` stands for a CodeableConcept."""
    if isinstance(constant, str) and "|" in constant:
        system, _, code = constant.partition("|")
        return {"coding": [{"system": TERMINOLOGY + system, "code": code}]}
    if isinstance(constant, list):
        return [expand(one) for one in constant]
    if isinstance(constant, dict):
        return {key: expand(one) for key, one in constant.items()}
    return constant
