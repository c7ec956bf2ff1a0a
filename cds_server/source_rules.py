"""How the parts of each configured source are read: what `digest` is given."""

from __future__ import annotations

from cds_server.reading import NO_RULES, SourceRules
from cds_server.settings import Settings


def rules_of(settings: Settings) -> SourceRules:
    """By name of the source, whatever its kind. Nothing is loaded where there is none. Raises Misconfigured."""
    rules: SourceRules = NO_RULES
    if any(each.kind.startswith("hl7v2") for each in settings.sources):
        from cds_server.feeds import rules_of as of_feeds

        rules = {**rules, **of_feeds(settings)}
    if any(each.kind.startswith("dicom") for each in settings.sources):
        from cds_server.dicom_archives import rules_of as of_archives

        rules = {**rules, **of_archives(settings)}
    return rules
