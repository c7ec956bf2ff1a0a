"""The pages of a case over the record, put together for one process."""

from __future__ import annotations

from collections.abc import Callable

from starlette.routing import Route

from cds_server.access.log import Access
from cds_server.checkpoints import Checkpoints
from cds_server.decisions import Decisions
from cds_server.desk.desk import Desk
from cds_server.hooks.reasons import CLINICAL
from cds_server.registry import Registry
from cds_server.settings import Settings
from cds_server.store.store import Store
from models.nouns import ClinicianAction
from smart_app.overrides import Reason
from smart_app.pages import CasePages
from smart_app.sessions import Sessions

REASONS = tuple(Reason(each.code, each.system, each.display) for each in CLINICAL)


def case_routes(
    store: Store,
    settings: Settings,
    registry: Registry,
    decisions: Decisions,
    access: Access,
    checkpoints: Checkpoints,
    sessions: Sessions,
    acted: Callable[[str, ClinicianAction], None],
) -> list[Route]:
    """To be matched after `/app/launch` and `/app/callback`."""
    desk = Desk(store, settings, registry, decisions, access, checkpoints, acted)
    return CasePages(sessions, desk, REASONS).routes()
