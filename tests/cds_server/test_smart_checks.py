"""What `cds doctor` says about launches."""

from __future__ import annotations

from pathlib import Path

from cds_server.keys import Keys
from cds_server.smart.checks import apps
from tests.cds_server.smart_flow import house
from tests.hostile_authorization import HostileEhr, running


def test_what_would_keep_a_launch_from_succeeding_is_told(data_dir: Path, migrated_sqlite: Path) -> None:
    with running(HostileEhr()) as ehr, house(data_dir, migrated_sqlite, ehr, method="asymmetric") as app:

        def told() -> tuple[str, str]:
            ((name, state, what),) = apps(app.settings, app.store)
            assert name == "app of ward-7"
            return state, what

        assert told() == ("FAILS", "there is no key to sign with: cds keys new")
        Keys(app.store).new(None, "user:test", "ES384")
        assert told() == ("ok", "asymmetric client")
        ehr.configuration = {"capabilities": None}
        assert told() == ("LOOK", "it has no capabilities")
        ehr.configuration = {"token_endpoint": "https://evil.example.org/token"}
        assert told()[0] == "FAILS"
        assert "evil" not in told()[1]
        ehr.configuration_status = 500
        assert told() == ("FAILS", "its SMART configuration: answered 500")
