"""Configuration: what is wrong stops the start with one sentence that names the key and the place."""

from __future__ import annotations

from pathlib import Path

import pytest

from cds_server.settings import load, loopback
from models.errors import Misconfigured


def complaint(tmp_path: Path, text: str = "", **environ: str) -> str:
    config = tmp_path / "cds.toml"
    config.write_text(text)
    with pytest.raises(Misconfigured) as refused:
        load({"CDS_CONFIG": str(config), **environ})
    said = str(refused.value)
    assert "\n" not in said
    return said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("prot = 1", "unknown key 'prot' in cds.toml"),
        ("port = 'x'", "port in cds.toml is not a whole number"),
        ("port = true", "port in cds.toml is not a whole number"),
        ("port = 80.5", "port in cds.toml is not a whole number"),
        ("port = 70000", "port in cds.toml is not between 0 and 65535"),
        ("deadline_ms = 1", "deadline_ms in cds.toml is not between 10 and 60000"),
        ("max_body = 0", "max_body in cds.toml is not between 1024 and 1073741824"),
        ("data_dir = 5", "data_dir in cds.toml is not text"),
        ("trust = 'all'", "trust in cds.toml is neither 'open' nor 'jwt'"),
        ("log_level = 'loud'", "log_level in cds.toml is none of debug, info, warning, error"),
        ("public_url = 'ftp://x'", "public_url in cds.toml is not an http or https URL"),
        ("public_url = 'http://[::1'", "public_url in cds.toml is not an http or https URL"),
        ("database_url = 'mysql://x'", "database_url in cds.toml is neither sqlite:/// nor postgresql+psycopg://"),
        ("actors = 'bob'", "actors in cds.toml is not a list of texts"),
        ("ehr = 1", "ehr in cds.toml is not a list of tables: write [[ehr]]"),
        ("[[ehr]]\nissuer = 'x'", "[[ehr]] number 1 in cds.toml has no namespace"),
        ("[[ehr]]\nnamespace = 1", "namespace of [[ehr]] number 1 in cds.toml is not text"),
        (
            "[[ehr]]\nnamespace = 'a/b'",
            "namespace of [[ehr]] number 1 in cds.toml has other signs than letters, digits, '.', '_' and '-'",
        ),
        ("[[ehr]]\nnamespace = 'a'\nsees = 'b'", "sees of [[ehr]] number 1 in cds.toml is not a list of texts"),
        ("[[ehr]]\nnamespace = 'a'\ntest = 'no'", "test of [[ehr]] number 1 in cds.toml is neither true nor false"),
        ("[[ehr]]\nnamespace = 'a'\nsee = []", "unknown key 'see' of [[ehr]] number 1 in cds.toml"),
        ("[[ehr]]\nnamespace='a'\n[[ehr]]\nnamespace='a'", "two [[ehr]] tables in cds.toml have the same namespace"),
        ("[[source]]\nname = 'x'", "[[source]] number 1 in cds.toml has no kind"),
        ("[[source]]\nname = 'x'\nkind = 'y'", "[[source]] number 1 in cds.toml has no namespace"),
        ("[identity]\njoining = []", "unknown key 'joining' of [identity] in cds.toml"),
        (
            "[identity]\njoining_systems = 'x'",
            "joining_systems of [identity] in cds.toml is not a list of texts",
        ),
        ("identity = 1", "identity in cds.toml is not a table: write [identity]"),
        ("port = ", "cds.toml is not TOML (Invalid value (at end of document))"),
    ],
)
def test_a_wrong_value_in_the_file_is_named(tmp_path: Path, text: str, said: str) -> None:
    assert complaint(tmp_path, text) == said


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("CDS_PORT", "eighty", "CDS_PORT in the environment is not a whole number"),
        ("CDS_PORT", "", "CDS_PORT in the environment is not a whole number"),
        ("CDS_TRUST", "yes", "CDS_TRUST in the environment is neither 'open' nor 'jwt'"),
        ("CDS_PUBLIC_URL", "nowhere", "CDS_PUBLIC_URL in the environment is not an http or https URL"),
        ("CDS_DATA_DIR", "", "CDS_DATA_DIR in the environment is not text"),
    ],
)
def test_a_wrong_variable_is_named(tmp_path: Path, name: str, value: str, said: str) -> None:
    assert complaint(tmp_path, "port = 8000", **{name: value}) == said


@pytest.mark.parametrize(
    ("host", "public_url", "refused"),
    [
        ("127.0.0.1", "http://127.0.0.1:8000", False),
        ("::1", "http://[::1]:8000", False),
        ("localhost", "http://localhost:8000", False),
        ("127.8.9.1", "http://localhost", False),
        ("0.0.0.0", "http://127.0.0.1:8000", True),  # noqa: S104 (refused)
        ("127.0.0.1", "https://cds.example.org", True),
        ("10.0.0.1", "http://10.0.0.1", True),
        ("127.0.0.1", "http://localhost.example.org", True),
        ("127.0.0.1", "http://127.0.0.1@example.org", True),
    ],
)
def test_open_trust_stays_on_loopback(host: str, public_url: str, refused: bool) -> None:
    environ = {"CDS_TRUST": "open", "CDS_HOST": host, "CDS_PUBLIC_URL": public_url}
    if refused:
        with pytest.raises(Misconfigured, match=r"CDS_TRUST in the environment lets anybody in: it is refused unless"):
            load(environ)
    else:
        assert load(environ).trust == "open"
    assert loopback("127.0.0.1")
    assert not loopback("example.org")


def test_the_environment_stands_over_the_file_and_the_command_line_over_both(tmp_path: Path) -> None:
    config = tmp_path / "cds.toml"
    config.write_text(
        'port = 1\nhost = "127.0.0.2"\nactors = ["auditor"]\n[[ehr]]\nnamespace = "st-mary"\nsees = ["lab"]\n'
        'fhir_base = "https://ehr.example.org/fhir/"\n'
        '[[source]]\nname = "lab"\nkind = "files"\nnamespace = "lab"\nx = 1\n'
    )
    environ = {"CDS_CONFIG": str(config), "CDS_PORT": "2", "CDS_DATA_DIR": str(tmp_path)}
    settings = load(environ, port=None)
    assert (settings.port, settings.host, settings.public_url) == (2, "127.0.0.2", "http://127.0.0.2:2")
    assert load(environ, port=3).port == 3
    assert settings.database_url == f"sqlite:///{tmp_path}/cds.db"
    assert settings.origin == "cds.toml"
    assert settings.ehr("st-mary").sees == ("lab",)
    assert settings.ehr("st-mary").fhir_base == "https://ehr.example.org/fhir"
    assert (settings.ehr("unknown").sees, settings.ehr("unknown").test) == ((), False)
    assert settings.sources[0].options == {"x": 1}
    assert load({}).trust == "jwt"


def test_a_named_file_that_is_none_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "none.toml", tmp_path):
        with pytest.raises(Misconfigured, match=r"CDS_CONFIG names .* which is no file"):
            load({"CDS_CONFIG": str(path)})
