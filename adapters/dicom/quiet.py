"""pynetdicom and pydicom say nothing: their logs print identifiers, elements and whole requests, which is patient data.

Imported by whoever imports them here, before they do anything.
"""

from __future__ import annotations

import logging

from pynetdicom import _config as config


def silence() -> None:
    """No record of theirs is made, whatever level the root has; and none reaches a handler."""
    config.LOG_REQUEST_IDENTIFIERS = False
    config.LOG_RESPONSE_IDENTIFIERS = False
    config.LOG_HANDLER_LEVEL = "none"
    for name in ("pynetdicom", "pydicom"):
        logger = logging.getLogger(name)
        logger.setLevel(logging.CRITICAL + 1)
        logger.propagate = False
        logger.handlers[:] = [logging.NullHandler()]


silence()
