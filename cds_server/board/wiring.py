"""The board's doors, put together for one process."""

from __future__ import annotations

from starlette.routing import BaseRoute

from cds_server.access.log import Access
from cds_server.board.desk import Board
from cds_server.checkpoints import Checkpoints
from cds_server.desk.whose import Whose
from cds_server.registry import Registry
from cds_server.settings import Settings
from cds_server.store.store import Store
from smart_app.board_door import BoardDoor
from smart_app.board_pages import BoardPages
from smart_app.sessions import Sessions
from smart_app.staffed import Staffed


def board_routes(
    store: Store,
    settings: Settings,
    registry: Registry,
    access: Access,
    checkpoints: Checkpoints,
    staffed: Staffed,
    sessions: Sessions,
) -> list[BaseRoute]:
    """`/board...` for staff, and the way there from a case page. To be matched before other pages of a case."""
    board = Board(store, settings, registry, access, checkpoints, staffed)
    return [*BoardPages(board).routes(), *BoardDoor(sessions, Whose(store, settings), board).routes()]
