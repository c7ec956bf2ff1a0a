"""What an `[[ehr]]` may say about the app, and which sentence a wrong word gets."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from cds_server.settings import load
from models.errors import Misconfigured
from smart_app.registered import Method, Registered

EHR = 'namespace = "st-mary.7"\nfhir_base = "https://ehr.example.org/fhir"\nclient_id = "hooks"\napp = true\n'


def read(folder: Path, text: str, top: str = "", environ: dict[str, str] | None = None) -> Registered | None:
    config = folder / "cds.toml"
    config.write_text(f'public_url = "https://cds.example.org"\n{top}[[ehr]]\n{text}')
    return load({"CDS_CONFIG": str(config), **(environ or {})}, data_dir=folder).ehrs[0].app


@pytest.mark.smart("20", "21", "301")
def test_an_app_is_registered_by_the_configuration(tmp_path: Path) -> None:
    more = (
        'title = "St Mary"\napp_client_id = "app"\nauthorization_hosts = ["login.example.org", "*.auth.example.org"]\n'
        'frame_ancestors = ["https://ehr.example.org"]\nstyle_hosts = ["cdn.example.org"]\napp_idle = 600\n'
        'image_viewer = "https://viewer.example.org/?study={study}&patient={patient}"\napp_keys = "mary"\n'
    )
    app = read(tmp_path, EHR + more)
    assert app is not None
    assert (app.title, app.client_id, app.method, app.idle) == ("St Mary", "app", Method.ASYMMETRIC, 600)
    assert app.hosts == ("login.example.org", "*.auth.example.org")


def test_an_ehr_that_launches_no_app_has_none(tmp_path: Path) -> None:
    assert read(tmp_path, EHR.replace("app = true\n", "")) is None


def test_a_secret_comes_from_the_environment_or_a_file_and_is_never_printed(tmp_path: Path) -> None:
    app = read(tmp_path, EHR, environ={"CDS_EHR_ST_MARY_7_CLIENT_SECRET": "hush"})
    assert app is not None
    assert (app.method, app.secret) == (Method.SYMMETRIC, "hush")
    assert "hush" not in repr(app)
    secret = tmp_path / "secret"
    secret.write_text("hush hush\n")
    os.chmod(secret, 0o600)
    app = read(tmp_path, EHR + f'client_secret_file = "{secret}"\n')
    assert app is not None
    assert app.secret == "hush hush"  # noqa: S105
    os.chmod(secret, 0o644)
    with pytest.raises(Misconfigured, match="everybody may read"):
        read(tmp_path, EHR + f'client_secret_file = "{secret}"\n')


WRONG: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("app_client_id = 7", "app_client_id of", {}),
    ('app_auth = "secret"', "app_auth of", {}),
    ('app_auth = "symmetric"', "no client_secret_file", {}),
    ('app_auth = "public"', "and there is a client secret", {"CDS_EHR_ST_MARY_7_CLIENT_SECRET": "x"}),
    ('app_keys = "a b"', "app_keys of", {}),
    ('app_scopes = ["a b"]', "listed one by one", {}),
    ('frame_ancestors = ["https://*.example.org"]', "not an origin", {}),
    ('frame_ancestors = ["https://ehr.example.org/x"]', "not an origin", {}),
    ('frame_ancestors = ["http://ehr.example.org"]', "not an origin", {}),
    ('authorization_hosts = ["https://x.example.org"]', "authorization_hosts of", {}),
    ('style_hosts = ["*.org"]', "style_hosts of", {}),
    ('image_viewer = "javascript:alert({study})"', "image_viewer of", {}),
    ('image_viewer = "https://{patient}.example.org/"', "image_viewer of", {}),
    ('image_viewer = "https://x.example.org/{name}"', "image_viewer of", {}),
    ("app_idle = 5", "app_idle of", {}),
)


@pytest.mark.parametrize(("line", "sentence", "environ"), WRONG)
def test_a_wrong_word_is_named(tmp_path: Path, line: str, sentence: str, environ: dict[str, str]) -> None:
    with pytest.raises(Misconfigured, match=sentence):
        read(tmp_path, f"{EHR}{line}\n", environ=environ)


def test_what_an_app_needs_is_there(tmp_path: Path) -> None:
    for without in ("fhir_base", "client_id"):
        text = "\n".join(line for line in EHR.splitlines() if not line.startswith(without))
        with pytest.raises(Misconfigured, match=f"needs a {without}"):
            read(tmp_path, text + "\n")
    with pytest.raises(Misconfigured, match="stands without app = true"):
        read(tmp_path, EHR.replace("app = true", 'app_client_id = "x"'))
    with pytest.raises(Misconfigured, match="from one fhir_base"):
        read(tmp_path, EHR + "[[ehr]]\n" + EHR.replace("st-mary.7", "b").replace("/fhir", "/fhir/"))


@pytest.mark.smart("1", "301", "318")
def test_pages_and_codes_travel_by_tls(tmp_path: Path) -> None:
    config = tmp_path / "cds.toml"
    config.write_text(f'public_url = "http://cds.example.org"\n[[ehr]]\n{EHR}')
    with pytest.raises(Misconfigured, match="the app needs TLS"):
        load({"CDS_CONFIG": str(config)}, data_dir=tmp_path)
    config.write_text(f"[[ehr]]\n{EHR.replace('https://ehr', 'http://ehr')}")
    with pytest.raises(Misconfigured, match="needs a fhir_base: an https URL"):
        load({"CDS_CONFIG": str(config)}, data_dir=tmp_path)
