"""The tables of the central database, the same on SQLite and PostgreSQL. Knows no queries.

A change here needs a new file in `migrations/versions`; a test compares the two.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    CheckConstraint,
    Column,
    Double,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    TextClause,
    text,
)

#: The newest file in `migrations/versions`. Revisions are numbers that sort as text.
REVISION: Final = "0001"
#: Ours alone, so that another program's alembic may live in the same database.
VERSION_TABLE: Final = "mailbox_pusher_schema"
#: PostgreSQL: one migrates at a time. Any number will do, if it stays the same for ever.
LOCK: Final = "SELECT pg_advisory_xact_lock(1296191571)"

# Every constraint has a name, or a later migration could not change it.
METADATA: Final = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "ix": "ix_%(table_name)s_%(column_0_name)s",
    }
)

#: Bytewise order and comparison on both engines, whatever the database's own locale is.
Key: Final = Text().with_variant(Text(collation="C"), "postgresql")

_EMPTY: Final[TextClause] = text("''")
_ZERO: Final[TextClause] = text("0")

#: Account by account, as `shared.accounts.Account` has it; times are seconds since the epoch.
accounts: Final = Table(
    "accounts",
    METADATA,
    Column("account", Key, primary_key=True),
    Column("address", Text, nullable=False, server_default=_EMPTY),
    #: The address, or the account's name, as `shared.store.accounts.address_key` has it.
    Column("address_key", Key, nullable=False),
    Column("locale", Text, nullable=False, server_default=_EMPTY),
    Column("timezone", Text, nullable=False, server_default=_EMPTY),
    Column("clock", Text),
    Column("sms_number", Text, nullable=False, server_default=_EMPTY),
    Column("sms_credit", Integer, nullable=False, server_default=_ZERO),
    Column("updated_at", Double, nullable=False),
    CheckConstraint("clock IN ('12', '24')", name="clock"),
    CheckConstraint("sms_credit >= 0", name="sms_credit"),
    Index(None, "address_key"),
)

#: Numbers whose owners told the provider to stop.
sms_opt_outs: Final = Table(
    "sms_opt_outs",
    METADATA,
    Column("number", Key, primary_key=True),
    Column("since", Double, nullable=False),
    Column("reason", Text, nullable=False, server_default=_EMPTY),
)

#: One row for each SMS job that ever took credit; `shared.store.ledger` says what the states mean.
#: No foreign key: an account may go, what was sent for it must stay known.
sms_sends: Final = Table(
    "sms_sends",
    METADATA,
    Column("job_key", Key, primary_key=True),
    Column("account", Key, nullable=False),
    Column("number", Text, nullable=False),
    Column("units", Integer, nullable=False),
    Column("state", Text, nullable=False),
    Column("attempt", Integer, nullable=False, server_default=_ZERO),
    Column("provider_id", Text),
    Column("reserved_at", Double, nullable=False),
    Column("sending_at", Double),
    Column("settled_at", Double),
    CheckConstraint(
        "state IN ('reserved', 'sending', 'sent', 'refunded', 'unknown')", name="state"
    ),
    CheckConstraint("units >= 0", name="units"),
    Index(None, "state", "reserved_at"),
    Index(None, "provider_id"),
)
