"""What computed a score besides the model's own files. Two runs must agree bit for bit only where this agrees.

An inference keeps the line that `runtime_id` gave when it was made; `changed` says what is another one since. Lines of
earlier versions of this program (`onnxruntime VERSION SYSTEM MACHINE`) are read too.
"""

from __future__ import annotations

import functools
import platform
import re
from importlib import metadata
from pathlib import Path

from cds_server import __version__

_VECTORS = ("avx512f", "avx2", "avx", "asimd", "sve")
"""CPU features by which kernels of ONNX Runtime and numpy are chosen: another kernel adds in another order."""
_FIRST = re.compile(r"onnxruntime (\S+) ?(.*)")


@functools.cache
def runtime_id() -> str:
    """Of this process: `onnxruntime 1.23.2; numpy 2.3.5; python 3.11.2; cds 1.0; machine Linux x86_64; cpu avx2`."""
    stated = {
        "onnxruntime": metadata.version("onnxruntime"),
        "numpy": metadata.version("numpy"),
        "python": platform.python_version(),
        "cds": __version__,
        "machine": f"{platform.system()} {platform.machine()}",
        "cpu": _cpu(),
    }
    return "; ".join(f"{name} {value}" for name, value in stated.items())


def stated(line: str) -> dict[str, str]:
    """Name -> version of what a line names."""
    if ";" not in line and (old := _FIRST.fullmatch(line)):
        return {"onnxruntime": old[1], **({"machine": old[2]} if old[2] else {})}
    return {name: value for part in line.split("; ") for name, _, value in [part.partition(" ")] if value}


def changed(then: str, now: str) -> tuple[str, ...]:
    """What differs between two lines, as far as both state it: `numpy 2.3.4 then, 2.3.5 now`."""
    before, after = stated(then), stated(now)
    return tuple(
        f"{name} {value} then, {after[name]} now"
        for name, value in before.items()
        if name in after and after[name] != value
    )


def _cpu() -> str:
    """The widest of the features that kernels are chosen by, where the system says it."""
    try:
        told = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    except OSError:
        return "unknown"
    flags = {word for line in told.splitlines() if line.startswith(("flags", "Features")) for word in line.split()}
    return next((each for each in _VECTORS if each in flags), "plain")
