"""A browser, an EHR that may be hostile, and the app between them: what the tests of launches share."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections.abc import Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from cds_server import keys
from cds_server.access.log import Access
from cds_server.audit import audit
from cds_server.settings import Settings, load
from cds_server.smart.wiring import SmartApp
from cds_server.store.store import Store
from models.errors import CdsError
from smart_app import rendering
from tests.hostile_authorization import CLIENT, SECRET, HostileEhr

PUBLIC = "https://cds.example.org"
NAMESPACE = "ward-7"


@dataclass
class House:
    """One instance with one EHR, and the app in front of it."""

    settings: Settings
    store: Store
    ehr: HostileEhr

    def entries(self) -> list[dict[str, Any]]:
        return [json.loads(entry.body) for entry in self.store.reads.entries()]

    def kinds(self) -> list[str]:
        return [entry["kind"] for entry in self.entries()]

    def flags(self) -> list[str]:
        return [row[0] for row in self.store.reads.query("SELECT reason FROM flag ORDER BY id")]

    def sessions(self) -> int:
        return int(self.store.reads.query("SELECT COUNT(*) FROM app_session")[0][0])

    def run(self, story: Callable[[Browser], Awaitable[None]]) -> None:
        """Tell a story of one browser; the app ends with it."""

        async def told() -> None:
            async with self.app() as app, app.browser() as browser:
                await story(browser)

        asyncio.run(told())

    def tell(self, story: Callable[[App], Awaitable[None]]) -> None:
        async def told() -> None:
            async with self.app() as app:
                await story(app)

        asyncio.run(told())

    @asynccontextmanager
    async def app(self) -> Any:
        """The app as one worker has it."""
        smart = SmartApp(self.settings, self.store, Access(self.store, self.settings))

        async def case(request: Request) -> Response:
            try:
                case = await smart.sessions.case(request)
            except CdsError as error:
                return JSONResponse({"error": error.what}, error.status)
            local = self.store.reads.local_id(self.store.reads.record_by_ref(case.record))  # type: ignore[arg-type]
            told = {
                "id": case.id,
                "patient": local,
                "name": case.viewer.name,
                "subject": case.viewer.subject,
                "inference": case.inference,
                "csrf": case.csrf,
                "banner": case.banner,
                "encounter": case.encounter,
                "intent": case.intent,
                "style": dict(case.style),
                "ancestors": case.ancestors,
            }
            return JSONResponse(told)

        routes = [
            *smart.routes(),
            *rendering.routes(),
            Route("/app/{launch_id}/", case),
            *keys.router(keys.Keys(self.store)).routes,
        ]
        app = App(self, smart, Starlette(routes=routes))
        try:
            yield app
        finally:
            await smart.aclose()


@dataclass
class App:
    house: House
    smart: SmartApp
    asgi: Starlette

    def browser(self) -> Browser:
        return Browser(self)


class Browser:
    """One browser: its cookies, and what it is sent to."""

    def __init__(self, app: App) -> None:
        self.house = app.house
        self.smart = app.smart
        self.ehr = app.house.ehr
        self.http = httpx.AsyncClient(
            transport=httpx.ASGITransport(app.asgi), base_url=app.house.settings.public_url, follow_redirects=False
        )

    async def __aenter__(self) -> Browser:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.http.aclose()

    async def launch(self, launch: str | None = "xyz.123", iss: str | None = None, **headers: str) -> httpx.Response:
        asked = {"iss": iss or self.ehr.base} | ({"launch": launch} if launch is not None else {})
        return await self.http.get("/app/launch", params=asked, headers=headers)

    async def back(self, answer: httpx.Response) -> httpx.Response:
        """On to the authorization server, and back to the app."""
        assert answer.status_code == 302, answer.text
        return await self.http.get(self.ehr.authorize(answer.headers["location"]))

    async def opened(self, launch: str | None = "xyz.123") -> httpx.Response:
        """The whole launch."""
        return await self.back(await self.launch(launch))

    async def case(self, answer: httpx.Response) -> dict[str, Any]:
        """What the case's page knows."""
        assert answer.status_code == 303, answer.text
        shown = await self.http.get(answer.headers["location"])
        assert shown.status_code == 200, shown.text
        told: dict[str, Any] = shown.json()
        return told


def asked(answer: httpx.Response) -> dict[str, str]:
    """Parameters of the authorization request that an answer leads to."""
    return dict(parse_qsl(urlsplit(answer.headers["location"]).query))


@contextmanager
def house(
    folder: Path,
    migrated: Path,
    ehr: HostileEhr,
    *,
    url: str | None = None,
    public: str = PUBLIC,
    method: str = "symmetric",
    more: str = "",
    top: str = "",
    audited: bool = True,
    ancestors: str = "https://ehr.example.org",
) -> Iterator[House]:
    """An instance in an empty folder; afterwards its ledger is verified. `audited`: with what its rows seal."""
    if url is None:
        shutil.copyfile(migrated, folder / "cds.db")
        url = f"sqlite:///{folder / 'cds.db'}"
    secret = folder / "secret"
    secret.write_text(SECRET)
    os.chmod(secret, 0o600)
    lines = [f'client_secret_file = "{secret}"'] if method == "symmetric" else []
    config = folder / "cds.toml"
    config.write_text(
        f'public_url = "{public}"\n{top}\n[access]\n[[access.grant]]\nrole = "clinician"\nehr = "{NAMESPACE}"\n'
        f'[[ehr]]\nnamespace = "{NAMESPACE}"\ntitle = "Ward 7"\nfhir_base = "{ehr.base}"\nclient_id = "{CLIENT}"\n'
        f'app = true\napp_auth = "{method}"\nframe_ancestors = ["{ancestors}"]\n' + "\n".join(lines) + f"\n{more}\n"
    )
    ehr.method = method
    settings = load({"CDS_CONFIG": str(config)}, data_dir=folder, database_url=url)
    store = Store.open(folder, url)
    try:
        yield House(settings, store, ehr)
    finally:
        store.close()
    assert audit(folder, url, deep=audited).findings == ()
