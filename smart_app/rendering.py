"""From a template to an answer: escaped, never stored by anybody, and unable to run what it was not given.

    page(...)       a whole page, with the headers that each page of the app has
    fragment(...)   a piece of one, for htmx
    refused(error)  an error as a page
    asset(name)     the address of a file of static/, with its digest
    routes()        static/ and nothing else, to be mounted at `/static`

Content Security Policy level 3: scripts, styles and pictures come from here only, nothing inline; a page may be framed
by the origins of its case and by nobody else. `Referrer-Policy: no-referrer` makes a browser send `Origin: null` with
a form (Fetch, 3.2): what proves a POST is the session's CSRF token, never that header.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from models.errors import CdsError, NotFound
from smart_app.banners import Banner
from smart_app.desk import Case
from smart_app.formats import Formats
from smart_app.texts import english, t

ROOM = Path(__file__).parent
STATIC = "/static"
_TYPES = {".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}
_ORIGIN = re.compile(r"https?://[A-Za-z0-9.\-\[\]:]+")


@dataclass(frozen=True, slots=True)
class Place:
    """One entry of a page's navigation."""

    label: str
    href: str
    current: bool = False


_CASE = "/app/{launch_id}/"
_BESIDE = ("timeline", "then", "similar", "board")
_offered: set[str] = {"timeline"}


def offer(paths: Iterable[str]) -> None:
    """Which pages of a case this server has, by the paths of its routes: only these are led to."""
    known = set(paths)
    _offered.clear()
    _offered.update(name for name in _BESIDE if _CASE + name in known)


def case_places(case: Case, current: str = "case") -> tuple[Place, ...]:
    """Where one may go inside a case: `case`, `timeline`, `then`, `similar`, `board`."""
    root = f"/app/{case.id}/"
    beside = (Place(t(f"frame.{name}"), root + name, name == current) for name in _BESIDE if name in _offered)
    return (Place(t("frame.case"), root, current == "case"), *beside)


def page(
    template: str,
    *,
    title: str,
    status: int = 200,
    case: Case | None = None,
    banner: Banner | None = None,
    places: Sequence[Place] = (),
    ancestors: Sequence[str] = (),
    posts_to: Sequence[str] = (),
    language: str | None = None,
    **values: Any,
) -> HTMLResponse:
    """A template of templates/ as a page. In it: `t` (texts), `f` (formats), `asset`, and what is given here.

    `case` needs its `banner`: no page about a patient goes out without saying whom. `ancestors`: origins that may frame
    it, besides those of the case. `posts_to`: other origins that a form of it may lead to. `language`: the request's
    Accept-Language. Errors: ValueError for a case without a banner; jinja2's for a name that a template lacks.
    """
    if (case is None) != (banner is None):
        raise ValueError("a page about a patient says whom it is about")
    html = (
        _jinja()
        .get_template(template)
        .render(
            title=title,
            case=case,
            banner=banner,
            places=tuple(places),
            f=Formats.of(language),
            **values,
        )
    )
    allowed = (*ancestors, *(case.ancestors if case else ()))
    return HTMLResponse(html, status, headers=headers(allowed, posts_to))


def refused(error: CdsError, *, language: str | None = None, ancestors: Sequence[str] = (), back: str = "") -> Response:
    """An error as a page: what kind it is, in words of ours, with nothing of what was asked."""
    key = f"error.{error.status}"
    told = t(key if key in english() else "error.500" if error.status >= 500 else "error.400")
    if error.retry and error.status != 503:
        told += f" {t('error.busy')}"
    return page(
        "error.html",
        title=t("error.title"),
        status=error.status,
        told=told,
        back=back,
        language=language,
        ancestors=ancestors,
    )


def fragment(template: str, *, language: str | None = None, status: int = 200, **values: Any) -> HTMLResponse:
    """A piece of a page, with the same headers."""
    html = _jinja().get_template(template).render(f=Formats.of(language), **values)
    return HTMLResponse(html, status, headers=headers())


def headers(ancestors: Sequence[str] = (), posts_to: Sequence[str] = ()) -> dict[str, str]:
    """What every page of the app says to the browser. Errors: ValueError for what is no origin."""
    for origin in (*ancestors, *posts_to):
        if not _ORIGIN.fullmatch(origin):
            raise ValueError("a policy names origins")
    framed = " ".join(dict.fromkeys(ancestors)) or "'none'"
    forms = " ".join(("'self'", *dict.fromkeys(posts_to)))
    policy = (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        f"form-action {forms}; base-uri 'none'; frame-ancestors {framed}"
    )
    told = {
        "Content-Security-Policy": policy,
        "Cache-Control": "no-store",
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
        "Vary": "Accept-Language, Cookie",
    }
    return told if ancestors else {**told, "X-Frame-Options": "DENY"}


@cache
def _jinja() -> Environment:
    jinja = Environment(
        loader=FileSystemLoader(ROOM / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    jinja.globals.update(t=t, asset=asset)
    return jinja


# ---- files -----------------------------------------------------------------------------------------------------------


@cache
def _files() -> dict[str, tuple[bytes, str, str]]:
    """Name -> bytes, media type, digest: of what lies in static/ when it is first asked for."""
    found = {}
    for path in sorted((ROOM / "static").iterdir()):
        if path.suffix in _TYPES:
            body = path.read_bytes()
            found[path.name] = (body, _TYPES[path.suffix], hashlib.sha256(body).hexdigest()[:16])
    return found


def asset(name: str) -> str:
    """The address of a file of static/: it changes with its bytes, so a browser may keep it for ever."""
    return f"{STATIC}/{name}?v={_files()[name][2]}"


async def static_file(request: Request) -> Response:
    found = _files().get(request.path_params["name"])
    if found is None:
        raise NotFound("there is no such file")
    body, media_type, digest = found
    fresh = request.query_params.get("v") == digest
    return Response(
        body,
        media_type=media_type,
        headers={
            "Cache-Control": "public, max-age=31536000, immutable" if fresh else "no-cache",
            "X-Content-Type-Options": "nosniff",
            "Cross-Origin-Resource-Policy": "same-origin",
        },
    )


def routes() -> list[Route]:
    """The files that pages refer to."""
    return [Route(f"{STATIC}/{{name}}", static_file)]
