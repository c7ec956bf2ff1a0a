"""A site's own image encoder: an ONNX graph with its manifest, loaded by digest.

The manifest (JSON):

    {"name": "...", "version": "...", "graph": "encoder.onnx", "sha256": "...", "input": "tiles", "output": "vectors",
     "length": 128, "precision": "float", "tiling": {"size": 224, "stride": 112, "low": -1000, "high": 400,
     "mean": 0.5, "deviation": 0.25, "channels": 1, "batch": 16, "scale": "HU"}}

The graph takes (batch, channels, size, size) and gives (batch, length); its free first dimension is named `batch`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models import strict
from models.errors import BadInput, ContractMismatch, ModelFault
from models.runtime import Session

_TEXTS = ("name", "version", "graph", "sha256", "input", "output")


class ImageEncoder:
    """Tiles in, vectors out. `tiling` is the manifest's own member, for whoever cuts the tiles."""

    def __init__(self, manifest: Mapping[str, Any], folder: Path) -> None:
        """Raises: ContractMismatch (the manifest or the graph is not as above), DigestMismatch, ModelFault."""
        texts = {name: manifest.get(name) for name in _TEXTS}
        length, tiling = manifest.get("length"), manifest.get("tiling")
        if not all(isinstance(each, str) and each for each in texts.values()) or type(length) is not int or length < 1:
            raise ContractMismatch("an encoder's manifest lacks a name, a digest or a length")
        if not isinstance(tiling, Mapping) or Path(str(texts["graph"])).name != texts["graph"]:
            raise ContractMismatch("an encoder's manifest lacks its tiling, or its graph is no file beside it")
        self.name, self.version, self.digest = (str(texts[each]) for each in ("name", "version", "sha256"))
        self.length = length
        self.tiling: Mapping[str, Any] = tiling
        self._kind = np.float32 if manifest.get("precision", "double") == "float" else np.float64
        self._input = str(texts["input"])
        size, channels = tiling.get("size", 0), tiling.get("channels", 1)
        self._session = Session(
            folder / str(texts["graph"]),
            self.digest,
            inputs={self._input: ("batch", channels, size, size)},
            outputs={str(texts["output"]): ("batch", length)},
            single=self._kind is np.float32,
        )

    def run(self, tiles: NDArray[np.floating]) -> NDArray[np.float64]:
        """(tiles, length). Raises: ModelFault."""
        (found,) = self._session.run({self._input: np.ascontiguousarray(tiles, self._kind)})
        return np.asarray(found, np.float64)


def load(path: Path) -> ImageEncoder:
    """The encoder of a manifest file; its graph lies beside it. Raises: as `ImageEncoder`; ModelFault (no manifest)."""
    try:
        manifest = strict.loads(path.read_bytes(), what="the manifest")
    except OSError:
        raise ModelFault("an encoder's manifest cannot be read", where=path.name) from None
    except BadInput as error:
        raise ContractMismatch("an encoder's manifest is no JSON", where=path.name) from error
    if not isinstance(manifest, dict):
        raise ContractMismatch("an encoder's manifest is no object", where=path.name)
    return ImageEncoder(manifest, path.parent)
