"""What a CDS Hooks answer must be, told independently of the code that makes it: the black-box check's own tables."""

from __future__ import annotations

from cds_server.conformance.answers import check_card, check_response

__all__ = ["check_card", "check_response"]
