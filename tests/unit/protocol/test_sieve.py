"""What a script asks for, in every spelling Cyrus passes on."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pusher.protocol.normal import sieve_jobs, sieve_notify
from pusher.protocol.notification import Notification
from pusher.protocol.sieve import MOST_RECIPIENTS, sieve_key
from shared.errors import DecodeError
from shared.events import SieveNotify


def asked(
    method: str | None,
    *options: str,
    message: str = "hi\n\nAction(s) taken:\nKept\n",
    priority: str | None = "high",
) -> SieveNotify:
    n = Notification(
        method, "SIEVE", priority, "alice@x.test", None, options, message.encode(), "/spool/1"
    )
    return sieve_notify(n)


def test_everything_but_the_method_is_carried_over() -> None:
    assert asked("addcal", "uid=1") == SieveNotify(
        account="alice@x.test",
        method="addcal",
        options=("uid=1",),
        priority="high",
        message="hi",
        filepath="/spool/1",
    )


@pytest.mark.parametrize(
    ("options", "recipients", "parameters", "rest"),
    [
        (["alice@phone.test"], ["alice@phone.test"], {}, []),
        (["a@x,b%40x?subject=Hi%20there&X-H=1", "c=d"], ["a@x", "b@x"],
         {"subject": "Hi there", "x-h": "1"}, ["c=d"]),
        (["a@x?to=b@x,a@x&cc=c@x&bcc=d@x"], ["a@x", "b@x", "c@x"], {"bcc": "d@x"}, []),
        # the old form has several recipients
        (["alice@phone.test", "bob@phone.test"], ["alice@phone.test", "bob@phone.test"], {}, []),
        (["a@x", "a=b", "c=d@e", "ü=ß"], ["a@x"], {}, ["a=b", "c=d@e", "ü=ß"]),
        # "mailto:$env-from$" loses its address in Cyrus
        ([], [], {}, []),
        ([""], [], {}, []),
        # nothing gets into a header line that does not belong there
        (["a@x%0D%0ABcc:b@x?subject=a%0D%0AX:y&subject=b&body=1%0D%0A2"], ["a@x Bcc:b@x"],
         {"subject": "a X:y", "body": "1\n2"}, []),
    ],
)  # fmt: skip
def test_mailto(
    options: list[str], recipients: list[str], parameters: dict[str, str], rest: list[str]
) -> None:
    notify = asked("mailto", *options)
    assert notify.method == "mailto"
    assert notify.recipients == tuple(recipients)
    assert notify.parameters == parameters
    assert notify.options == tuple(rest)


@pytest.mark.parametrize(
    ("uri", "method", "recipients", "parameters"),
    [
        ("sms:+15105550101,+15105550102?body=hello%20there", "sms",
         ["+15105550101", "+15105550102"], {"body": "hello there"}),
        ("SMS:+1;phone-context=x,+2", "sms", ["+1", "+2"], {}),
        ("tel:+14085551212", "tel", ["+14085551212"], {}),
        ("xmpp:alice@jabber.test?message;subject=SIEVE", "xmpp", ["alice@jabber.test"],
         {"subject": "SIEVE"}),
        ("https://hooks.example.test/x?y=1", "https", [], {"y": "1"}),
        ("sms:", "sms", [], {}),
    ],
)  # fmt: skip
def test_other_uris_are_split(
    uri: str, method: str, recipients: list[str], parameters: dict[str, str]
) -> None:
    notify = asked(uri, "opt=1")
    assert (notify.method, notify.uri) == (method, uri)
    assert notify.recipients == tuple(recipients)
    assert notify.parameters == parameters
    assert notify.options == ("opt=1",)


@pytest.mark.parametrize(
    ("method", "name", "recipients"),
    [("sms", "sms", ("+1 510 555",)), ("Sieve", "sieve", ()), (None, "", ()), ("", "", ())],
)
def test_bare_names(method: str | None, name: str, recipients: tuple[str, ...]) -> None:
    notify = asked(method, "+1 510 555")
    assert (notify.method, notify.uri, notify.recipients) == (name, "", recipients)


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("opts\n\nAction(s) taken:\nKept\n", "opts"),
        ("x\n\nscript execution failed: Run error\n", "x"),
        ("from 3.13.1\n\n", "from 3.13.1"),
        ("a\r\n\r\nb\n\nAction(s) taken:\nFiled into: x\n\nAction(s) taken:\n", "a\n\nb"),
        ("Action(s) taken:\n", "Action(s) taken:"),
        ("a\x1b[0m\u202eb\tc\0", "a[0mb c"),
        ("", ""),
    ],
)
def test_the_report_of_what_the_script_did_is_cut_off(written: str, message: str) -> None:
    assert asked("mailto", "a@x", message=written).message == message


@pytest.mark.parametrize(
    ("given_priority", "priority"),
    [("high", "high"), ("normal", "normal"), ("low", "low"), ("any", "normal"), (None, "normal")],
)
def test_priority_is_one_of_three(given_priority: str | None, priority: str) -> None:
    assert asked("x", priority=given_priority).priority == priority


def test_one_request_about_one_message_is_one_job() -> None:
    first = asked("mailto", "a@x")
    moved = SieveNotify.from_json(first.to_json().replace(b"/spool/1", b"/spool/2"))
    assert sieve_key(first, "digest") == sieve_key(moved, "digest")
    others = [asked("mailto", "b@x"), asked("mailto", "a@x", message="two"), asked("sms:+1")]
    keys = {sieve_key(first, "other"), *(sieve_key(other, "digest") for other in others)}
    assert len(keys) == 4
    assert sieve_key(first, "digest") not in keys


def test_each_recipient_is_a_job_of_his_own_so_that_a_retry_reaches_nobody_twice() -> None:
    first = asked("mailto", "a@x,b@x", "c@x", "d=e")
    jobs = sieve_jobs(first, "delivery")
    assert [job.asked.recipients for job in jobs] == [("a@x",), ("b@x",), ("c@x",)]
    assert {job.asked.options for job in jobs} == {("d=e",)}
    assert len({job.key for job in jobs}) == 3
    assert sieve_jobs(first, "delivery") == jobs
    assert not {job.key for job in jobs} & {job.key for job in sieve_jobs(first, "other")}


@pytest.mark.parametrize(
    ("method", "kind"),
    [
        ("sms:+1,+2", "sieve_sms"),
        ("tel:+1", "sieve_sms"),
        ("sms", "sieve_sms"),
        ("mailto", "sieve_notify"),
        ("xmpp:a@x", "sieve_notify"),
        ("https://x", "sieve_notify"),
        ("addcal", "sieve_notify"),
        ("", "sieve_notify"),
    ],
)
def test_sms_are_of_their_own_kind_so_that_they_hold_no_mail_up(method: str, kind: str) -> None:
    assert {job.kind for job in sieve_jobs(asked(method), "d")} == {kind}


@pytest.mark.parametrize("method", ["mailto", "sms", "https://x", "sieve"])
def test_without_recipients_there_is_one_job_all_the_same(method: str) -> None:
    (job,) = sieve_jobs(asked(method), "d")
    assert job.asked.recipients == ()


def test_a_script_cannot_fill_the_queue_with_recipients() -> None:
    most = [f"{number}@x" for number in range(MOST_RECIPIENTS)]
    assert len(sieve_jobs(asked("mailto", *most), "d")) == MOST_RECIPIENTS
    with pytest.raises(DecodeError, match="too-many-recipients"):
        sieve_jobs(asked("mailto", *most, "one@more"), "d")


@given(st.text() | st.sampled_from(["mailto", "sms", "sms:", "xmpp:?"]), st.lists(st.text()))
def test_no_request_raises(method: str, options: list[str]) -> None:
    assert sieve_key(asked(method, *options), "d")
