"""How every shipped artifact was made: `python -m models.training`. Never imported by the server."""
