"""Accounts, and what SMS they were sent."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_KEY = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
_EMPTY = sa.text("''")
_ZERO = sa.text("0")


def upgrade() -> None:
    op.create_table(
        "accounts",
        sa.Column("account", _KEY, nullable=False),
        sa.Column("address", sa.Text, nullable=False, server_default=_EMPTY),
        sa.Column("address_key", _KEY, nullable=False),
        sa.Column("locale", sa.Text, nullable=False, server_default=_EMPTY),
        sa.Column("timezone", sa.Text, nullable=False, server_default=_EMPTY),
        sa.Column("clock", sa.Text),
        sa.Column("sms_number", sa.Text, nullable=False, server_default=_EMPTY),
        sa.Column("sms_credit", sa.Integer, nullable=False, server_default=_ZERO),
        sa.Column("updated_at", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("account", name=op.f("pk_accounts")),
        sa.CheckConstraint("clock IN ('12', '24')", name=op.f("ck_accounts_clock")),
        sa.CheckConstraint("sms_credit >= 0", name=op.f("ck_accounts_sms_credit")),
    )
    op.create_index(op.f("ix_accounts_address_key"), "accounts", ["address_key"])
    op.create_table(
        "sms_opt_outs",
        sa.Column("number", _KEY, nullable=False),
        sa.Column("since", sa.Double, nullable=False),
        sa.Column("reason", sa.Text, nullable=False, server_default=_EMPTY),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_sms_opt_outs")),
    )
    op.create_table(
        "sms_sends",
        sa.Column("job_key", _KEY, nullable=False),
        sa.Column("account", _KEY, nullable=False),
        sa.Column("number", sa.Text, nullable=False),
        sa.Column("units", sa.Integer, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False, server_default=_ZERO),
        sa.Column("provider_id", sa.Text),
        sa.Column("reserved_at", sa.Double, nullable=False),
        sa.Column("sending_at", sa.Double),
        sa.Column("settled_at", sa.Double),
        sa.PrimaryKeyConstraint("job_key", name=op.f("pk_sms_sends")),
        sa.CheckConstraint(
            "state IN ('reserved', 'sending', 'sent', 'refunded', 'unknown')",
            name=op.f("ck_sms_sends_state"),
        ),
        sa.CheckConstraint("units >= 0", name=op.f("ck_sms_sends_units")),
    )
    op.create_index(op.f("ix_sms_sends_state"), "sms_sends", ["state", "reserved_at"])
    op.create_index(op.f("ix_sms_sends_provider_id"), "sms_sends", ["provider_id"])


def downgrade() -> None:
    op.drop_table("sms_sends")
    op.drop_table("sms_opt_outs")
    op.drop_table("accounts")
