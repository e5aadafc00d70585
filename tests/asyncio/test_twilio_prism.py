"""Twilio's own description of its API as the judge of what we ask it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from notifyd.sms import Sent, SmsProvider, provider
from shared.outcome import Rejected, Unavailable
from shared.slow_sections import Sms
from tests.support.prism import Prism
from tests.support.sms_far_end import ACCOUNT, TOKEN

pytestmark = [pytest.mark.asyncio, pytest.mark.real]

TO, FROM, SERVICE = "+15105550101", "+15105550199", "MG" + "1" * 32


@pytest.fixture(scope="module")
def prism() -> Iterator[Prism]:
    with Prism() as running:
        yield running


@asynccontextmanager
async def twilio(
    folder: Path, url: str, sender: str = FROM, account: str = ACCOUNT
) -> AsyncIterator[SmsProvider]:
    token = folder / "token"
    token.write_text(TOKEN)
    made = provider(
        Sms(
            provider="twilio",
            base_url=url,
            account_sid=account,
            auth_token_file=token,
            sender=sender,
        )
    )
    assert made is not None
    try:
        yield made
    finally:
        await made.close()


@pytest.mark.parametrize("sender", [FROM, "Mail", SERVICE])
async def test_what_we_ask_to_be_sent_is_right(prism: Prism, tmp_path: Path, sender: str) -> None:
    async with twilio(tmp_path, prism.url, sender) as made:
        assert isinstance(await made.send(TO, "Grüße – 10 €", "key"), Sent)


async def test_what_we_ask_about_is_right(prism: Prism, tmp_path: Path) -> None:
    async with twilio(tmp_path, prism.url) as made:
        assert isinstance(await made.lookup(TO, "text", datetime.now(UTC)), list)


async def test_the_judge_refuses_a_wrong_account(prism: Prism, tmp_path: Path) -> None:
    async with twilio(tmp_path, prism.url, account="AC1") as made:
        assert await made.send(TO, "text", "key") == Rejected("HTTP 422")
        assert await made.lookup(TO, "text", datetime.now(UTC)) == Unavailable("HTTP 422")


@pytest.mark.parametrize(
    ("form", "status"),
    [
        ({"To": TO, "From": FROM, "Body": "x"}, 201),
        ({"From": FROM, "Body": "x"}, 422),
        ({"To": TO, "From": FROM, "Body": "x", "MessagingServiceSid": "MG1"}, 422),
        ({"To": TO, "From": FROM, "Body": "x", "Attempt": "many"}, 422),
    ],
)
async def test_the_judge_judges(prism: Prism, form: dict[str, str], status: int) -> None:
    url = f"{prism.url}/2010-04-01/Accounts/{ACCOUNT}/Messages.json"
    async with httpx.AsyncClient(auth=(ACCOUNT, TOKEN), trust_env=False) as client:
        assert (await client.post(url, data=form)).status_code == status


async def test_the_judge_wants_to_know_who_asks(prism: Prism) -> None:
    url = f"{prism.url}/2010-04-01/Accounts/{ACCOUNT}/Messages.json"
    async with httpx.AsyncClient(trust_env=False) as client:
        assert (await client.post(url, data={"To": TO})).status_code == 401
