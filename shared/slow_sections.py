"""The tables of the slow path: the central database, notifyd, its mails, SMTP and SMS.

Read like `shared.sections`, of which they are part.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal
from zoneinfo import available_timezones

from pydantic import AfterValidator, Field, field_validator, model_validator

from shared.section_types import (
    LIVE,
    Address,
    FilePath,
    ListenAddress,
    SecretFile,
    Section,
    anchored_url,
)


class Store(Section):
    """Accounts, and later devices: the central database."""

    url: Annotated[str, AfterValidator(anchored_url)] = Field(
        "sqlite:///run/state.db",
        pattern=r"^(sqlite:///|postgres(ql)?://)",
        description="`sqlite:///path` or `postgresql://…`.",
    )
    password_file: SecretFile | None = Field(
        None, description="File with the database password, so that `url` needs none."
    )
    connections: int = Field(5, ge=1, le=100, description="Most database connections at once.")
    timeout_seconds: float = Field(
        5.0, gt=0, le=60, description="A query that takes longer has failed."
    )
    fallback: Literal["wait", "default-locale"] = Field(
        "wait",
        description="Without an answer of the database a job waits, or its mail goes out in the "
        "default locale to the address in the event.",
    )


class Notifyd(Section):
    """The worker on the slow jobs."""

    listen: ListenAddress = Field(
        Address("127.0.0.1", 8403), description="Address of notifyd's health and metrics."
    )
    mail_concurrency: int = Field(
        32, ge=1, le=200, description="Jobs of one mail kind worked on at once."
    )
    sms_concurrency: int = Field(4, ge=1, le=100, description="SMS jobs worked on at once.")
    lease_seconds: float = Field(
        60.0, ge=5, le=3600, description="A claim that is not renewed this long is free again."
    )
    max_attempts: int = Field(
        20, ge=1, description="A job that no worker survived so often is given up."
    )
    alarm_max_age_seconds: float = Field(
        6 * 3600.0, gt=0, description="A calendar alarm that could not be sent by then is given up."
    )
    sieve_max_age_seconds: float = Field(
        24 * 3600.0, gt=0, description="The same for Sieve notifications."
    )
    retry_first_seconds: float = Field(5.0, gt=0, description="Wait before the second attempt.")
    retry_most_seconds: float = Field(900.0, gt=0, description="Longest wait between attempts.")
    drain_seconds: float = Field(
        10.0, gt=0, le=300, description="SIGTERM gives what is being sent this long."
    )


class Mail(Section):
    """What the mails of notifyd look like."""

    sender: str = Field(
        "notifications@localhost",
        pattern=r"^[^\s@<>]+@[^\s@<>]+$",
        json_schema_extra=LIVE,
        description="Address the mails come from.",
    )
    sender_name: str = Field(
        "", json_schema_extra=LIVE, description="Display name beside it; absent: none."
    )
    templates: FilePath | None = Field(
        None,
        json_schema_extra=LIVE,
        description="Folder with own templates; those it lacks are ours.",
    )
    default_locale: str = Field(
        "en",
        min_length=2,
        json_schema_extra=LIVE,
        description="For accounts that have none, or one we do not speak.",
    )
    default_timezone: str = Field(
        "UTC", json_schema_extra=LIVE, description="For accounts that have none."
    )
    list_id: str | None = Field(
        None,
        json_schema_extra=LIVE,
        description="List-Id of calendar mails; absent: made from the sender's domain.",
    )

    @field_validator("default_timezone")
    @classmethod
    def _is_known_zone(cls, value: str) -> str:
        if value not in available_timezones():
            raise ValueError('expected a name of the tz database, such as "Europe/Berlin"')
        return value


class Smtp(Section):
    """How mails leave notifyd."""

    transport: Literal["smtp", "sendmail"] = Field(
        "smtp", description="Over SMTP, or through the `sendmail` program."
    )
    host: str = Field("127.0.0.1", min_length=1, description="The server that takes our mail.")
    port: int = Field(25, ge=1, le=65535, description="25, 587 (starttls) or 465 (implicit).")
    tls: Literal["none", "starttls", "implicit"] = Field(
        "none", description="`starttls` and `implicit` demand a good certificate."
    )
    ca_file: SecretFile | None = Field(
        None, description="PEM authorities to trust instead of the system's."
    )
    user: str | None = Field(None, description="Login name; absent: no login.")
    password_file: SecretFile | None = Field(None, description="File with its password.")
    hello_name: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9.:\[\]-]+$",
        description="What we call ourselves (EHLO); absent: this machine's full name.",
    )
    connections: int = Field(4, ge=1, le=100, description="Most connections kept to the server.")
    timeout_seconds: float = Field(
        30.0, gt=0, le=600, description="The server must answer each step within this long."
    )
    sendmail: Path = Field(
        Path("/usr/sbin/sendmail"), description="Program for the transport `sendmail`."
    )

    @model_validator(mode="after")
    def _login_is_whole(self) -> Smtp:
        if (self.user is None) != (self.password_file is None):
            raise ValueError("user and password_file go together")
        return self


class Sms(Section):
    """How SMS leave notifyd."""

    provider: Literal["none", "twilio", "http"] = Field(
        "none", description="`none`: SMS jobs are buried with that reason."
    )
    base_url: str | None = Field(
        None,
        pattern=r"^https?://",
        description="Where the provider's API is; absent: Twilio's own address.",
    )
    account_sid: str | None = Field(None, description="Twilio: the account.")
    auth_token_file: SecretFile | None = Field(
        None, description="Twilio: its token; `http`: sent as bearer token."
    )
    sender: str | None = Field(
        None, description="Number or name the SMS come from; Twilio: also a messaging service."
    )
    max_segments: int = Field(2, ge=1, le=10, description="An SMS is squeezed into so many parts.")
    transliterate: bool = Field(
        False, description="Replace characters outside the SMS alphabet by similar ones."
    )
    timeout_seconds: float = Field(
        15.0, gt=0, le=120, description="The provider must answer within this long."
    )

    @model_validator(mode="after")
    def _provider_is_whole(self) -> Sms:
        needed = {
            "none": (),
            "twilio": ("account_sid", "auth_token_file", "sender"),
            "http": ("base_url",),
        }[self.provider]
        missing = [name for name in needed if getattr(self, name) is None]
        if missing:
            raise ValueError(f"provider {self.provider!r} needs {' and '.join(missing)}")
        return self
