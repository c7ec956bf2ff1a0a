"""Run by alembic, on the connection that `migrate` hands in."""

from alembic import context
from sqlmodel import SQLModel

import cds_server.store.tables  # noqa: F401  (fills the metadata)

context.configure(
    connection=context.config.attributes["connection"], target_metadata=SQLModel.metadata, transactional_ddl=True
)
with context.begin_transaction():
    context.run_migrations()
