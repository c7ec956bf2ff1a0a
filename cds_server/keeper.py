"""Makes checkpoints while the server runs, has them witnessed and anchored: a thread for signing, one each."""

from __future__ import annotations

import threading

from cds_server.anchors import Anchoring
from cds_server.checkpoints import Checkpoints, say
from cds_server.http import authorities
from cds_server.ledger_settings import AnchorSetting
from cds_server.logs import log
from cds_server.settings import Settings
from cds_server.store.store import Store
from cds_server.witnesses import Witnessing
from models.errors import CdsError

SIGNING = "signing"
"""Name of its row in `ledger_state`."""
AGAIN = 60.0
"""Seconds until a witness that failed is asked again, at most."""


class Keeper:
    def __init__(self, store: Store, settings: Settings) -> None:
        self._store = store
        self._seconds = settings.checkpoint_seconds
        self._checkpoints = Checkpoints(store, settings.public_url, gentle=True)
        verify = authorities(settings.ca_file) if settings.witnesses else True
        self._witnesses = [Witnessing(store, self._checkpoints, each, verify) for each in settings.witnesses]
        self._anchors = [
            (each, Anchoring(store, self._checkpoints, each, authorities(settings.ca_file)))
            for each in settings.anchors
        ]
        self._over = threading.Event()
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        if not self._seconds:
            return
        self._threads = [threading.Thread(target=self._sign, name="cds-checkpoints", daemon=True)]
        self._threads += [
            threading.Thread(target=self._witness, args=(each,), name="cds-witness", daemon=True)
            for each in self._witnesses
        ]
        self._threads += [
            threading.Thread(target=self._anchor, args=each, name="cds-anchor", daemon=True) for each in self._anchors
        ]
        for each in self._threads:
            each.start()

    def stop(self) -> None:
        """A witness that does not answer is not waited for."""
        self._over.set()
        for each in self._threads[:1]:
            each.join(timeout=5.0)

    def _sign(self) -> None:
        while not self._over.wait(self._seconds):
            sign(self._store, self._checkpoints)

    def _witness(self, witnessing: Witnessing) -> None:
        wait = float(self._seconds)
        while not self._over.wait(wait):
            try:
                good = witnessing.submit()
            except Exception as error:  # noqa: BLE001 (somebody else's answer must not end this thread)
                log().error("witness failed", error=type(error).__name__)
                good = False
            wait = float(self._seconds) if good else min(AGAIN, wait * 2)

    def _anchor(self, setting: AnchorSetting, anchoring: Anchoring) -> None:
        wait = float(self._seconds)
        while not self._over.wait(wait):
            try:
                good = not anchoring.due() or anchoring.submit()
            except Exception as error:  # noqa: BLE001 (as above)
                log().error("anchor failed", error=type(error).__name__)
                good = False
            wait = min(AGAIN, float(setting.every)) if good else min(AGAIN, wait * 2)


def sign(store: Store, checkpoints: Checkpoints) -> bool:
    """Make a checkpoint and note how it went; whether it went well."""
    try:
        checkpoints.make()
    except CdsError as error:
        log().error("the log is not signed", what=error.what)
        say(store, SIGNING, error.what)
        return False
    except Exception as error:  # noqa: BLE001 (whatever it is, the next round tries again)
        log().error("the log is not signed", error=type(error).__name__)
        say(store, SIGNING, f"signing failed ({type(error).__name__})")
        return False
    say(store, SIGNING, "")
    return True
