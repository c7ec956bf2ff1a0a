"""FHIR Bulk Data as a client sees it: what is asked, what a manifest says, how files come. No store is known here."""
