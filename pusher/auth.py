"""Whose stream is it? Tokens (JWT, RFC 7519) to account ids.

Knows keys and claims; not where in a request a token stands. The key decides the algorithms, so a
token cannot choose its own (`none`, or HMAC with a public key).
"""

from __future__ import annotations

import binascii
import contextlib
import os
import re
import secrets
import sys
import time
from pathlib import Path
from typing import NamedTuple

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import HMACAlgorithm

from shared.errors import ConfigError, ProtocolError
from shared.sections import Auth

MIN_SECRET_BYTES = 32
_REQUIRED = {"require": ["exp", "aud", "sub"]}
_LONGEST_TOKEN = 8192
_LONGEST_ACCOUNT_BYTES = 1024


class _Prepared(bytes):
    """An HMAC secret that was looked at once, when it was loaded."""


class _PreparedHmac(HMACAlgorithm):
    """The library's HMAC, but it trusts a secret that is `_Prepared`.

    It otherwise searches the secret for signs of a public key with every token, which takes longer
    than the HMAC itself.
    """

    def prepare_key(self, key: str | bytes) -> bytes:
        return key if isinstance(key, _Prepared) else super().prepare_key(key)


_is_base64url = re.compile(rb"[A-Za-z0-9_-]*").fullmatch


class _QuickJws(jwt.PyJWS):
    """The library's JWS with the costly steps before the check of the signature done in C."""

    def __init__(self) -> None:
        super().__init__()
        self.unregister_algorithm("HS256")
        self.register_algorithm("HS256", _PreparedHmac(HMACAlgorithm.SHA256))

    @staticmethod
    def _decode_base64url_segment(segment: bytes, name: str) -> bytes:
        # The library looks at each character in Python. What is canonical can be told in one go;
        # anything else is left to it. (A version without this method would only be slower.)
        if _is_base64url(segment) and len(segment) % 4 != 1:
            padding = b"=" * (-len(segment) % 4)
            decoded = binascii.a2b_base64(segment.translate(_TO_BASE64) + padding)
            encoded = binascii.b2a_base64(decoded, newline=False)
            if encoded.translate(_TO_BASE64URL).rstrip(b"=") == segment:
                return decoded
        return jwt.PyJWS._decode_base64url_segment(segment, name)  # noqa: SLF001


_TO_BASE64 = bytes.maketrans(b"-_", b"+/")
_TO_BASE64URL = bytes.maketrans(b"+/", b"-_")


class Identity(NamedTuple):
    """A proven account and until when, in seconds since the epoch."""

    account: str
    expires: float


class Authenticator:
    """Checks tokens with one key; `load` makes one from the configuration."""

    def __init__(
        self,
        key: bytes | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | rsa.RSAPublicKey,
        algorithm: str,
        audience: str,
        leeway_seconds: int = 0,
    ) -> None:
        self._key = key
        self._algorithms = [algorithm]
        self._audience = audience
        self._leeway = leeway_seconds
        self._jwt = jwt.PyJWT()
        self._jwt._jws = _QuickJws()  # noqa: SLF001 - how the library puts its own together

    def identify(self, token: str | None) -> Identity:
        """Return whose token it is, or raise ProtocolError 401, which says nothing about why."""
        try:
            if token is None or len(token) > _LONGEST_TOKEN:
                raise jwt.InvalidTokenError
            claims = self._jwt.decode(
                token,
                self._key,
                algorithms=self._algorithms,
                audience=self._audience,
                leeway=self._leeway,
                options=_REQUIRED,  # type: ignore[arg-type]
            )
            account, expires = claims["sub"], float(claims["exp"])
            # ValueError for half a surrogate pair, which no other part could write out.
            size = len(account.encode()) if isinstance(account, str) else 0
        except (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError) as error:
            raise ProtocolError(401, "a valid token is needed") from error
        if not 0 < size <= _LONGEST_ACCOUNT_BYTES:
            raise ProtocolError(401, "a valid token is needed")
        return Identity(sys.intern(account), expires + self._leeway)


def load(section: Auth) -> Authenticator:
    """Return the authenticator for the keys that `section` names; ConfigError if they are no use.

    The default HS256 secret is made when it is missing: the embedded set-up needs no preparation.
    """
    if section.public_key_file is not None:
        key, algorithm = _public_key(section.public_key_file)
        return Authenticator(key, algorithm, section.audience, section.leeway_seconds)
    return Authenticator(secret(section), "HS256", section.audience, section.leeway_seconds)


def mint(section: Auth, account: str, ttl_seconds: float) -> str:
    """Return a new HS256 token for `account`; ConfigError if only a public key is configured."""
    if section.public_key_file is not None:
        raise ConfigError(["auth.public_key_file: tokens are minted by the holder of its key"])
    expires = int(time.time() + ttl_seconds)
    claims = {"sub": account, "aud": section.audience, "exp": expires}
    return jwt.encode(claims, secret(section), "HS256")


def secret(section: Auth) -> bytes:
    """Return the HS256 secret; ConfigError if it is short."""
    if section.key_file is None:
        raise ConfigError(["auth.key_file: one of key_file and public_key_file is needed"])
    if "key_file" not in section.model_fields_set and not section.key_file.exists():
        _make_secret(section.key_file)
    try:
        key = section.key_file.read_bytes().rstrip(b"\r\n")
    except OSError as error:
        raise ConfigError([f"auth.key_file: {error}"]) from error
    if len(key) < MIN_SECRET_BYTES:
        reason = f"{len(key)} bytes are too short, at least {MIN_SECRET_BYTES} are needed"
        raise ConfigError([f"auth.key_file: {reason}"])
    try:
        return _Prepared(HMACAlgorithm(HMACAlgorithm.SHA256).prepare_key(key))
    except jwt.InvalidKeyError as error:
        raise ConfigError([f"auth.key_file: {error}"]) from error


def _make_secret(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    draft.touch(0o600)
    draft.write_text(secrets.token_hex(32) + "\n")
    # A link appears whole or not at all; if another process was first, its secret counts.
    with contextlib.suppress(FileExistsError):
        path.hardlink_to(draft)
    draft.unlink()


def _public_key(
    path: Path,
) -> tuple[ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | rsa.RSAPublicKey, str]:
    try:
        key = serialization.load_pem_public_key(path.read_bytes())
    except (OSError, ValueError, UnsupportedAlgorithm) as error:
        raise ConfigError([f"auth.public_key_file: {error}"]) from error
    match key:
        case ed25519.Ed25519PublicKey():
            return key, "EdDSA"
        case ec.EllipticCurvePublicKey(curve=ec.SECP256R1()):
            return key, "ES256"
        case rsa.RSAPublicKey() if key.key_size >= 2048:
            return key, "RS256"
    raise ConfigError(["auth.public_key_file: expected Ed25519, P-256 or RSA of 2048 bits or more"])
