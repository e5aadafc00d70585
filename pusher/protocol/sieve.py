"""CLASS SIEVE: what a script's `notify` asks for (RFC 5435), out of what Cyrus passes on."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Final, NamedTuple
from urllib.parse import unquote

from msgspec.structs import replace

from pusher.protocol.notification import Notification, text
from shared.errors import DecodeError
from shared.events import SieveNotify, job_key
from shared.plaintext import plain, plain_lines

_scheme: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):").match
_is_address: Final = re.compile(r"[^\s=@]+@[^\s=@]+").fullmatch
_is_number: Final = re.compile(r"\+?[0-9][0-9 ().-]*").fullmatch

# What the script did follows the text it wrote, in all versions before 3.13.1.
_report: Final = re.compile(r"\n\n(?:Action\(s\) taken:\n|script execution failed:)").search

_PRIORITIES: Final = frozenset({"high", "normal", "low"})

#: SMS are jobs of a kind of their own, so that a provider that hangs holds no mail up.
_KINDS: Final = {"sms": "sieve_sms", "tel": "sieve_sms"}
_OTHER_KIND: Final = "sieve_notify"

#: Each recipient costs a copy of the message on the queue's disk.
MOST_RECIPIENTS: Final = 32


class SieveJob(NamedTuple):
    """One piece of work for the queue: `asked` names one recipient, or none if the script did."""

    kind: str
    key: str
    asked: SieveNotify


class _Method(NamedTuple):
    name: str
    uri: str
    recipients: tuple[str, ...]
    parameters: dict[str, str]
    options: tuple[str, ...]


def sieve_notify(n: Notification) -> SieveNotify:
    """What notification `n` of CLASS SIEVE asks for; never raises.

    Whether the method is one that can be served is not decided here.
    """
    method = _method(n.method or "", n.options)
    return SieveNotify(
        account=plain(n.user or ""),
        method=method.name,
        uri=method.uri,
        recipients=method.recipients,
        parameters=method.parameters,
        options=tuple(map(plain, method.options)),
        priority=n.priority if n.priority in _PRIORITIES else "normal",
        message=_message(text(n.message)),
        filepath=n.filepath or "",
    )


def sieve_jobs(notify: SieveNotify, delivery: str) -> list[SieveJob]:
    """One job per recipient, so that trying one again sends nothing to the others.

    The keys are the same for the same request in the same `delivery`. Raises DecodeError.
    """
    if len(notify.recipients) > MOST_RECIPIENTS:
        raise DecodeError("too-many-recipients")
    kind = _KINDS.get(notify.method, _OTHER_KIND)
    one_each = [replace(notify, recipients=(to,)) for to in notify.recipients] or [notify]
    return [SieveJob(kind, sieve_key(asked, delivery), asked) for asked in one_each]


def sieve_key(notify: SieveNotify, delivery: str) -> str:
    """The key of its job: the same request in the same `delivery` is one job."""
    asked = [notify.uri, notify.recipients, notify.options, notify.priority, notify.message]
    return job_key(notify.account, notify.method, delivery, json.dumps([*asked, notify.parameters]))


def _message(written: str) -> str:
    report = _report(written)
    return plain_lines(written[: report.start()] if report else written).strip()


def _method(method: str, options: tuple[str, ...]) -> _Method:
    scheme = _scheme(method)
    if scheme:
        return _uri_method(scheme[1].lower(), method, options)
    name = plain(method).lower()
    if name == "mailto":
        return _mailto(options)
    # The old form has its recipients in the options: notify :method "sms" :options ["+1..."]
    return _with_recipients_from_options(_Method(name, "", (), {}, options))


def _mailto(options: tuple[str, ...]) -> _Method:
    """Cyrus splits this one scheme off: the rest of the URI is the first option."""
    rest, *others = options or ("",)
    if not rest:
        return _Method("mailto", "", (), {}, tuple(others))
    parsed = _uri_method("mailto", f"mailto:{rest}", tuple(others))
    return _with_recipients_from_options(parsed)


def _with_recipients_from_options(method: _Method) -> _Method:
    is_recipient = {"mailto": _is_address, "sms": _is_number, "tel": _is_number}.get(method.name)
    if is_recipient is None:
        return method
    found = [option for option in method.options if is_recipient(option)]
    rest = tuple(option for option in method.options if not is_recipient(option))
    return method._replace(recipients=_each_once([*method.recipients, *found]), options=rest)


def _uri_method(scheme: str, uri: str, options: tuple[str, ...]) -> _Method:
    path, _, query = uri[len(scheme) + 1 :].partition("?")
    parameters = _parameters(query, ";" if scheme == "xmpp" else "&")
    recipients: list[str] = []
    if scheme in _LISTS:
        recipients = [unquote(part) for part in path.split(",")]
        if scheme == "mailto":  # RFC 5436 §2.7: both are recipients; of Bcc it does not speak
            recipients += [
                *parameters.pop("to", "").split(","),
                *parameters.pop("cc", "").split(","),
            ]
    elif scheme == "xmpp":
        recipients = [unquote(path)]
    if scheme in ("sms", "tel"):  # what follows is context, not number (RFC 3966 §3)
        recipients = [number.partition(";")[0] for number in recipients]
    return _Method(scheme, plain(uri), _each_once(recipients), parameters, options)


_LISTS: Final = frozenset({"mailto", "sms", "tel"})


def _parameters(query: str, separator: str) -> dict[str, str]:
    """Names in lower case; the first of equal names counts. Only `body` may have lines."""
    found: dict[str, str] = {}
    for part in query.split(separator):
        name, equals, value = part.partition("=")
        name = plain(unquote(name)).strip().lower()
        if name and equals:
            clean = plain_lines if name == "body" else plain
            found.setdefault(name, clean(unquote(value)))
    return found


def _each_once(recipients: Iterable[str]) -> tuple[str, ...]:
    clean = (plain(recipient).strip() for recipient in recipients)
    return tuple(dict.fromkeys(recipient for recipient in clean if recipient))
