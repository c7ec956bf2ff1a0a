"""Whether a resource is valid R4, as far as the R4B models of fhir.resources can tell.

The only door to fhir.resources. R4B (4.3.0) changed the types of evidence, medication definition and subscription, and
left what this server takes facts from as in R4 (4.0.1): hl7.org/fhir/R4B/diff.html. Types that only R4 has cannot
be checked, and say so. Readable and valid are two marks: a fact may be taken from an invalid resource, where the
feature's own checks pass.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from importlib import import_module
from typing import Any

from models import strict
from models.errors import Malformed

R4_ONLY = frozenset(
    [
        "EffectEvidenceSynthesis",
        "MedicinalProduct",
        "MedicinalProductAuthorization",
        "MedicinalProductContraindication",
        "MedicinalProductIndication",
        "MedicinalProductIngredient",
        "MedicinalProductInteraction",
        "MedicinalProductManufactured",
        "MedicinalProductPackaged",
        "MedicinalProductPharmaceutical",
        "MedicinalProductUndesirableEffect",
        "RiskEvidenceSynthesis",
        "SubstanceNucleicAcid",
        "SubstancePolymer",
        "SubstanceProtein",
        "SubstanceReferenceInformation",
        "SubstanceSourceMaterial",
        "SubstanceSpecification",
    ]
)
NOT_CHECKED = "resourceType: a type of R4 that R4B does not have; not checked"


def validate(resource: bytes | Mapping[str, Any]) -> list[str]:
    """Problems as `path: rule`, without any value; empty if none was found. The first 50 are given."""
    if isinstance(resource, bytes):
        try:
            resource = strict.loads(resource, what="the resource")
        except Malformed as error:
            return [f": {error}"]
    if not isinstance(resource, Mapping):
        return [": not an object"]
    name = resource.get("resourceType")
    if name in R4_ONLY:
        return [NOT_CHECKED]
    model = _model(name) if isinstance(name, str) else None
    if model is None:
        return ["resourceType: not a resource type of R4"]
    try:
        model.model_validate(dict(resource))
    except ValueError as error:
        return _problems(error)
    except (TypeError, AttributeError, ArithmeticError, RecursionError):
        return [": of a shape that the model cannot read"]
    return []


def _problems(error: ValueError) -> list[str]:
    details = getattr(error, "errors", None)
    if details is None:
        return [": not valid"]
    found = details(include_url=False, include_context=False, include_input=False)
    return [f"{'.'.join(_step(step) for step in each['loc'])}: {each['type']}" for each in found[:50]]


def _step(step: Any) -> str:
    """Names come from the sender where a model forbids extra members: only such as FHIR could have are repeated."""
    text = str(step)
    return text if text.isascii() and text.isalnum() and len(text) <= 64 else "?"


@lru_cache(maxsize=256)
def _model(name: str) -> Any | None:
    """The model class, imported when first needed: all of them take seconds."""
    if not (name.isascii() and name.isalpha() and name[0].isupper() and len(name) <= 64):
        return None
    try:
        module = import_module(f"fhir.resources.R4B.{name.lower()}")
    except ModuleNotFoundError:
        return None
    resource = import_module("fhir.resources.R4B.resource").Resource
    model = getattr(module, name, None)
    concrete = isinstance(model, type) and issubclass(model, resource) and name not in ("Resource", "DomainResource")
    return model if concrete else None
