"""The cookies of the app: one per launch, each named by it, each good for nothing else.

RFC 6265bis: `__Host-` ties a cookie to this host, to TLS and to the whole of it. In an EHR's frame we are a third
party: `SameSite=None; Partitioned` (CHIPS) keeps a jar for us per embedding site, so a launch in one EHR's frame never
meets one in another's. Over plain HTTP, which is for loopback only, browsers take neither; then it is `SameSite=Lax`.
"""

from __future__ import annotations

from collections.abc import Iterable

from starlette.responses import Response

_LAUNCH, _SESSION = "cds-launch-", "cds-app-"
_HOST = "__Host-"


def launch(ref: str, *, secure: bool) -> str:
    """Name of the cookie of a launch under way."""
    return f"{_HOST if secure else ''}{_LAUNCH}{ref}"


def session(launch_id: str, *, secure: bool) -> str:
    """Name of the cookie that proves a session."""
    return f"{_HOST if secure else ''}{_SESSION}{launch_id}"


def sessions_in(names: Iterable[str], *, secure: bool) -> list[str]:
    """Launch ids of the session cookies that a browser sent."""
    start = session("", secure=secure)
    return [name.removeprefix(start) for name in names if name.startswith(start)]


def put(response: Response, name: str, value: str, seconds: int, *, secure: bool) -> None:
    """Set a cookie. Written by hand: Python 3.11 does not know `Partitioned`."""
    rest = "Secure; HttpOnly; SameSite=None; Partitioned" if secure else "HttpOnly; SameSite=Lax"
    response.headers.append("Set-Cookie", f"{name}={value}; Path=/; Max-Age={seconds}; {rest}")


def drop(response: Response, name: str, *, secure: bool) -> None:
    put(response, name, "", 0, secure=secure)
