"""Every page of the sandbox: one frame, escaped, under a policy that runs no script and frames nothing but the app."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from cds_server import wire
from models.errors import Malformed, NotAllowed

ROOM = Path(__file__).parent
MAX_FORM = 16 * 1024
FORM_TYPE = "application/x-www-form-urlencoded"


class Rendering:
    def __init__(self, cds_url: str) -> None:
        loader = FileSystemLoader(ROOM / "templates")
        self._jinja = Environment(
            loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
        )
        self._jinja.globals["cds_url"] = cds_url

    def page(self, template: str, *, status: int = 200, leads_to: Sequence[str] = (), **values: Any) -> Response:
        """`leads_to`: origins to which a form may lead in the end, or that may stand in a frame here."""
        return HTMLResponse(self._jinja.get_template(template).render(values), status, headers=_headers(leads_to))


def _headers(leads_to: Sequence[str]) -> dict[str, str]:
    others = " ".join(sorted(leads_to))
    return {
        "Content-Security-Policy": (
            "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; frame-ancestors 'none'; "
            f"form-action 'self' {others}; frame-src 'self' {others}"
        ),
        "Referrer-Policy": "same-origin",
        "X-Content-Type-Options": "nosniff",
        "Cache-Control": "no-store",
    }


async def read_form(request: Request) -> dict[str, str]:
    """The members of a form, each of which may stand once. Errors: Malformed, TooLarge, WrongMediaType."""
    raw = await wire.read_body(request, MAX_FORM, FORM_TYPE)
    return once(raw)


def once(raw: bytes) -> dict[str, str]:
    """Names and values of a form or query. Errors: Malformed where a name stands twice (RFC 6749, 3.1 and 3.2)."""
    try:
        pairs = parse_qsl(raw.decode("ascii"), keep_blank_values=False, max_num_fields=100)
    except ValueError:
        raise Malformed("the form cannot be read") from None
    if len({name for name, _ in pairs}) != len(pairs):
        raise Malformed("a parameter stands more than once")
    return dict(pairs)


def own_page_only(request: Request) -> None:
    """No other page in this browser may act here. Errors: NotAllowed."""
    origin = request.headers.get("origin")
    own = f"{request.url.scheme}://{request.headers.get('host', '')}"
    if origin not in (None, own) or request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        raise NotAllowed("only the sandbox's own page may do this")
