"""Whom an event concerns and what it moves; remembering must not change the answer."""

from __future__ import annotations

import json
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pusher.protocol.mboxevent import CYRUS_EVENTS, RFC5423_EVENTS, MailboxEvent, decode_change
from pusher.protocol.numbers import (
    CALENDAR,
    CALENDAR_FOLDERS,
    CONTACTS,
    CONTACTS_FOLDERS,
    MAIL,
    MAIL_FOLDERS,
    SIEVE,
    SUBMISSION,
)
from pusher.state import routing
from pusher.state.routing import route, uncounted

INBOX = "imap://mail/user/alice%40example.org;UIDVALIDITY=7"
ALICE = "alice@example.org\tlrswipkxtecdan\t"
ALL_EVENTS = sorted(RFC5423_EVENTS | CYRUS_EVENTS)


def event(event_type: str = "MessageNew", uri: str | None = INBOX, **fields: str) -> MailboxEvent:
    return MailboxEvent(event_type=event_type, uri=uri, **fields)  # type: ignore[arg-type]


# --- what it moves -----------------------------------------------------------------------------

RESTS = {
    "Login", "Logout", "QuotaChange", "QuotaExceed", "QuotaWithin", "CalendarAlarm",
    "ApplePushService", "ApplePushServiceDAV",
}  # fmt: skip
FOLDERS = {
    "MailboxCreate", "MailboxDelete", "MailboxRename", "MailboxSubscribe", "MailboxUnSubscribe",
    "AclChange",
}  # fmt: skip
FRESH = {"MailboxModseq", "AclChange", "MailboxCreate"}
DELIVERS = {"MessageNew", "MessageAppend"}


@pytest.mark.parametrize("event_type", [*ALL_EVENTS, "NeverHeardOf", "vnd.other.Event"])
def test_every_type_of_event_has_its_meaning(event_type: str) -> None:
    goes = route(event(event_type, mbtype="e", mailbox_acl=ALICE, user="alice@example.org"))
    assert goes.account == "alice@example.org"
    assert bool(goes.rests) is (event_type in RESTS)
    assert goes.position == (MAIL_FOLDERS if event_type in FOLDERS else MAIL)
    assert goes.has_modseq is (event_type not in FOLDERS)
    assert goes.fresh is goes.is_complete is (event_type in FRESH)
    assert goes.delivers is (event_type in DELIVERS)
    assert goes.readers == frozenset()


@pytest.mark.parametrize(
    ("mbtype", "content", "folders", "is_mail"),
    [
        (None, MAIL, MAIL_FOLDERS, True),
        ("", MAIL, MAIL_FOLDERS, True),
        ("e", MAIL, MAIL_FOLDERS, True),
        ("ed", MAIL, MAIL_FOLDERS, True),
        ("c", CALENDAR, CALENDAR_FOLDERS, False),
        ("cz", CALENDAR, CALENDAR_FOLDERS, False),
        ("a", CONTACTS, CONTACTS_FOLDERS, False),
        ("b", CALENDAR, CALENDAR_FOLDERS, False),
        ("f", SIEVE, MAIL_FOLDERS, False),
        ("s", SUBMISSION, MAIL_FOLDERS, False),
        ("p", MAIL, MAIL_FOLDERS, True),
        ("?", MAIL, MAIL_FOLDERS, True),
    ],
)
def test_the_kind_of_mailbox_says_which_number_moves(
    mbtype: str | None, content: int, folders: int, is_mail: bool
) -> None:
    fields = {"mailbox_acl": ALICE} | ({} if mbtype is None else {"mbtype": mbtype})
    new = route(event("MessageNew", **fields))
    assert (new.position, new.delivers) == (content, is_mail)
    assert route(event("MailboxRename", **fields)).position == folders


@pytest.mark.parametrize("mbtype", ["s", "f"])
def test_counters_do_not_tell_all_of_what_they_lack(mbtype: str) -> None:
    goes = route(event("MailboxModseq", mbtype=mbtype, mailbox_acl=ALICE))
    assert (goes.fresh, goes.is_complete) == (True, False)


# --- whose -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("uri", "owner"),
    [
        ("imap://mail/user/alice;UIDVALIDITY=7", "alice"),
        ("imap://mail/user.alice.Work;UIDVALIDITY=7", "alice"),
        ("imap://mail/user/alice/Work%40example.org;UIDVALIDITY=7/;UID=3", "alice@example.org"),
        ("imap://alice@mail/INBOX;UIDVALIDITY=7/;UID=3", "alice"),
        ("imap://mail/shared/Projekte;UIDVALIDITY=7", None),
        ("imap://mail", None),
        ("imap://;UIDVALIDITY=1335827579/;UID=40817", None),
        ("not a uri", None),
        ("", None),
    ],
)
def test_the_owner_is_in_the_uri_whoever_acted(uri: str, owner: str | None) -> None:
    goes = route(event("FlagsSet", uri, user="bob", mailbox_acl="bob\tlr\t"))
    assert goes.account == owner
    assert goes.readers == {"bob"}


def test_bob_who_reads_alices_folder_moves_alices_numbers() -> None:
    acl = ALICE + "bob@example.org\tlrs\t"
    goes = route(event("MessageRead", user="bob@example.org", mailbox_acl=acl))
    assert goes.account == "alice@example.org"
    assert goes.readers == {"bob@example.org"}


@pytest.mark.parametrize(
    "event_type", ["MailboxSubscribe", "MailboxUnSubscribe", "Login", "Logout"]
)
def test_what_one_does_to_himself_is_his_own(event_type: str) -> None:
    goes = route(event(event_type, INBOX, user="bob"))
    assert goes.account == "bob"


@pytest.mark.parametrize(
    "uri", ["imap://mail;UIDVALIDITY=7", "imap://mail/user;UIDVALIDITY=7"], ids=["none", "user"]
)
@pytest.mark.parametrize(
    ("acl", "actor", "account"),
    [
        ("alice\tlrswipkxtecda\t", "alice", "alice"),
        ("alice\tlrswipkxtecda\t", "cyrus", "alice"),
        ("alice\tlr\tbob\tlr\t", "alice", "alice"),
        ("", "alice", "alice"),
        ("", "", None),
    ],
)
def test_a_script_stored_without_a_mailbox_is_its_owners(
    uri: str, acl: str, actor: str, account: str | None
) -> None:
    goes = route(event("MailboxModseq", uri, mbtype="f", mailbox_acl=acl, user=actor))
    assert goes.account == account
    assert goes.position == SIEVE


def test_two_users_scripts_are_not_mixed_up_though_their_events_differ_in_the_actor_only() -> None:
    uri = "imap://mail;UIDVALIDITY=7"
    both = [route(event("MailboxModseq", uri, mbtype="f", user=user)) for user in ("alice", "bob")]
    assert [goes.account for goes in both] == ["alice", "bob"]


@pytest.mark.parametrize("event_type", ALL_EVENTS)
def test_nobodys_event_rests(event_type: str) -> None:
    assert route(event(event_type, "imap://mail/shared/x")).rests
    assert route(event(event_type, None)).rests


@pytest.mark.parametrize("name", ["x" * 1025, "x" * 1_000_000])
def test_no_name_is_longer_than_a_token_can_hold(name: str) -> None:
    for goes in (
        route(event("MailboxSubscribe", None, user=name)),
        route(event("FlagsSet", f"imap://mail/user/{name}")),
        route(event("FlagsSet", INBOX, mailbox_acl=f"{name}\tlr\t")),
        route(event("AclChange", INBOX, acl_subject=name)),
    ):
        assert goes.account in (None, "alice@example.org")
        assert goes.readers == frozenset()


# --- who else ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("acl", "readers"),
    [
        (ALICE, set()),
        (ALICE + "bob\tlrs\tcarol\tlr\t", {"bob", "carol"}),
        (ALICE + "bob\tl\tcarol\tp\t", set()),
        (ALICE + "bob\tlrs\t-bob\tr\t", set()),
        (ALICE + "-anyone\tr\tbob\tlr\t", set()),
        (ALICE + "group:staff\tlrs\t", set()),
        (ALICE + "anyone\tlrs\t", set()),
        (ALICE + "anonymous\tlrs\t", set()),
        (ALICE + "bob\tr\tanyone\tl\t", {"bob"}),
        ("\tlrs\tbob\tlr\t", {"bob"}),
        ("odd", set()),
        ("", set()),
    ],
)
def test_readers_are_those_who_may_list_and_read(acl: str, readers: set[str]) -> None:
    assert route(event("FlagsSet", mailbox_acl=acl)).readers == readers


@pytest.mark.parametrize(
    ("subject", "readers"), [("bob", {"bob"}), ("-bob", {"bob"}), ("alice@example.org", set())]
)
def test_who_lost_his_rights_hears_of_it_once_more(subject: str, readers: set[str]) -> None:
    fields = {"mailbox_acl": ALICE, "acl_subject": subject}
    assert route(event("AclChange", **fields)).readers == readers
    assert route(event("AclChange", mailbox_acl=ALICE)).readers == frozenset()
    assert route(event("FlagsSet", **fields)).readers == frozenset()


def test_a_mailbox_of_nobody_concerns_its_readers() -> None:
    goes = route(event("FlagsSet", "imap://mail/shared/x", mailbox_acl="bob\tlr\tcarol\tlr\t"))
    assert (goes.account, goes.rests) == (None, "")
    assert goes.readers == {"bob", "carol"}


# --- remembering -------------------------------------------------------------------------------

events = st.builds(
    MailboxEvent,
    event_type=st.sampled_from(["FlagsSet", "AclChange", "MailboxSubscribe"]),
    uri=st.sampled_from([None, INBOX, INBOX + "/;UID=4", "imap://mail;UIDVALIDITY=7"]),
    mbtype=st.sampled_from([None, "f"]),
    mailbox_acl=st.sampled_from([None, ALICE, ALICE + "bob\tlr\t"]),
    acl_subject=st.sampled_from([None, "dave"]),
    user=st.sampled_from([None, "bob", "carol"]),
    user_id=st.sampled_from([None, "frank"]),
)


@settings(deadline=None, max_examples=300)
@given(st.lists(events, max_size=12))
def test_what_is_remembered_is_what_would_be_found(history: list[MailboxEvent]) -> None:
    for each in history:
        mailbox = each.uri.partition("/;UID=")[0] if each.uri is not None else None
        has_rights = each.uri is not None
        found = routing._find_route(
            each.event_type,
            mailbox,
            each.mbtype,
            each.mailbox_acl if has_rights else None,
            each.acl_subject if has_rights else None,
            each.user_id or each.user,
        )
        assert route(each) == found


def test_the_quick_reading_of_an_event_is_routed_alike() -> None:
    for event_type, uri in product(("MessageNew", "AclChange"), (INBOX, INBOX + "/;UID=5")):
        told = {"event": event_type, "uri": uri, "user": "bob", "aclSubject": "carol"}
        quick = decode_change(json.dumps(told).encode())
        whole = event(event_type, uri, user="bob", acl_subject="carol")
        assert route(quick) == route(whole)


# --- JMAP states -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("states", "numbers"),
    [
        ({}, []),
        ({"Email": "7", "Mailbox": "3"}, []),
        ({"EmailSubmission": "7", "SieveScript": "9"}, [(SUBMISSION, 7), (SIEVE, 9)]),
        ({"EmailSubmission": "0", "SieveScript": ""}, []),
        ({"EmailSubmission": "-7", "SieveScript": "x9"}, []),
        ({"EmailSubmission": "\u0667", "SieveScript": "9" * 19}, []),
        ({"SieveScript": "9" * 18}, [(SIEVE, int("9" * 18))]),
    ],
)
def test_states_the_counters_lack_are_read_from_beside_them(
    states: dict[str, str], numbers: list[tuple[int, int]]
) -> None:
    assert uncounted(states) == numbers
