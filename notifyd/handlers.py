"""What to do for each kind of job: look up, compose, send. The table `handlers` is all there is.

A handler answers with an Outcome; DecodeError says that the job makes no sense.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Final

from notifyd.compose.calendar_alarm import compose_calendar_alarm
from notifyd.compose.notices import compose_credit_warning
from notifyd.compose.render import Voice
from notifyd.compose.sieve_notify import compose_sieve_mail, compose_sieve_sms
from notifyd.recipients import Recipients, address_of
from notifyd.smtp import Mailer
from notifyd.texting import OUT_OF_CREDIT, Texter
from shared.errors import StoreError
from shared.events import CalendarAlarm, SieveNotify, job_key
from shared.jobqueue import Job, NewJob
from shared.outcome import Outcome, Rejected, Unavailable
from shared.slow_sections import Sms

CALENDAR_ALARM: Final = "calendar_alarm"
SIEVE_NOTIFY: Final = "sieve_notify"
SIEVE_SMS: Final = "sieve_sms"
CREDIT_WARNING: Final = "credit_warning"
KINDS: Final = (CALENDAR_ALARM, SIEVE_NOTIFY, SIEVE_SMS, CREDIT_WARNING)


@dataclass
class Services:
    """What handlers work with; `voice` may be replaced while they run."""

    recipients: Recipients
    voice: Voice
    mailer: Mailer
    #: None: no SMS provider is configured.
    texter: Texter | None
    sms: Sms
    #: Puts a job of our own into the queue.
    enqueue: Callable[[NewJob], Awaitable[None]]
    wall: Callable[[], float] = time.time

    def now(self) -> datetime:
        """Return the time, in UTC."""
        return datetime.fromtimestamp(self.wall(), UTC)


Handler = Callable[[Job], Awaitable[Outcome]]


def handlers(services: Services) -> Mapping[str, Handler]:
    """Return the handler of every kind, bound to `services`."""
    table = {
        CALENDAR_ALARM: send_calendar_alarm,
        SIEVE_NOTIFY: send_sieve_mail,
        SIEVE_SMS: send_sieve_sms,
        CREDIT_WARNING: send_credit_warning,
    }
    return {kind: partial(_waiting_for_store, handler, services) for kind, handler in table.items()}


async def _waiting_for_store(
    handler: Callable[[Services, Job], Awaitable[Outcome]], services: Services, job: Job
) -> Outcome:
    try:
        return await handler(services, job)
    except StoreError as error:
        return Unavailable(f"store: {error}")


async def send_calendar_alarm(services: Services, job: Job) -> Outcome:
    """Mail an alarm to its one recipient, in the language of whoever has that address."""
    alarm = CalendarAlarm.from_json(job.payload)
    name = alarm.account or job.account
    # Without the database nobody knows where mail for a name goes that is no address.
    by_name = not alarm.recipients and "@" not in name
    owner = await services.recipients.account(name, must_be_known=by_name)
    to = next(iter(alarm.recipients), owner.account)
    if to == owner.account:
        to = address_of(owner)
    reader = await services.recipients.reader(to, otherwise=owner)
    mail = compose_calendar_alarm(
        alarm, to, reader, job.key, voice=services.voice, now=services.now()
    )
    return await services.mailer.send(mail)


async def send_sieve_mail(services: Services, job: Job) -> Outcome:
    """Mail what a Sieve script wants somebody to know (RFC 5436)."""
    asked = SieveNotify.from_json(job.payload)
    owner = await services.recipients.account(asked.account or job.account)
    mail = compose_sieve_mail(
        asked,
        next(iter(asked.recipients), ""),
        job.attachment,
        job.key,
        sender=services.voice.sender,
        sender_name=services.voice.sender_name,
        owner_address=address_of(owner),
        now=services.now(),
    )
    return await services.mailer.send(mail)


async def send_sieve_sms(services: Services, job: Job) -> Outcome:
    """Send what a Sieve script wants somebody to know as an SMS, at the owner's expense.

    A script that names no number means the owner's own.
    """
    if services.texter is None:
        return Rejected("no SMS provider is configured")
    asked = SieveNotify.from_json(job.payload)
    name = asked.account or job.account
    # The credit is in the same database, so there is nothing to fall back to.
    owner = await services.recipients.account(name, must_be_known=True)
    sms = compose_sieve_sms(
        asked,
        next(iter(asked.recipients), owner.sms_number),
        job.attachment,
        max_segments=services.sms.max_segments,
        transliterate=services.sms.transliterate,
    )
    outcome = await services.texter.send(job.key, owner.account, sms)
    if outcome == Rejected(OUT_OF_CREDIT):
        await _warn(services, owner.account)
    return outcome


async def _warn(services: Services, account: str) -> None:
    """Have the account told, once a day, that its credit is used up: the key is of the day."""
    key = job_key(account, services.now().date().isoformat())
    await services.enqueue(NewJob(CREDIT_WARNING, key, account, b'{"v":1}'))


async def send_credit_warning(services: Services, job: Job) -> Outcome:
    """Mail an account that its SMS credit is used up."""
    by_name = "@" not in job.account
    account = await services.recipients.account(job.account, must_be_known=by_name)
    mail = compose_credit_warning(account, job.key, voice=services.voice, now=services.now())
    return await services.mailer.send(mail)
