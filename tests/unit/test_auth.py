"""Only a token that the configured key has signed for us opens a stream; a refusal says no more."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets as stdlib_secrets
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa, x25519
from hypothesis import given
from hypothesis import strategies as st

from pusher import auth
from pusher.auth import Authenticator
from shared.errors import ConfigError, ProtocolError
from shared.sections import Auth

SECRET = b"s" * 32
LATER = 4_000_000_000


def claims(**changed: Any) -> dict[str, Any]:
    given = {"sub": "alice@example.org", "aud": "us", "exp": LATER} | changed
    return {name: value for name, value in given.items() if value is not ...}


def signed(key: Any = SECRET, algorithm: str = "HS256", **changed: Any) -> str:
    return jwt.encode(claims(**changed), key, algorithm)


def by_hand(header: dict[str, Any], payload: bytes, signature: bytes = b"") -> str:
    parts = (json.dumps(header).encode(), payload, signature)
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)


def ours(leeway: int = 0) -> Authenticator:
    return Authenticator(SECRET, "HS256", "us", leeway)


def refuses(authenticator: Authenticator, token: str | None) -> None:
    with pytest.raises(ProtocolError) as refused:
        authenticator.identify(token)
    assert (refused.value.status, refused.value.detail) == (401, "a valid token is needed")


# --- claims ------------------------------------------------------------------------------------


def test_a_good_token_names_its_account_and_its_end() -> None:
    assert ours().identify(signed()) == ("alice@example.org", LATER)


@pytest.mark.parametrize("aud", ["us", ["them", "us"]])
def test_we_may_be_one_of_several_who_are_meant(aud: object) -> None:
    assert ours().identify(signed(aud=aud)).account == "alice@example.org"


@pytest.mark.parametrize(
    "changed",
    [
        {"aud": "them"},
        {"aud": ["them"]},
        {"aud": ""},
        {"aud": None},
        {"aud": ...},
        {"exp": ...},
        {"exp": 1},
        {"exp": "soon"},
        {"exp": None},
        {"exp": 1e400},
        {"exp": -1e400},
        {"sub": ...},
        {"sub": ""},
        {"sub": "x" * 1025},
        {"sub": "\U0001f4ec" * 257},
        {"sub": "half of a pair: \ud800"},
        {"nbf": LATER - 1},
        {"iat": LATER - 1},
    ],
    ids=str,
)
def test_a_token_that_is_signed_but_not_for_this_is_refused(changed: dict[str, Any]) -> None:
    refuses(ours(), signed(**changed))


@pytest.mark.parametrize("sub", ["7", "null", '["alice"]', '{"a":1}', "true", '""'])
def test_an_account_is_a_text(sub: str) -> None:
    payload = b'{"sub":%b,"aud":"us","exp":%d}' % (sub.encode(), LATER)
    refuses(ours(), jwt.api_jws.encode(payload, SECRET, "HS256"))


@pytest.mark.parametrize("name", ["x" * 1024, "a b", "o'hara_x-1", "jörg@exämple.org", 'a"\r\nb'])
def test_an_account_may_be_any_text_of_a_length(name: str) -> None:
    assert ours().identify(signed(sub=name)).account == name


@pytest.mark.parametrize(
    ("late", "leeway", "is_good"), [(5, 0, False), (5, 60, True), (90, 60, False)]
)
def test_leeway_is_for_clocks_that_differ(late: int, leeway: int, is_good: bool) -> None:
    exp = int(time.time()) - late
    if is_good:
        assert ours(leeway).identify(signed(exp=exp)).expires == exp + leeway
    else:
        refuses(ours(leeway), signed(exp=exp))


# --- signatures --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "token",
    [
        None,
        "",
        ".",
        "..",
        "a.b.c",
        "x" * 9000,
        "\u00e9.\u00e9.\u00e9",
        "Bearer " + signed(),
        signed() + "x",
        signed()[:-3],
        signed(b"t" * 32),
        signed(algorithm="HS512", key=SECRET * 2),
        signed(None, "none"),
        by_hand({"alg": "none"}, json.dumps(claims()).encode()),
        by_hand({"alg": "None", "typ": "JWT"}, json.dumps(claims()).encode()),
        by_hand({"alg": ""}, json.dumps(claims()).encode()),
        by_hand({}, json.dumps(claims()).encode()),
        by_hand({"alg": "HS256"}, b"not json", b"x"),
        by_hand({"alg": "HS256"}, b"[" * 3000, b"x"),
        by_hand({"alg": "HS256", "crit": ["b64"], "b64": False}, json.dumps(claims()).encode()),
    ],
    ids=range(20),
)
def test_what_our_key_has_not_signed_is_refused(token: str | None) -> None:
    refuses(ours(), token)


Keys = dict[str, Any]


@pytest.fixture(scope="module")
def private() -> Keys:
    return {
        "EdDSA": ed25519.Ed25519PrivateKey.generate(),
        "ES256": ec.generate_private_key(ec.SECP256R1()),
        "RS256": rsa.generate_private_key(65537, 2048),
    }


def pem(key: Any) -> bytes:
    public: bytes = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return public


def loaded(folder: Path, key: bytes, **more: Any) -> Authenticator:
    path = folder / "key.pem"
    path.write_bytes(key)
    return auth.load(Auth(public_key_file=path, audience="us", **more))


@pytest.mark.parametrize("algorithm", ["EdDSA", "ES256", "RS256"])
def test_a_public_key_decides_the_algorithm(tmp_path: Path, private: Keys, algorithm: str) -> None:
    authenticator = loaded(tmp_path, pem(private[algorithm]))
    assert authenticator.identify(signed(private[algorithm], algorithm)).account
    for other, key in private.items():
        if other != algorithm:
            refuses(authenticator, signed(key, other))
    refuses(authenticator, signed())
    refuses(authenticator, signed(None, "none"))


@pytest.mark.parametrize("algorithm", ["EdDSA", "ES256", "RS256"])
def test_a_public_key_is_no_secret_to_sign_with(
    tmp_path: Path, private: Keys, algorithm: str
) -> None:
    public = pem(private[algorithm])
    payload = json.dumps(claims()).encode()
    unsigned = by_hand({"alg": "HS256"}, payload).rpartition(".")[0]
    forged = hmac.new(public, unsigned.encode(), hashlib.sha256).digest()
    token = by_hand({"alg": "HS256"}, payload, forged)
    refuses(loaded(tmp_path, public), token)


def test_a_weak_variant_of_the_same_key_type_is_refused(tmp_path: Path, private: Keys) -> None:
    authenticator = loaded(tmp_path, pem(private["RS256"]))
    refuses(authenticator, signed(private["RS256"], "PS256"))
    refuses(authenticator, signed(private["RS256"], "RS512"))


BAD_KEYS: dict[str, Callable[[], bytes]] = {
    "RSA of 1024 bits": lambda: pem(rsa.generate_private_key(65537, 1024)),
    "another curve": lambda: pem(ec.generate_private_key(ec.SECP384R1())),
    "no signatures": lambda: pem(x25519.X25519PrivateKey.generate()),
    "DSA": lambda: pem(dsa.generate_private_key(1024)),
    "a private key": lambda: ed25519.Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ),
    "rubbish": lambda: b"rubbish",
    "empty": lambda: b"",
    "unknown algorithm": lambda: (
        b"-----BEGIN PUBLIC KEY-----\n"
        + base64.b64encode(bytes.fromhex("300d300806042a0304050500030100"))
        + b"\n-----END PUBLIC KEY-----\n"
    ),
}


@pytest.mark.parametrize("name", BAD_KEYS)
def test_a_key_that_is_no_use_is_a_configuration_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError) as refused:
        loaded(tmp_path, BAD_KEYS[name]())
    assert refused.value.problems[0].startswith("auth.public_key_file: ")


# --- the secret --------------------------------------------------------------------------------


def with_secret(path: Path, secret: bytes) -> Auth:
    path.write_bytes(secret)
    return Auth(key_file=path, audience="us", leeway_seconds=0)


def test_a_token_that_we_minted_is_good(tmp_path: Path) -> None:
    section = with_secret(tmp_path / "key", SECRET + b"\n")
    identity = auth.load(section).identify(auth.mint(section, "alice", 60))
    assert identity.account == "alice"
    assert 0 < identity.expires - time.time() <= 60


@pytest.mark.parametrize("secret", [b"", b"short", b"s" * 31, b"s" * 31 + b"\r\n\n"])
def test_a_short_secret_is_refused(tmp_path: Path, secret: bytes) -> None:
    section = with_secret(tmp_path / "key", secret)
    for use in (auth.load, lambda section: auth.mint(section, "alice", 60)):
        with pytest.raises(ConfigError, match="too short"):
            use(section)


def test_a_public_key_is_no_secret(tmp_path: Path, private: Keys) -> None:
    with pytest.raises(ConfigError):
        auth.load(with_secret(tmp_path / "key", pem(private["RS256"])))


def test_only_the_holder_of_the_private_key_mints(tmp_path: Path, private: Keys) -> None:
    (tmp_path / "key.pem").write_bytes(pem(private["EdDSA"]))
    with pytest.raises(ConfigError, match="minted by the holder"):
        auth.mint(Auth(public_key_file=tmp_path / "key.pem"), "alice", 60)


def test_the_default_secret_is_made_once_and_for_us_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    first = auth.secret(Auth())
    assert len(first) >= 32
    assert auth.secret(Auth()) == first
    key_file = tmp_path / "run" / "auth.key"
    assert key_file.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in key_file.parent.iterdir()] == ["auth.key"]


def test_a_secret_that_was_asked_for_is_not_made_up(tmp_path: Path) -> None:
    path = tmp_path / "key"
    section = with_secret(path, SECRET)
    path.unlink()
    with pytest.raises(ConfigError, match="No such file"):
        auth.secret(section)
    assert not path.exists()


def test_when_another_process_is_first_its_secret_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    key_file = tmp_path / "run" / "auth.key"

    def somebody_is_first(_size: int) -> str:
        key_file.write_text("f" * 64 + "\n")
        return "e" * 64

    monkeypatch.setattr(stdlib_secrets, "token_hex", somebody_is_first)
    assert auth.secret(Auth()) == b"f" * 64
    assert [path.name for path in key_file.parent.iterdir()] == ["auth.key"]


def test_processes_that_start_together_agree_on_one_secret(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    code = (
        f"import sys; sys.path.insert(0, {str(root)!r})\n"
        "from pusher import auth; from shared.sections import Auth\n"
        "print(auth.secret(Auth()).decode())"
    )
    processes = [
        subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, stdout=subprocess.PIPE)
        for _ in range(3)
    ]
    told = {process.communicate()[0] for process in processes}
    assert len(told) == 1
    assert len(told.pop().strip()) == 64


# --- what is done quicker than the library does it ----------------------------------------------


@given(
    st.integers(0, 2),
    st.integers(0, 200),
    st.sampled_from(["", "=", "==", "===", "!", "+", "/", "-", "_", "A", "\n", " ", "é"]),
)
def test_a_token_spelt_otherwise_is_taken_or_refused_as_the_library_does(
    segment: int, at: int, put: str
) -> None:
    parts = signed().split(".")
    parts[segment] = parts[segment][:at] + put + parts[segment][at + (put.isalnum()) :]
    token = ".".join(parts)
    try:
        jwt.decode(token, SECRET, algorithms=["HS256"], audience="us")
    except (jwt.PyJWTError, ValueError):
        refuses(ours(), token)
    else:
        assert ours().identify(token).account == "alice@example.org"
