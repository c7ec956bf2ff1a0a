"""A bare pynetdicom receiver for comparison: writes the bytes of each object to a file, syncs nothing.

python -m benchmarks._bare_storage PORT FOLDER
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from pynetdicom import AE, _config, evt


def main() -> None:
    port, folder = int(sys.argv[1]), Path(sys.argv[2])
    _config.STORE_RECV_CHUNKED_DATASET = _config.UNRESTRICTED_STORAGE_SERVICE = True
    _config.LOG_HANDLER_LEVEL = "none"
    tempfile.tempdir = str(folder)
    count = 0

    def store(event: evt.Event) -> int:
        nonlocal count
        count += 1
        os.replace(event.dataset_path, folder / f"{count}.dcm")
        return 0

    ae = AE("BARE")
    ae.maximum_pdu_size = 0
    ae.add_supported_context("1.2.840.10008.1.1")
    ae.start_server(("127.0.0.1", port), block=True, evt_handlers=[(evt.EVT_C_STORE, store)])


if __name__ == "__main__":
    main()
