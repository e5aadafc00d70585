"""What alembic runs around the files in `versions`; called by `shared.store.migrate` only.

The connection, already in a transaction, comes in `config.attributes`; without one the SQL is
written out.
"""

from __future__ import annotations

from alembic import context
from sqlalchemy import Connection

from shared.store.tables import LOCK, METADATA, VERSION_TABLE


def online(connection: Connection) -> None:
    """Migrate within the transaction `connection` is in: everything happens, or nothing."""
    context.configure(
        connection=connection,
        target_metadata=METADATA,
        version_table=VERSION_TABLE,
        render_as_batch=True,
    )
    context.run_migrations()


def offline() -> None:
    """Write the SQL to alembic's output."""
    context.configure(
        dialect_name=context.config.attributes["dialect"],
        target_metadata=METADATA,
        version_table=VERSION_TABLE,
        render_as_batch=True,
        literal_binds=True,
    )
    with context.begin_transaction():
        if context.config.attributes["dialect"] == "postgresql":
            context.execute(LOCK)
        context.run_migrations()


given = context.config.attributes.get("connection")
if given is None:
    offline()
else:
    online(given)
