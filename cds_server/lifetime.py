"""Processes that end with the one that started them."""

from __future__ import annotations

import ctypes
import signal

_PR_SET_PDEATHSIG = 1
"""prctl(2), Linux: the kernel sends this signal when the parent is gone."""


def end_with_parent(by: signal.Signals) -> None:
    """From here on this process gets the signal when its parent ends, also when that was killed."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, by)
