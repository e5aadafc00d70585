"""The sockets we listen on: systemd's if one fits, ours otherwise, never somebody else's."""

from __future__ import annotations

import grp
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from pusher import sockets
from pusher.sockets import STREAM_SEND_BUFFER_BYTES, Sockets, inherited
from shared.errors import ConfigError
from shared.section_types import Address

STREAM, DATAGRAM = socket.SOCK_STREAM, socket.SOCK_DGRAM
KINDS = pytest.mark.parametrize("kind", [STREAM, DATAGRAM], ids=["stream", "datagram"])


@pytest.fixture
def open_files() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "intake"


def bound(path: Path, kind: socket.SocketKind) -> socket.socket:
    path.parent.mkdir(exist_ok=True)
    listener = socket.socket(socket.AF_UNIX, kind)
    listener.bind(str(path))
    if kind == STREAM:
        listener.listen()
    return listener


# --- UNIX sockets ------------------------------------------------------------------------------


@KINDS
@pytest.mark.parametrize("mode", [0o600, 0o660, 0o666])
def test_a_socket_is_made_with_its_mode_whatever_the_umask(
    path: Path, kind: socket.SocketKind, mode: int
) -> None:
    before = os.umask(0o077)
    try:
        listener, was_passed = Sockets([]).unix(path, kind, mode, None)
    finally:
        os.umask(before)
    with listener:
        assert not was_passed
        assert stat.S_IMODE(path.stat().st_mode) == mode
        with socket.socket(socket.AF_UNIX, kind) as client:
            client.connect(str(path))


@KINDS
def test_a_stale_socket_is_replaced(path: Path, kind: socket.SocketKind) -> None:
    bound(path, kind).close()
    listener, _ = Sockets([]).unix(path, kind, 0o600, None)
    with listener, socket.socket(socket.AF_UNIX, kind) as client:
        client.connect(str(path))


@KINDS
@pytest.mark.parametrize("theirs", [STREAM, DATAGRAM], ids=["a stream's", "a datagram's"])
def test_a_socket_somebody_listens_on_is_left_to_him(
    path: Path, kind: socket.SocketKind, theirs: socket.SocketKind
) -> None:
    with bound(path, theirs):
        with pytest.raises(ConfigError, match="another program listens there"):
            Sockets([]).unix(path, kind, 0o600, None)
        with socket.socket(socket.AF_UNIX, theirs) as client:
            client.connect(str(path))


def test_a_socket_with_a_full_backlog_is_somebodys(path: Path, open_files: ExitStack) -> None:
    listener = open_files.enter_context(bound(path, STREAM))
    listener.listen(0)
    while True:
        client = open_files.enter_context(socket.socket(socket.AF_UNIX, STREAM))
        client.setblocking(False)
        try:
            client.connect(str(path))
        except BlockingIOError:
            break
    with pytest.raises(ConfigError, match="another program listens there"):
        Sockets([]).unix(path, STREAM, 0o600, None)


@pytest.mark.parametrize("is_folder", [True, False])
def test_a_file_that_is_no_socket_is_not_removed(path: Path, is_folder: bool) -> None:
    path.parent.mkdir()
    if is_folder:
        path.mkdir()
    else:
        path.write_text("precious")
    with pytest.raises(ConfigError, match="not a socket"):
        Sockets([]).unix(path, STREAM, 0o600, None)
    assert path.exists()


def test_a_path_too_long_for_the_system_is_a_configuration_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot listen"):
        Sockets([]).unix(tmp_path / ("x" * 120), STREAM, 0o600, None)


def test_the_socket_belongs_to_the_group_asked_for(path: Path) -> None:
    group = grp.getgrgid(os.getgid()).gr_name
    listener, _ = Sockets([]).unix(path, STREAM, 0o660, group)
    with listener:
        assert path.stat().st_gid == os.getgid()


def test_an_unknown_group_is_a_configuration_error(path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot listen"):
        Sockets([]).unix(path, STREAM, 0o660, "no-such-group-anywhere")


def test_only_files_that_we_made_are_removed(path: Path) -> None:
    other = path.with_name("other")
    with bound(other, STREAM) as passed:
        all_of_them = Sockets([passed])
        ours, _ = all_of_them.unix(path, STREAM, 0o600, None)
        theirs, was_passed = all_of_them.unix(other, STREAM, 0o600, None)
        assert (theirs, was_passed) == (passed, True)
        all_of_them.remove_files()
        assert not path.exists()
        assert other.exists()
        all_of_them.remove_files()
        ours.close()


# --- inherited ---------------------------------------------------------------------------------


@KINDS
def test_a_passed_socket_is_taken_for_its_path_and_kind_only(
    path: Path, kind: socket.SocketKind
) -> None:
    other = STREAM if kind == DATAGRAM else DATAGRAM
    with bound(path, kind) as passed:
        all_of_them = Sockets([passed])
        with pytest.raises(ConfigError):
            all_of_them.unix(path, other, 0o600, None)
        assert all_of_them.unused == [str(path)]
        assert all_of_them.unix(path, kind, 0o600, None) == (passed, True)
        assert all_of_them.unused == []


def test_a_path_written_otherwise_is_the_same_socket(path: Path) -> None:
    with bound(path, STREAM) as passed:
        detour = path.parent / ".." / path.parent.name / path.name
        assert Sockets([passed]).unix(detour, STREAM, 0o600, None) == (passed, True)


def test_a_passed_tcp_socket_is_taken_for_its_address_only() -> None:
    with socket.create_server(("127.0.0.1", 0)) as passed:
        port = passed.getsockname()[1]
        all_of_them = Sockets([passed])
        assert all_of_them.tcp(Address("127.0.0.1", port)) is passed
        assert all_of_them.unused == []
        with pytest.raises(ConfigError, match="cannot listen"):
            all_of_them.tcp(Address("127.0.0.1", port))


def test_nothing_is_inherited_by_whom_it_is_not_meant_for(monkeypatch: pytest.MonkeyPatch) -> None:
    for pid, count in ((None, "1"), (str(os.getpid() + 1), "1"), ("rubbish", "1"), ("", "")):
        for name, value in (("LISTEN_PID", pid), ("LISTEN_FDS", count)):
            if value is None:
                monkeypatch.delenv(name, raising=False)
            else:
                monkeypatch.setenv(name, value)
        assert inherited() == []


def test_inherited_sockets_are_taken_once_and_hidden_from_children(
    monkeypatch: pytest.MonkeyPatch, path: Path
) -> None:
    with bound(path, STREAM) as listener:
        number = os.dup(listener.fileno())
        os.set_inheritable(number, True)
        monkeypatch.setattr(sockets, "_FIRST_INHERITED", number)
        monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
        monkeypatch.setenv("LISTEN_FDS", "1")
        monkeypatch.setenv("LISTEN_FDNAMES", "intake")
        (passed,) = inherited()
        with passed:
            assert passed.getsockname() == str(path)
            assert not os.get_inheritable(number)
            assert not [name for name in os.environ if name.startswith("LISTEN_")]
            assert inherited() == []


# --- TCP ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_streams_listen_with_small_buffers(host: str) -> None:
    try:
        listener = Sockets([]).tcp(Address(host, 0), for_streams=True)
    except ConfigError:
        if host == "127.0.0.1":
            raise
        pytest.skip("no IPv6 here")
    with listener:
        get = listener.getsockopt
        assert get(socket.SOL_SOCKET, socket.SO_SNDBUF) <= 2 * max(STREAM_SEND_BUFFER_BYTES, 2304)
        assert get(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) > 0
        assert get(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
        assert get(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1


def test_an_address_in_use_is_a_configuration_error() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as other,
        pytest.raises(ConfigError, match="cannot listen"),
    ):
        Sockets([]).tcp(Address("127.0.0.1", other.getsockname()[1]))
