"""The tables of the configuration file: names, types, defaults, and which keys may change live.

Read by `shared.config` and the parts of both programs, each its own section only. Must not know:
where the file lies, or what a part does with its section.
"""

from __future__ import annotations

import ipaddress
import os
import re
from pathlib import Path
from typing import Annotated, Literal, NamedTuple
from zoneinfo import available_timezones

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic.config import JsonDict


class Address(NamedTuple):
    """Where a TCP listener binds."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def _address(value: object) -> object:
    if not isinstance(value, str):
        return value
    host, colon, port = value.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not re.fullmatch(r"\d{1,5}", port) or int(port) > 65535:
        raise ValueError('expected "HOST:PORT", such as "127.0.0.1:8400" or "[::1]:8400"')
    try:
        ipaddress.ip_address(host)
    except ValueError:
        raise ValueError("expected an IP address, not a name, before the port") from None
    return Address(host, int(port))


def _mode(value: object) -> object:
    if isinstance(value, str):
        if not re.fullmatch(r"0?[0-7]{3}", value):
            raise ValueError('expected an octal mode as text, such as "0660"')
        return int(value, 8)
    raise ValueError('expected an octal mode as text, such as "0660"')


def _byte_count(value: object) -> object:
    if isinstance(value, str):
        match = re.fullmatch(r"(\d+)\s*([kKMG]?)i?B?", value)
        if not match:
            raise ValueError('expected a number of bytes, such as 1048576 or "64 MiB"')
        return int(match[1]) << {"": 0, "k": 10, "K": 10, "M": 20, "G": 30}[match[2]]
    return value


def _origin(value: object) -> object:
    if isinstance(value, str) and value != "*" and not re.fullmatch(r"https?://[^/\s]+", value):
        raise ValueError('expected an origin such as "https://mail.example.org", without a path')
    return value


def _anchored(value: Path, info: ValidationInfo) -> Path:
    """Make a path of the file absolute, starting at the file's folder."""
    return (info.context or Path()).absolute() / value


def _readable(value: Path) -> Path:
    if not os.access(value, os.R_OK):
        raise ValueError("no permission to read it" if value.exists() else "no such file")
    return value


def _anchored_url(value: str, info: ValidationInfo) -> str:
    """Do the same for the path in an SQLite URL."""
    scheme, slashes, path = value.partition(":///")
    if scheme != "sqlite" or not path or Path(path).is_absolute():
        return value
    return f"{scheme}{slashes}{_anchored(Path(path), info)}"


FilePath = Annotated[Path, AfterValidator(_anchored)]
SecretFile = Annotated[FilePath, AfterValidator(_readable)]
ListenAddress = Annotated[Address, BeforeValidator(_address), PlainSerializer(str, return_type=str)]
FileMode = Annotated[
    int, BeforeValidator(_mode), PlainSerializer(lambda mode: f"{mode:04o}", return_type=str)
]
ByteCount = Annotated[int, BeforeValidator(_byte_count), Field(ge=0)]
Origin = Annotated[str, BeforeValidator(_origin)]

#: Marks a field that a running pusher takes over on SIGHUP.
LIVE: JsonDict = {"reload": True}


class Section(BaseModel):
    """One table of the file: unknown keys are errors, values are fixed once read."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=False)


class Intake(Section):
    """Where mail servers hand in their events."""

    stream: FilePath | None = Field(
        Path("run/intake.sock"),
        description="UNIX stream socket: Cyrus `dlist:` requests and JSON lines.",
    )
    datagram: FilePath | None = Field(
        Path("run/intake.dgram"),
        description="UNIX datagram socket: Cyrus NUL fields and JSON objects.",
    )
    mode: FileMode = Field(
        0o660,
        description="File mode of both sockets when we bind them ourselves.",
    )
    group: str | None = Field(
        None, description="Group that owns both sockets, such as `mail`; absent keeps our own."
    )
    max_bytes: ByteCount = Field(
        1_048_576, ge=4096, description="Largest notification; a larger one is refused."
    )
    idle_seconds: float = Field(
        30.0, gt=0, le=3600, description="A half-sent request is given up after this long."
    )


class Streams(Section):
    """The listener for open webmail pages."""

    listen: ListenAddress = Field(
        Address("127.0.0.1", 8400),
        description="Address of the EventSource listener.",
    )
    ping_seconds: float = Field(
        25.0, ge=0.1, le=50, json_schema_extra=LIVE, description="Longest silence on a stream."
    )
    max_connections: int = Field(
        0,
        ge=0,
        json_schema_extra=LIVE,
        description="Most streams and handshakes at once; 0 = what the descriptor limit allows.",
    )
    max_connections_per_account: int = Field(
        200, ge=1, json_schema_extra=LIVE, description="Most streams of one account."
    )
    allowed_origins: tuple[Origin, ...] = Field(
        (),
        json_schema_extra=LIVE,
        description="Web origins that may read streams across origins (CORS); `*` = any, "
        "then without cookies.",
    )
    retry_seconds: float = Field(
        2.0,
        gt=0,
        le=300,
        json_schema_extra=LIVE,
        description="Browsers reconnect after this long, each with its own jitter of ±50 %.",
    )
    handshake_seconds: float = Field(
        6.0, gt=0, le=7, json_schema_extra=LIVE, description="A request must be whole by then."
    )
    stalled_seconds: float = Field(
        20.0,
        gt=0,
        le=30,
        json_schema_extra=LIVE,
        description="A reader that takes nothing for this long is cut.",
    )
    drain_seconds: float = Field(
        3.0, gt=0, le=4.5, description="SIGTERM gives waiting readers this long, then ends."
    )
    processes: int = Field(
        1,
        ge=1,
        le=64,
        description="Processes that hold streams; more than one when descriptors run short.",
    )
    tls_certificate_file: SecretFile | None = Field(
        None, description="PEM chain: serve TLS natively instead of behind a proxy."
    )
    tls_key_file: SecretFile | None = Field(None, description="PEM key of the certificate.")

    @model_validator(mode="after")
    def _tls_is_whole(self) -> Streams:
        if (self.tls_certificate_file is None) != (self.tls_key_file is None):
            raise ValueError("tls_certificate_file and tls_key_file go together")
        if self.tls_certificate_file and self.processes > 1:
            raise ValueError(
                "TLS state cannot be handed to another process: processes must be 1, "
                "or let a proxy end TLS"
            )
        return self


class Api(Section):
    """The listener for short requests: health, metrics, later devices and the admin page."""

    listen: ListenAddress = Field(
        Address("127.0.0.1", 8401),
        description="Address of the API listener.",
    )
    admin_token_file: SecretFile | None = Field(
        None, description="File with the operator's token; absent: no admin access over HTTP."
    )
    public_url: str | None = Field(
        None, pattern=r"^https?://", description="URL under which people reach us."
    )


class Auth(Section):
    """Whose tokens open a stream."""

    key_file: SecretFile | None = Field(
        Path("run/auth.key"),
        json_schema_extra=LIVE,
        description="HS256 secret, at least 32 bytes. The default one is made when missing.",
    )
    public_key_file: SecretFile | None = Field(
        None,
        json_schema_extra=LIVE,
        description="PEM public key (EdDSA, ES256 or RS256) instead of key_file.",
    )
    audience: str = Field(
        "mailbox-pusher",
        min_length=1,
        json_schema_extra=LIVE,
        description="Tokens must be made out for it.",
    )
    cookie: str = Field(
        "mailbox_pusher",
        pattern=r"^[A-Za-z0-9_.-]+$",
        json_schema_extra=LIVE,
        description="Cookie that may carry the token.",
    )
    leeway_seconds: int = Field(
        30, ge=0, le=300, json_schema_extra=LIVE, description="Clock difference forgiven."
    )

    @model_validator(mode="after")
    def _one_key(self) -> Auth:
        if "key_file" in self.model_fields_set and self.key_file and self.public_key_file:
            raise ValueError("key_file and public_key_file exclude each other")
        if self.key_file is None and self.public_key_file is None:
            raise ValueError("one of key_file and public_key_file is needed")
        return self


class State(Section):
    """What is known of each account's newest numbers."""

    snapshot: FilePath | None = Field(
        None,
        description="File that carries the numbers over a restart; absent: `snapshot` after the "
        "name of the queue's file.",
    )
    snapshot_seconds: float = Field(
        5.0,
        ge=0.1,
        le=3600,
        json_schema_extra=LIVE,
        description="Time between writings of what has changed to the snapshot.",
    )
    max_accounts: int = Field(
        1_000_000,
        ge=1000,
        description="Accounts remembered; beyond it the longest quiet ones are forgotten, and "
        "their readers told to resync.",
    )


class Queue(Section):
    """The durable queue between pusher and notifyd."""

    path: FilePath = Field(
        Path("run/queue.db"), description="SQLite file; its folder must be ours."
    )
    min_free_bytes: ByteCount = Field(
        64 << 20, description="With less room on the disk new jobs are refused."
    )
    max_bytes: ByteCount = Field(1 << 30, description="Largest size of the queue file.")
    max_message_bytes: ByteCount = Field(
        1 << 20, description="A Sieve notification takes over this much of the message."
    )


class Store(Section):
    """Accounts, and later devices: the central database."""

    url: Annotated[str, AfterValidator(_anchored_url)] = Field(
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


class Log(Section):
    """The log: JSON lines on standard output."""

    level: str = Field(
        "info",
        pattern="^(debug|info|warning|error)$",
        json_schema_extra=LIVE,
        description="Least level written.",
    )
    personal_data: bool = Field(
        False,
        json_schema_extra=LIVE,
        description="Write account names in clear; otherwise a short hash that changes daily.",
    )


class Tail(Section):
    """Where `pusher tail` listens to a running pusher."""

    socket: FilePath | None = Field(
        None,
        description="UNIX socket, mode 0600; absent: `tail` after the name of the intake socket, "
        "or of the queue's file.",
    )


class Plugins(Section):
    """Own outputs beside ours."""

    enabled: tuple[str, ...] = Field(
        (), description="Names from the entry-point group `mailbox_pusher.outputs`."
    )


class Config(Section):
    """Everything, one field per table of the file."""

    intake: Intake = Intake()
    streams: Streams = Streams()
    api: Api = Api()
    auth: Auth = Auth()
    state: State = State()
    queue: Queue = Queue()
    store: Store = Store()
    notifyd: Notifyd = Notifyd()
    mail: Mail = Mail()
    smtp: Smtp = Smtp()
    sms: Sms = Sms()
    log: Log = Log()
    tail: Tail = Tail()
    plugins: Plugins = Plugins()

    @property
    def snapshot_path(self) -> Path:
        """Where the numbers are kept over a restart."""
        queue = self.queue.path
        return self.state.snapshot or queue.with_name(f"{queue.name}.snapshot")

    @property
    def tail_path(self) -> Path:
        """Where `pusher tail` finds a running pusher."""
        beside = self.intake.stream or self.queue.path
        return self.tail.socket or beside.with_name(f"{beside.name}.tail")
