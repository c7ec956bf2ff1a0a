"""One parser and one way to say no, for every HTTP door: strict JSON in, OperationOutcome out.

    read_json(request, limit)   media type, content coding, size, then `models.strict.loads`
    json_response(value)        bytes of application/json
    refusal(error)              a CdsError as an OperationOutcome (application/fhir+json)
    install(app)                every error of an application leaves it as an OperationOutcome

CDS Hooks 2.0 asks for nothing in the body of an error; 3.0 asks for an OperationOutcome. No stack, no echo of what came
in: FastAPI's own 422 quotes the input, Starlette's 404 is text, and a trailing slash answers 307; none of them here.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import orjson
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cds_server.logs import log
from models.errors import CdsError, Malformed, TooLarge, TooSlow, Unauthenticated, WrongMediaType
from models.strict import loads

JSON_TYPE = "application/json"
OUTCOME_TYPE = "application/fhir+json"
RETRY_AFTER_SECONDS = "2"
BODY_SECONDS = 10
"""For a whole body to come: a slow sender must not hold a place for ever."""

_log = logging.getLogger(__name__)

_ISSUE_OF_STATUS = {404: "not-found", 405: "not-supported", 413: "too-long", 415: "not-supported"}


async def read_json(request: Request, limit: int) -> tuple[bytes, Any]:
    """The body of a request as it came and as JSON (decimals are `decimal.Decimal`).

    Shapes: `limit` in bytes. Errors: WrongMediaType (415), TooLarge (413), Malformed (400).
    """
    raw = await read_body(request, limit)
    return raw, loads(raw)


async def read_body(request: Request, limit: int, media_type: str = JSON_TYPE) -> bytes:
    """The bytes of a request, never more than `limit`, and never any that were not announced as `media_type`."""
    announced = dict(reversed(request.scope["headers"]))  # of a name that comes twice, the first counts
    _check_media_type(announced.get(b"content-type", b""), media_type)
    if announced.get(b"content-encoding", b"identity").strip().lower() != b"identity":
        raise WrongMediaType("a compressed body is not taken", where="Content-Encoding")
    length = announced.get(b"content-length", b"")
    if length.isdigit() and int(length) > limit:
        raise TooLarge(f"the body is over {limit} bytes")
    receive = request.receive
    try:
        async with asyncio.timeout(BODY_SECONDS):
            message = await receive()
            body: bytes = message.get("body", b"")
            chunks, size = [body], len(body)
            while size <= limit and message.get("more_body", False):
                message = await receive()
                chunks.append(message.get("body", b""))
                size += len(chunks[-1])
    except TimeoutError:
        raise TooSlow(f"the body did not come within {BODY_SECONDS} seconds") from None
    if message["type"] != "http.request":
        raise ClientDisconnect
    if size > limit:
        raise TooLarge(f"the body is over {limit} bytes")
    if not size:
        raise Malformed("the body is empty")
    return body if len(chunks) == 1 else b"".join(chunks)


@functools.lru_cache(maxsize=64)
def _check_media_type(header: bytes, wanted: str) -> None:
    """RFC 9110, 8.3.1: type and parameters are case-insensitive. JSON has one encoding, UTF-8 (RFC 8259, 8.1)."""
    essence, *parameters = (part.strip().lower() for part in header.decode("latin-1").split(";"))
    if essence != wanted:
        raise WrongMediaType(f"the body must be {wanted}", where="Content-Type")
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name == "charset" and value.strip('"') not in ("utf-8", "utf8"):
            raise WrongMediaType("the body must be in UTF-8", where="Content-Type")


def encode(value: Any) -> bytes:
    """Compact JSON in UTF-8. Not RFC 8785: what is digested goes through `models.canonical`."""
    return orjson.dumps(value)


class Encoded(Response):
    """A body that is ready to be sent. Starlette's own response would work out anew what its two headers are."""

    def __init__(self, body: bytes, status: int, media_type: str) -> None:
        self.status_code, self.body, self.media_type, self.background = status, body, media_type, None
        self.raw_headers = [(b"content-length", b"%d" % len(body)), (b"content-type", media_type.encode("latin-1"))]


def json_response(value: Any, status: int = 200, *, media_type: str = JSON_TYPE) -> Response:
    return Encoded(encode(value), status, media_type)


def operation_outcome(error: CdsError) -> dict[str, Any]:
    """One issue of FHIR R4 OperationOutcome: type from the error's class, text from its own words."""
    return _outcome(error.code, str(error))


def _outcome(code: str, diagnostics: str) -> dict[str, Any]:
    issue = {"severity": "error", "code": code, "diagnostics": diagnostics}
    return {"resourceType": "OperationOutcome", "issue": [issue]}


def refusal(error: CdsError) -> Response:
    response = json_response(operation_outcome(error), error.status, media_type=OUTCOME_TYPE)
    if error.status == 503:
        response.headers["Retry-After"] = RETRY_AFTER_SECONDS
    if isinstance(error, Unauthenticated):
        response.headers["WWW-Authenticate"] = "Bearer"  # RFC 6750, 3; no error code: alike for every cause
    return response


def _plain_refusal(status: int, code: str, text: str, headers: Mapping[str, str] | None = None) -> Response:
    response = json_response(_outcome(code, text), status, media_type=OUTCOME_TYPE)
    response.headers.update(headers or {})
    return response


# ---- every error of an application -----------------------------------------------------------------------------------


def install(app: Starlette) -> None:
    """Let no error of this application leave in another form, and let no path redirect to its twin with a slash."""
    app.router.redirect_slashes = False
    app.add_exception_handler(CdsError, _on_cds_error)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_middleware(Guard)


async def _on_cds_error(_: Request, error: Exception) -> Response:
    if isinstance(error, Unauthenticated):
        log().warning("caller not believed", what=error.cause)
    return refusal(error if isinstance(error, CdsError) else CdsError("the server failed on this request"))


async def _on_http_exception(_: Request, error: Exception) -> Response:
    """Starlette's own refusals (unknown path, unknown method), without their free text."""
    if not isinstance(error, HTTPException):
        raise error
    status = error.status_code
    if status < 400:
        return Response(status_code=status, headers=error.headers)
    code = _ISSUE_OF_STATUS.get(status, "processing")
    return _plain_refusal(status, code, HTTPStatus(status).phrase, error.headers)


class Guard:
    """Outermost: whatever nobody caught becomes a 500 without its text; only its class and place are logged.

    Starlette's own last resort raises the error again, and the HTTP server then prints it with its text: a value of a
    patient may stand there.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = False

        async def watched(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self.app(scope, receive, watched)
        except ClientDisconnect:
            _log.info("a client went away before its request was read")
        except CdsError as error:  # of an endpoint that no framework stands around
            response = await _on_cds_error(Request(scope), error)
            await response(scope, receive, send)
        except Exception as error:  # noqa: BLE001 - the last resort: nothing may pass it
            _log.error("unhandled %s at %s", type(error).__name__, _place(error))
            if not started:
                response = _plain_refusal(500, "exception", "the server failed on this request")
                await response(scope, receive, send)


def _place(error: Exception) -> str:
    """File and line of the innermost frame."""
    trace = error.__traceback__
    if trace is None:
        return "an unknown place"
    while trace.tb_next is not None:
        trace = trace.tb_next
    return f"{trace.tb_frame.f_code.co_filename.rpartition('/')[2]}:{trace.tb_lineno}"
