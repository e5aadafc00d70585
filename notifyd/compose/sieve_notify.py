"""A Sieve script's notification (RFC 5435) as the one mail or SMS that its job asks for.

Reasons of DecodeError, each of which buries the job: "unknown-method", "no-recipient",
"bad-recipient", "bad-number", "nothing-to-say", and "loop" and "automatic-mail" for mails that must
not be answered by mail.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import datetime
from email import policy
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import format_datetime
from typing import Final

from notifyd.compose.fields import registry
from notifyd.compose.headers import checked_address, domain_of, message_id
from notifyd.compose.mail import Mail
from notifyd.compose.mail_parts import Part, parse
from notifyd.compose.mail_text import summary
from notifyd.compose.sms_text import segments, squeeze
from notifyd.compose.typography import one_line, some_lines
from shared.errors import DecodeError
from shared.events import SieveNotify
from shared.plaintext import decode_words, plain

_MAIL_METHODS: Final = frozenset({"mailto"})
_SMS_METHODS: Final = frozenset({"sms", "tel"})

_MOST_SUBJECT: Final = 200
_MOST_BODY: Final = 20_000
_MOST_VALUE: Final = 500
_MOST_FIELDS: Final = 20
_MOST_SUMMARY: Final = 600
_DEFAULT_SUBJECT: Final = "New mail"

_POLICY: Final = policy.SMTP.clone(cte_type="7bit", header_factory=registry())


@dataclass(frozen=True, slots=True)
class SmsText:
    """One SMS to one number in E.164; its repr shows neither."""

    number: str = field(repr=False)
    text: str = field(repr=False)
    #: How many of them it costs.
    segments: int


def unsupported_reason(method: str) -> str | None:
    """Why nothing can be made of a job with `method`; None if something can."""
    return None if method in _MAIL_METHODS | _SMS_METHODS else "unknown-method"


def compose_sieve_mail(
    asked: SieveNotify,
    recipient: str,
    original: bytes | None,
    key: str,
    *,
    sender: str,
    sender_name: str,
    owner_address: str,
    now: datetime,
) -> Mail:
    """The mail of RFC 5436 to `recipient`; the same `key` is the same mail. Raises DecodeError.

    Subject (§2.7): what the URI says, else the first line of the script's message, else the
    original's. A message counts after the URI, as Cyrus always sends one, if only its default.
    Body: the URI's `body`, else the script's message; where that is Cyrus' default, so that the
    script said nothing, the beginning of the original follows.
    `sender` is the configured one whatever the URI says, and the envelope's is null: nothing may
    come back to start the next round, and bounces of what nobody wrote help nobody.
    """
    if asked.method not in _MAIL_METHODS:
        raise DecodeError("unknown-method")
    if not recipient:
        raise DecodeError("no-recipient")
    about = parse(original or b"")
    _refuse_loops(asked, about, sender, owner_address)
    message = EmailMessage(policy=_POLICY)
    message["From"] = _mailbox(sender, one_line(sender_name, 80))
    message["To"] = _mailbox(checked_address(recipient), "")
    message["Subject"] = _subject(asked, about)
    message["Date"] = format_datetime(now)
    domain = domain_of(sender)
    message["Message-ID"] = message_id(
        key, domain if domain.isascii() else "mailbox-pusher.invalid"
    )
    message["Auto-Submitted"] = _auto_submitted(owner_address)
    if _is_owner(owner_address):
        message["X-Loop"] = owner_address
    for name, value in (*_IMPORTANCE.get(asked.priority, ()), *_own_fields(asked.parameters)):
        message[name] = value
    message.set_content(f"{_body(asked, about, original)}\n")
    return Mail(message, sender="", recipient=recipient)


def compose_sieve_sms(
    asked: SieveNotify,
    recipient: str,
    original: bytes | None,
    *,
    max_segments: int,
    transliterate: bool,
) -> SmsText:
    """The SMS to `recipient`, a number in any usual spelling. Raises DecodeError.

    The text is the script's message. Where that is Cyrus' default, it is the URI's `body`
    (RFC 5724 §2.2), else who wrote, the subject and the beginning of the mail.
    """
    if asked.method not in _SMS_METHODS:
        raise DecodeError("unknown-method")
    if not recipient:
        raise DecodeError("no-recipient")
    number = e164(recipient)
    text = squeeze(_sms_text(asked, original), max_segments, transliterate)
    if not text:
        raise DecodeError("nothing-to-say")
    return SmsText(number, text, segments(text).count)


_separators: Final = re.compile(r"[\s().\-\u2010-\u2015/]+").sub
_is_global: Final = re.compile(r"\+[1-9][0-9]{6,14}").fullmatch


def e164(number: str) -> str:
    """`number` as "+" and 7 to 15 digits. Raises DecodeError: "bad-number".

    "00" before the country is "+". A number without a country is refused: which would it be?
    """
    digits = _separators("", plain(number[:100]))
    if digits.startswith("00"):
        digits = f"+{digits[2:]}"
    if not _is_global(digits):
        raise DecodeError("bad-number")
    return digits


# --- may it be sent ------------------------------------------------------------------------------


def _refuse_loops(asked: SieveNotify, about: Part, sender: str, owner_address: str) -> None:
    """Raise DecodeError if the mail it is about was itself sent by a program (RFC 5436 §2.7).

    Mails of ours are known by each of their marks, in case a server on the way removed some; by
    Cyrus' default message if the mail itself is not at hand.
    """
    submitted = (about.first("auto-submitted") or "no").partition(";")[0].strip().lower()
    loops = {value.strip().lower() for name, value in about.fields if name == "x-loop"}
    ours = sender.lower()
    if (
        submitted == "auto-notified"
        or (owner_address and owner_address.lower() in loops)
        or _address(about.first("from") or "").lower() == ours
        or (not about.fields and f"<{ours}>:" in asked.message.lower())
    ):
        raise DecodeError("loop")
    if submitted != "no" or "".join((about.first("return-path") or "?").split()) == "<>":
        raise DecodeError("automatic-mail")


#: What may stand in a field as it is, quoted or not.
_is_owner: Final = re.compile(r"[!#-;A-Z^-~]{1,100}@[A-Za-z0-9.-]{1,150}").fullmatch


def _auto_submitted(owner_address: str) -> str:
    """RFC 5436 §2.7.1; without the owner where his address is none, or is not for a header."""
    if not _is_owner(owner_address):
        return "auto-notified"
    return f'auto-notified; owner-email="{owner_address}"'


# --- what it says --------------------------------------------------------------------------------


def _subject(asked: SieveNotify, about: Part) -> str:
    lines = asked.message.strip().split("\n")
    candidates = (asked.parameters.get("subject", ""), lines[0], about.shown("subject"))
    lines = [line for each in candidates if (line := one_line(each, _MOST_SUBJECT))]
    return lines[0] if lines else _DEFAULT_SUBJECT


def _body(asked: SieveNotify, about: Part, original: bytes | None) -> str:
    if "body" in asked.parameters:
        return some_lines(asked.parameters["body"], _MOST_BODY)
    said = some_lines(asked.message, _MOST_BODY)
    beginning = summary(original or b"", _MOST_SUMMARY) if _is_default(asked, about) else ""
    return "\n\n".join(each for each in (said, beginning) if each)


def _sms_text(asked: SieveNotify, original: bytes | None) -> str:
    about, body = parse(original or b""), asked.parameters.get("body", "").strip()
    said = asked.message.strip()
    if said and not _is_default(asked, about):
        return said
    if body:
        return body
    name = _name(about.first("from") or "")
    heading = ": ".join(each for each in (name, about.shown("subject")) if each)
    beginning = summary(original or b"", _MOST_SUMMARY)
    return "\n".join(each for each in (heading or said, beginning) if each)


def _is_default(asked: SieveNotify, about: Part) -> bool:
    """Tell whether the message is what Cyrus says for a script that says nothing."""
    default = f"{about.shown('from')}: {about.shown('subject')}"
    said = _bare(asked.message)
    return not said or said == _bare(default)


_but_letters: Final = re.compile(r"[^\w@]+").sub


def _bare(text: str) -> str:
    """`text` without what quoting and folding change."""
    return _but_letters(" ", text).strip()


_in_brackets: Final = re.compile(r"<([^<>]*)>\s*$").search


def _address(from_: str) -> str:
    """The address in a From field; what is not in brackets is one itself."""
    found = _in_brackets(from_[:2000])
    return (found[1] if found else from_).strip()


def _name(from_: str) -> str:
    """The name in a From field, else the address."""
    found = _in_brackets(from_[:2000])
    name = decode_words(from_[: found.start()]).strip().strip('"') if found else ""
    return plain(name or _address(from_))


# --- the URI's own fields ------------------------------------------------------------------------

_IMPORTANCE: Final = {
    "high": (("Importance", "high"), ("X-Priority", "1 (Highest)")),
    "low": (("Importance", "low"), ("X-Priority", "5 (Lowest)")),
}
#: Beside those that are set here: where a mail comes from and goes to, what it has gone through,
#: what is in it, and what makes others send mail (RFC 5436 §2.7, RFC 6068 §4).
_REFUSED: Final = re.compile(
    r"from|sender|to|cc|bcc|subject|body|date|message-id|auto-submitted|x-loop|reply-to|mail-.*"
    r"|resent-.*|received.*|return-.*|delivered-to|apparently-to|envelope-.*|errors-to|x-envelope-.*"
    r"|x-original-.*|mime-version|content-.*|list-.*|precedence|dkim-.*|domainkey-.*|arc-.*"
    r"|authentication-.*|x-authentic.*|x-google-dkim.*|disposition-notification-.*"
    r"|x-confirm-reading-to|importance|priority|x-priority|x-msmail-priority|x-spam.*|bimi-.*"
    r"|autocrypt.*|require-.*|tls-.*|original-.*|encoding|newsgroups|control"
).fullmatch
_is_name: Final = re.compile(r"[a-z][a-z0-9-]{0,59}").fullmatch


def _own_fields(parameters: dict[str, str]) -> list[tuple[str, str]]:
    """The URI's fields that may stand in a mail.

    Not what looks encoded: it would be decoded on its way into the mail, line breaks and all.
    """
    clean = {name: one_line(value, _MOST_VALUE) for name, value in parameters.items()}
    allowed = [
        ("-".join(word.capitalize() for word in name.split("-")), value)
        for name, value in clean.items()
        if value and "=?" not in value and _is_name(name) and not _REFUSED(name)
    ]
    return allowed[:_MOST_FIELDS]


def _mailbox(address: str, name: str) -> Address:
    local, _, domain = address.rpartition("@")
    return Address(name, local, domain)
