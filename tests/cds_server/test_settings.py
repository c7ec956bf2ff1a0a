"""Configuration: what is wrong stops the start with one sentence that names the key and the place."""

from __future__ import annotations

from pathlib import Path

import pytest

from cds_server.settings import load, loopback
from models.errors import Misconfigured

EHR = "[[ehr]]\nnamespace = 'a'\n"
SIGNS = f"{EHR}issuer = 'i'\n"
OF = "of [[ehr]] number 1 in cds.toml"
REACHABLE = "is not an https URL (http only on loopback)"
EITHER = "keys come from the file, or from the URL"
ORIGIN = "has one that is not an origin: https://host[:port], without a path"
NOR = "(nor is CDS_STAFF_CLIENT_SECRET set)"


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
        (f"{EHR}issuer = 5", "issuer of [[ehr]] number 1 in cds.toml is not text"),
        (f"{EHR}jwks = 'k'", "[[ehr]] number 1 in cds.toml has keys and no issuer: whose are they?"),
        (f"{SIGNS}jwks = 'k'\njwks_url = 'https://x/k'", f"jwks {OF} stands beside jwks_url: {EITHER}"),
        (f"{SIGNS}jwks_url = 'http://ehr.example.org/k'", f"jwks_url {OF} {REACHABLE}"),
        (f"{SIGNS}jwks_url = 'https://me@ehr.example.org/k'", f"jwks_url {OF} {REACHABLE}"),
        (f"{SIGNS}jku = ['ftp://keys']", f"jku {OF} {REACHABLE}"),
        (f"{EHR}fhir_servers = ['http://169.254.169.254']", f"fhir_servers {OF} {REACHABLE}"),
        (f"{SIGNS}lifetime = 901", f"lifetime {OF} is not a whole number of seconds between 1 and 900"),
        (f"{SIGNS}skew = 1.5", f"skew {OF} is not a whole number of seconds between 0 and 300"),
        (f"{SIGNS}published_keys = 'no'", f"published_keys {OF} is neither true nor false"),
        (
            f"{SIGNS}[[ehr]]\nnamespace = 'b'\nissuer = 'i'\ntenants = ['t']",
            "[[ehr]] tables in cds.toml share an issuer: each of them needs its tenants",
        ),
        (
            f"{SIGNS}tenants = ['t']\n[[ehr]]\nnamespace = 'b'\nissuer = 'i'\ntenants = ['u', 't']",
            "two [[ehr]] tables in cds.toml have the same issuer and tenant",
        ),
        ("cors_origins = ['*']", f"cors_origins in cds.toml {ORIGIN}"),
        ("cors_origins = ['null']", f"cors_origins in cds.toml {ORIGIN}"),
        ("cors_origins = ['https://a.example/']", f"cors_origins in cds.toml {ORIGIN}"),
        ("cors_origins = ['http://a.example']", f"cors_origins in cds.toml {ORIGIN}"),
        ("cors_origins = 'https://a.example'", "cors_origins in cds.toml is not a list of texts"),
        ("ca_file = 'no-such-file'", "ca_file in cds.toml names no file"),
        ("ops_token = 'in-the-open-for-all'", "unknown key 'ops_token' in cds.toml"),
        ("ops_token_file = 'no-such-file'", "ops_token_file of the file in cds.toml names a file that cannot be read"),
        ("staff = 1", "staff in cds.toml is not a table: write [staff]"),
        ("[staff]\nissuer = 'https://x'", f"[staff] in cds.toml has no client_secret_file {NOR}"),
        ("[staff]\nclient_secret = 'x'", "unknown key 'client_secret' of [staff] in cds.toml"),
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


def test_secrets_come_from_the_environment_or_from_files_that_others_cannot_read(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text(" a-token-of-some-length\n")
    secret.chmod(0o600)
    config = tmp_path / "cds.toml"
    config.write_text(f'ops_token_file = "{secret}"\n')
    settings = load({"CDS_CONFIG": str(config)})
    assert settings.ops_token == "a-token-of-some-length"  # noqa: S105
    assert "a-token" not in repr(settings)
    assert load({"CDS_CONFIG": str(config), "CDS_OPS_TOKEN": "x" * 16}).ops_token == "x" * 16
    secret.chmod(0o604)
    assert "everybody may read: chmod 600" in complaint(tmp_path, config.read_text())
    assert "shorter than 16 characters" in complaint(tmp_path, CDS_OPS_TOKEN="short")  # noqa: S106
    assert "CDS_OPS_TOKEN in the environment is empty" in complaint(tmp_path, CDS_OPS_TOKEN=" ")  # noqa: S106


def test_an_ehr_as_it_is_registered(tmp_path: Path) -> None:
    config = tmp_path / "cds.toml"
    config.write_text(
        f"{SIGNS}jwks_url = 'https://ehr.example.org/jwks'\nfhir_base = 'https://ehr.example.org/r4/'\n"
        "fhir_servers = ['https://other.example.org/r4/']\n[[ehr]]\nnamespace = 'b'\n"
    )
    signs, silent = load({"CDS_CONFIG": str(config)}).ehrs
    assert signs.signs
    assert not silent.signs
    assert (signs.algorithms, signs.lifetime, signs.skew) == (("ES384", "RS384"), 900, 60)
    assert signs.allowed_fhir == {"https://ehr.example.org/r4", "https://other.example.org/r4"}
    assert silent.allowed_fhir == frozenset()
