"""What a human may do to stored jobs: hold, release, retry, flush, delete."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Sequence
from typing import Final

from shared.jobqueue.job import State, digest
from shared.jobqueue.view import STATE_SQL, QueueView

_SELECTED: Final = """
    (:ids IS NULL OR id IN (SELECT value FROM json_each(:ids)))
    AND (:kind IS NULL OR kind = :kind)
    AND (:account IS NULL OR account = :account)
"""


class OperatorQueue(QueueView):
    """The operator's half. Each verb returns the ids it changed, in no promised order.

    `ids` None means all; `kind` and `account` narrow it down further. Jobs the verb makes no sense
    for, and unknown ids, are left out.
    """

    def hold(
        self, ids: Sequence[int] | None, *, kind: str | None = None, account: str | None = None
    ) -> list[int]:
        """Keep jobs from being claimed; one that is claimed already is kept when it comes back."""
        sql = "UPDATE jobs SET held = 1 WHERE held = 0 AND state <> 'buried'"
        return self._change(sql, _selection(ids, kind, account))

    def unhold(
        self, ids: Sequence[int] | None, *, kind: str | None = None, account: str | None = None
    ) -> list[int]:
        """Let held jobs be claimed again, when they are due."""
        sql = "UPDATE jobs SET held = 0 WHERE held = 1"
        return self._change(sql, _selection(ids, kind, account))

    def retry(
        self,
        ids: Sequence[int] | None,
        now: float,
        *,
        kind: str | None = None,
        account: str | None = None,
    ) -> list[int]:
        """Start buried jobs afresh: due now, no attempts, age counted from now."""
        sql = """
            UPDATE jobs SET state = 'ready', attempts = 0, due_at = :now, age_from = :now,
                            ended_at = NULL
            WHERE state = 'buried'
        """
        return self._change(sql, {**_selection(ids, kind, account), "now": now})

    def flush(
        self,
        ids: Sequence[int] | None,
        now: float,
        *,
        kind: str | None = None,
        account: str | None = None,
    ) -> list[int]:
        """Make jobs that wait for a later time due now; held ones stay held."""
        sql = "UPDATE jobs SET due_at = :now WHERE state = 'ready' AND held = 0 AND due_at > :now"
        return self._change(sql, {**_selection(ids, kind, account), "now": now})

    def delete(
        self,
        ids: Sequence[int] | None,
        now: float,
        *,
        state: State | None = None,
        kind: str | None = None,
        account: str | None = None,
    ) -> list[int]:
        """Forget jobs undone. Their keys are remembered: the same event does not bring them back.

        A worker that has one claimed may have done it already; its `finish` answers False.
        """
        values = {**_selection(ids, kind, account), "state": state}
        sql = f"""
            DELETE FROM jobs WHERE {_SELECTED} AND (:state IS NULL OR :state = {STATE_SQL})
            RETURNING id, kind, key
        """

        def work(connection: sqlite3.Connection) -> list[int]:
            rows = connection.execute(sql, values).fetchall()
            remember_done(connection, ((row["kind"], row["key"]) for row in rows), now)
            return [row["id"] for row in rows]

        return self._database.write(work)

    def _change(self, update: str, values: dict[str, object]) -> list[int]:
        sql = f"{update} AND {_SELECTED} RETURNING id"
        return self._database.write(
            lambda connection: [row["id"] for row in connection.execute(sql, values).fetchall()]
        )


def remember_done(
    connection: sqlite3.Connection, keys: Iterable[tuple[str, str]], now: float
) -> None:
    """Note (kind, key) pairs as known, inside the transaction that removes their jobs."""
    connection.executemany(
        "INSERT OR REPLACE INTO done_keys (digest, done_at) VALUES (?, ?)",
        [(digest(kind, key), now) for kind, key in keys],
    )


def _selection(
    ids: Sequence[int] | None, kind: str | None, account: str | None
) -> dict[str, object]:
    return {
        "ids": None if ids is None else json.dumps(list(ids)),
        "kind": kind,
        "account": account,
    }
