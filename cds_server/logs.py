"""Structured logs that PHI cannot slip into: an event names itself, and only fields on the list get through.

A field that is not on the list is dropped and counted; a value that is not a short plain word or number is dropped too.
What failed is told by the type of the error and our own words, never by a message from outside.
"""

from __future__ import annotations

import contextlib
import logging
import re
import sys
from collections.abc import Mapping, MutableMapping
from contextvars import ContextVar
from typing import Any, TextIO

import structlog

ALLOWED = frozenset(
    {
        "event",
        "level",
        "timestamp",
        "service",
        "hook",
        "outcome",
        "status",
        "ms",
        "error",
        "where",
        "what",
        "seq",
        "landing",
        "parts",
        "source",
        "namespace",
        "model",
        "version",
        "job",
        "count",
        "cards",
        "pid",
        "host",
        "port",
        "workers",
        "request_id",
        "schema",
        "instance",
        "dropped",
        "path",
        "method",
        "lag",
        "reader",
        "ehr",
    }
)
REQUEST_ID: ContextVar[str | None] = ContextVar("request_id", default=None)
"""Of the request that is being answered: it stands in every line that is logged meanwhile."""
_PLAIN = re.compile(r"[\w .,:;/@+()'*={}\[\]<>-]{0,200}", re.ASCII)
_EVENT = re.compile(r"[a-z][a-z ,-]{0,60}")
"""An event is a name that we gave it: small letters, no digits, nothing put into it."""
_ours: Any = None


def _allow(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> Mapping[str, Any]:
    if (request := REQUEST_ID.get()) is not None:
        event["request_id"] = request
    kept = {
        key: value
        for key, value in event.items()
        if key in ALLOWED
        and (value is None or isinstance(value, (int, float)) or (isinstance(value, str) and _PLAIN.fullmatch(value)))
    }
    if not _EVENT.fullmatch(str(event.get("event"))):
        kept["event"] = "unnamed"
    if len(kept) < len(event):
        kept["dropped"] = len(event) - len(kept)
    return kept


def configure(level: str = "info", stream: TextIO | None = None) -> None:
    """JSON lines on standard error. Third-party loggers keep to warnings, and lose their text to its type."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _allow,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=lambda *_: _Lines(stream or sys.stderr),
        cache_logger_on_first_use=True,
    )
    global _ours
    _ours = structlog.get_logger().bind()
    root = logging.getLogger()
    root.handlers[:] = [_Bridge()]
    root.setLevel(logging.WARNING)


class _Lines:
    """Writes lines. A log that cannot be written (a full disk, a closed pipe) must not fail what it speaks of."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def msg(self, line: str) -> None:
        with contextlib.suppress(OSError, ValueError):
            print(line, file=self._stream, flush=True)

    debug = info = warning = error = critical = exception = log = msg


class _Bridge(logging.Handler):
    """What other libraries log becomes an event that names the logger and the error's type, without the message."""

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[0].__name__ if record.exc_info and record.exc_info[0] else None
        log().warning("library", source=record.name, level=record.levelname.lower(), error=error)


def log() -> Any:
    """The logger that was configured, put together once; before that, what structlog gives."""
    return _ours if structlog.is_configured() else structlog.get_logger()
