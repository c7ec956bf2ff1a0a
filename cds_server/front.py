"""FastAPI, and beside it a straight way to the one door that is measured.

FastAPI is the framework: every door is a route of it, it answers for unknown paths and methods, and the OpenAPI
document is held against its routes. On its way to a route it takes a request through some fifteen layers: its
telemetry, its last resort, its body limit, its exit stack, two routers, handlers of exceptions at two places. A hook
call needs none, since each of its errors leaves by our own `Guard`; they cost a third of what stands between the socket
and the desk. So a request for a path that was named here goes through our middleware straight to the endpoint of its
route. Path, endpoint and middleware are asked of the application: nothing is said twice, and a test holds both ways
against each other.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send


class Front(FastAPI):
    """A FastAPI application some of whose paths are served without its own layers."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._straight: dict[tuple[str, str], ASGIApp] = {}

    def straight(self, name: str, **params: str) -> None:
        """Serve the route of that name, where these are its path parameters, without FastAPI's layers.

        Called last: middleware that is added later is not seen.
        """
        (route,) = [each for each in self.routes if isinstance(each, Route) and each.name == name]
        door: ASGIApp = _Endpoint(route.endpoint, params)
        for each in reversed(self.user_middleware):
            door = each.cls(door, *each.args, **each.kwargs)
        for method in route.methods or ():
            self._straight[method, route.url_path_for(name, **params)] = door

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            door = self._straight.get((scope["method"], scope["path"]))
            if door is not None:
                await door(scope, receive, send)
                return
        await super().__call__(scope, receive, send)


class _Endpoint:
    """A route's function with its path parameters already read."""

    def __init__(self, answer: Callable[[Request], Awaitable[Response]], params: dict[str, str]) -> None:
        self._answer = answer
        self._params = params

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["path_params"] = self._params
        response = await self._answer(Request(scope, receive, send))
        await response(scope, receive, send)
