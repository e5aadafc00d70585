"""The queue as the configuration describes it, the same for both programs."""

from __future__ import annotations

from shared.jobqueue.lifecycle import JobQueue
from shared.sections import Queue


def open_configured(section: Queue) -> JobQueue:
    """Open the queue of `section`, made if it is not there; QueueError as `JobQueue.open`."""
    return JobQueue.open(
        section.path,
        min_free_bytes=section.min_free_bytes,
        max_bytes=section.max_bytes,
        max_attachment_bytes=section.max_message_bytes,
    )
