"""The tables of the configuration file: names, types, defaults, and which keys may change live.

Read by `shared.config` and the parts of both programs, each its own section only. Must not know:
where the file lies, or what a part does with its section.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, model_validator

from shared.section_types import (
    LIVE,
    Address,
    ByteCount,
    FileMode,
    FilePath,
    ListenAddress,
    Origin,
    SecretFile,
    Section,
)
from shared.slow_sections import Mail, Notifyd, Sms, Smtp, Store


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
