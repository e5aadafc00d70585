import pathlib

import pytest

from shared import config
from shared.errors import ConfigError
from shared.section_types import Address


def problems(text: str, folder: pathlib.Path = pathlib.Path("/nowhere")) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        config.parse(text, folder)
    return caught.value.problems


def test_every_problem_is_reported_at_once_with_path_value_and_hint() -> None:
    found = problems(
        """
        [stream]
        listen = "127.0.0.1:1"
        [streams]
        listen = "mail.example.org:80"
        ping_seconds = "often"
        max_conections = 3
        [intake]
        mode = "999"
        [auth]
        key_file = "missing.key"
        """
    )
    assert {problem.split(":")[0] for problem in found} == {
        "stream",
        "streams.listen",
        "streams.ping_seconds",
        "streams.max_conections",
        "intake.mode",
        "auth.key_file",
    }
    text = "\n".join(found)
    assert "did you mean 'streams'" in text
    assert "did you mean 'max_connections'" in text
    assert "'often'" in text
    assert "no such file" in text


def test_syntax_error_names_line_and_column() -> None:
    assert "line 2" in problems("[streams]\nlisten = \n")[0]


def test_paths_start_at_the_folder_of_the_file(tmp_path: pathlib.Path) -> None:
    parsed = config.parse('[queue]\npath = "q.db"\n', tmp_path)
    assert parsed.queue.path == tmp_path / "q.db"
    assert parsed.intake.stream == pathlib.Path("run/intake.sock")


def test_addresses_modes_and_sizes_have_a_readable_form(tmp_path: pathlib.Path) -> None:
    text = '[streams]\nlisten = "[::1]:0"\n[intake]\nmode = "0600"\n[queue]\nmax_bytes = "2 GiB"\n'
    parsed = config.parse(text, tmp_path)
    assert parsed.streams.listen == Address("::1", 0)
    assert parsed.intake.mode == 0o600
    assert parsed.queue.max_bytes == 2 << 30
    shown = {setting.path: setting for setting in config.settings(parsed, "here.toml")}
    assert shown["streams.listen"].value == "[::1]:0"
    assert shown["streams.listen"].origin == "here.toml"
    assert shown["intake.mode"].value == "0600"
    assert shown["streams.ping_seconds"].origin == "default"


def test_the_environment_names_the_file(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "c.toml"
    path.write_text("[log]\nlevel = 'debug'\n")
    monkeypatch.setenv(config.ENVIRONMENT_VARIABLE, str(path))
    assert config.load().log.level == "debug"
    monkeypatch.setenv(config.ENVIRONMENT_VARIABLE, str(tmp_path / "missing.toml"))
    with pytest.raises(ConfigError, match="cannot be read"):
        config.load()


def test_tls_with_several_processes_is_refused_because_tls_cannot_be_handed_over(
    tmp_path: pathlib.Path,
) -> None:
    (tmp_path / "c.pem").write_text("")
    text = '[streams]\ntls_certificate_file = "c.pem"\ntls_key_file = "c.pem"\nprocesses = 2\n'
    assert "proxy" in problems(text, tmp_path)[0]
    text = '[streams]\ntls_certificate_file = "c.pem"\n'
    assert "go together" in problems(text, tmp_path)[0]


def test_a_reload_names_what_needs_a_restart(tmp_path: pathlib.Path) -> None:
    old = config.parse("", tmp_path)
    new = config.parse('[streams]\nping_seconds = 5\nlisten = "127.0.0.1:9"\n', tmp_path)
    assert config.needs_restart(old, new) == ["streams.listen"]


@pytest.mark.parametrize("origin", ["https://mail.example.org/", "mail.example.org", "null"])
def test_origins_are_origins(origin: str, tmp_path: pathlib.Path) -> None:
    assert "origin" in problems(f'[streams]\nallowed_origins = ["{origin}"]\n', tmp_path)[0]


@pytest.mark.parametrize(
    ("url", "meant"),
    [
        ("sqlite:///state.db", "sqlite:////etc/mp/state.db"),
        ("sqlite:////var/state.db", "sqlite:////var/state.db"),
        ("postgresql://db/mail", "postgresql://db/mail"),
    ],
)
def test_the_path_of_an_embedded_store_starts_at_the_files_folder_too(url: str, meant: str) -> None:
    assert config.parse(f'[store]\nurl = "{url}"\n', pathlib.Path("/etc/mp")).store.url == meant
