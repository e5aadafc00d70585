"""Whose mailbox a URI names, in every spelling seen or allowed."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pusher.protocol.imapurl import MailboxName, parse


@pytest.mark.parametrize(
    ("path", "owner", "folder"),
    [
        # separator "/"
        ("user/alice", "alice", "INBOX"),
        ("user/alice%40example.org", "alice@example.org", "INBOX"),
        ("user/alice/Work/Sub%20Folder%40example.org", "alice@example.org", "Work/Sub Folder"),
        ("user/alice/%23calendars/Default%40example.org", "alice@example.org",
         "#calendars/Default"),
        ("user/alice/plus%2Bat%40x%40example.org", "alice@example.org", "plus+at@x"),
        ("user/first.last/a.b%40example.org", "first.last@example.org", "a.b"),
        ("user/o'hara_x-1%40example.org", "o'hara_x-1@example.org", "INBOX"),
        ("user/alice/Entw%C3%BCrfe%20%26%20Co%40example.org", "alice@example.org",
         "Entwürfe & Co"),
        ("user/alice/Tom%20%26-%20Jerry", "alice", "Tom &- Jerry"),
        ("user/alice/a%40b/c", "alice", "a@b/c"),
        ("user/alice%40b%C3%BCcher.example", "alice@bücher.example", "INBOX"),
        # separator "."
        ("user.alice", "alice", "INBOX"),
        ("user.alice.Work.Sub%20Folder", "alice", "Work/Sub Folder"),
        ("user.alice.Work%40example.org", "alice@example.org", "Work"),
        ("user.first%5Elast.v1%5E2.x%40example.org", "first.last@example.org", "v1.2/x"),
        # nobody's
        ("shared/Projekte%20%26%20Pl%C3%A4ne", None, "shared/Projekte & Pläne"),
        ("user", None, "user"),
        ("", None, ""),
        # odd
        ("user/", None, "INBOX"),
        ("user//Work", None, "Work"),
        ("user/%40example.org", None, "INBOX"),
        ("user/al%00ice", None, "INBOX"),
        ("user/al%0D%0Aice", None, "INBOX"),
        ("user/%FFalice", None, "INBOX"),
    ],
)  # fmt: skip
def test_owner_and_folder_of_the_admins_name(path: str, owner: str | None, folder: str) -> None:
    assert parse(f"imap://mail.test/{path}") == MailboxName("mail.test", owner, folder, None, None)
    assert parse(f"imap://mail.test/{path};UIDVALIDITY=7/;UID=9") == MailboxName(
        "mail.test", owner, folder, 7, 9
    )


@pytest.mark.parametrize(
    ("uri", "server", "owner", "folder"),
    [
        ("imap://alice@host/INBOX", "host", "alice", "INBOX"),
        ("imap://alice@host/inbox", "host", "alice", "INBOX"),
        ("imap://alice%40example.org@host:143/Work/a%40b", "host:143", "alice@example.org",
         "Work/a@b"),
        ("imap://alice;AUTH=*@host/Work", "host", "alice", "Work"),
        ("imap://;AUTH=*@host/Work", "host", None, "Work"),
        ("imap://alice@[2001:db8::1]:993/Work", "[2001:db8::1]:993", "alice", "Work"),
        ("imap://[::1]/user/bob", "[::1]", "bob", "INBOX"),
        ("IMAP://alice@host/Work", "host", "alice", "Work"),
        ("imap://alice@host/Entw%C3%BCrfe", "host", "alice", "Entwürfe"),
        ("imap://alice@host/Entw%26APw-rfe%20%26-%20Co", "host", "alice", "Entwürfe & Co"),
        ("imap://alice@host/%26U,BTFw-/%26ZeVnLIqe-", "host", "alice", "台北/日本語"),
        ("imap://alice@host/R%26D-Team", "host", "alice", "R&D-Team"),
        ("imap://alice@host/Q%26A-", "host", "alice", "Q&A-"),
        ("imap://alice@host/a%26-b", "host", "alice", "a&-b"),
        ("imap://alice@host/%26AGE-", "host", "alice", "&AGE-"),
        ("imap://alice@host/%262AA-", "host", "alice", "&2AA-"),
        # a folder's name does not make another user its owner
        ("imap://alice@host/user/bob/Work", "host", "alice", "user/bob/Work"),
    ],
)  # fmt: skip
def test_owner_of_the_rfc_form_is_in_the_authority(
    uri: str, server: str, owner: str | None, folder: str
) -> None:
    assert parse(uri) == MailboxName(server, owner, folder, None, None)


@pytest.mark.parametrize(
    ("uri", "name"),
    [
        ("imap://;UIDVALIDITY=1335827579/;UID=40817",
         MailboxName("", None, "", 1335827579, 40817)),
        ("imap://mail.test;UIDVALIDITY=1", MailboxName("mail.test", None, "", 1, None)),
        ("imap://mail.test", MailboxName("mail.test", None, "", None, None)),
        ("imap://mail.test/", MailboxName("mail.test", None, "", None, None)),
        ("imap://a@h/INBOX;uidvalidity=1/;uid=2", MailboxName("h", "a", "INBOX", 1, 2)),
        ("imap://a@h/INBOX/;UID=2", MailboxName("h", "a", "INBOX", None, 2)),
        ("imap://a@h/INBOX;UIDVALIDITY=1/;UID=2/;SECTION=1.2",
         MailboxName("h", "a", "INBOX", 1, 2)),
        ("imap://a@h/INBOX;UIDVALIDITY=" + "9" * 5000,
         MailboxName("h", "a", "INBOX", None, None)),
    ],
)  # fmt: skip
def test_uidvalidity_and_uid(uri: str, name: MailboxName) -> None:
    assert parse(uri) == name


@pytest.mark.parametrize(
    "uri",
    ["", "imap:", "http://h/user/alice", "imap://h/user/alice?SUBJECT", "user/alice",
     "imap://h/user/alice;UIDVALIDITY=x", "imap://h/user/alice;UIDVALIDITY=1/;UID=-1",
     "imap://h/user/alice;X=1", "imap://" + "@" * 5000],
)  # fmt: skip
def test_anything_else_names_nobody(uri: str) -> None:
    assert parse(uri).owner is None


@given(st.text() | st.text().map("imap://h/user/".__add__))
def test_parse_never_raises(uri: str) -> None:
    assert isinstance(parse(uri), MailboxName)


word = st.text(st.characters(codec="utf-8", exclude_characters="/", exclude_categories=["C", "Z"]),
               min_size=1)  # fmt: skip
local = word.filter(lambda name: "@" not in name and "\ufffd" not in name)
uids = st.none() | st.integers(0, 2**32 - 1)


@given(local, st.lists(word, max_size=4), st.integers(1, 2**32 - 1), uids)
def test_what_cyrus_writes_is_read_back(
    name: str, levels: list[str], uidvalidity: int, uid: int | None
) -> None:
    path = quote("/".join(["user", name, *levels]) + "@example.org", safe="/-._~!$'(),")
    uri = f"imap://mail.test/{path};UIDVALIDITY={uidvalidity}"
    if uid is not None:
        uri += f"/;UID={uid}"
    owner, folder = f"{name}@example.org", "/".join(levels) or "INBOX"
    assert parse(uri) == MailboxName("mail.test", owner, folder, uidvalidity, uid)
