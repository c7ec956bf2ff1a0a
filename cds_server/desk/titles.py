"""How the models' columns, modalities and items are called on a page: the same words as on their cards."""

from __future__ import annotations

from collections.abc import Mapping

from cds_server.services import breast_cancer_prognosis, deterioration_news2, vte_risk_chemotherapy
from models.nouns import FeatureVector, ModelVersion

_TREATMENTS = {name: words[:1].upper() + words[1:] for name, (words, _) in breast_cancer_prognosis.TREATMENTS.items()}
INPUTS: Mapping[str, Mapping[str, str]] = {
    breast_cancer_prognosis.MODEL: {**breast_cancer_prognosis.INPUTS, **_TREATMENTS},
    breast_cancer_prognosis.RECURRENCE: breast_cancer_prognosis.INPUTS,
    vte_risk_chemotherapy.MODEL: vte_risk_chemotherapy.INPUTS,
    deterioration_news2.MODEL: deterioration_news2.INPUTS,
}
MODALITIES: Mapping[str, str] = {**breast_cancer_prognosis.MODALITIES, "imaging": "Imaging", "wearables": "Wearables"}
ITEMS: Mapping[str, tuple[str, ...]] = {
    vte_risk_chemotherapy.MODEL: tuple(vte_risk_chemotherapy.COUNTED.values()),
    deterioration_news2.MODEL: tuple(deterioration_news2.INPUTS.values()),
}
"""Of the output `items`, in its order."""
SWITCHES: Mapping[str, tuple[str, ...]] = {
    breast_cancer_prognosis.MODEL: ("horm", "gen", "traz", "bis", "radio", "heart", "screen")
}
"""What a what-if may set: treatments, and what no record states. Never what the record says of the patient."""


def modality(name: str) -> str:
    return MODALITIES.get(name, name[:1].upper() + name[1:])


def inputs(model: ModelVersion, vector: FeatureVector) -> Mapping[str, str]:
    """Column -> title: of the service that speaks by this model, else of the manifest's own features."""
    own = INPUTS.get(model.name, {})
    stated: dict[str, str] = {}
    for part in model.manifest.get("modalities", ()):
        if part["name"] == vector.modality:
            found = part.get("features", ())
            stated = {each["name"]: each["title"] for each in found if "name" in each and "title" in each}
    return {**stated, **own}
