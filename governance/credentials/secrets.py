"""Schemas of the secrets of each kind. Does not use Django.

Errors, log lines and representations never contain a part of a secret.
"""

from __future__ import annotations

import json
import re
from typing import Annotated, Any, ClassVar, TypeVar
from urllib.parse import urlsplit

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, field_validator

from governance.faults import broken_rule

SECRET_MAX = 16_384
VALUE_MAX = 8_192
URL_MAX = 300
AUTHORIZATION = "authorization"
GOOGLE_SCOPE = "https://www.googleapis.com/auth/cloud-platform"
# These headers control the connection or describe the body, or belong to proxies and browsers.
_RESERVED = re.compile(
    r"(?:host|connection|content-.*|transfer-encoding|te|trailer|upgrade|expect|keep-alive"
    r"|proxy-.*|cookie|date|accept-encoding|x-amz-.*|x-forwarded-.*|forwarded)"
)
_HOST = re.compile(
    r"(?=.{1,253}\Z)[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*"
)
# Bits of an RSA key; larger ones take seconds to sign with.
_RSA_BITS = (2048, 8192)

S = TypeVar("S", bound="Secret")


def checked_host(value: str) -> str:
    """Return the name of a host in lower case. Raises ValueError for other texts."""
    name = value.strip().lower()
    if not _HOST.fullmatch(name):
        raise broken_rule("use the name of a host without scheme, port and path: api.example.com")
    return name


def _visible(value: SecretStr) -> SecretStr:
    text = value.get_secret_value()
    if not re.fullmatch(r"[\x21-\x7e]+(?: +[\x21-\x7e]+)*", text):
        raise ValueError("use visible ASCII characters, without line breaks or spaces at the ends")
    return value


def _token_url(value: str) -> str:
    parts = urlsplit(value)
    try:
        plain = parts.port != 0 and not (parts.username or parts.password or parts.fragment)
        checked_host(parts.hostname or "")
    except ValueError:
        plain = False
    if parts.scheme != "https" or not plain or not re.fullmatch(r"[\x21-\x7e]+", value):
        raise ValueError("use an https:// URL with the name of a host")
    return value


def _header_name(value: str) -> str:
    name = value.lower()
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,59}", name):
        raise ValueError("use letters, digits and hyphens, such as authorization or api-key")
    if _RESERVED.fullmatch(name):
        raise ValueError("this header is set by the connection and cannot hold a secret")
    return name


Hidden = Annotated[SecretStr, Field(min_length=1, max_length=VALUE_MAX), AfterValidator(_visible)]
Url = Annotated[str, Field(max_length=URL_MAX), AfterValidator(_token_url)]
Word = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[\x21-\x7e]+$")]
Words = Annotated[str, Field(max_length=1_000, pattern=r"^([\x21-\x7e]+( [\x21-\x7e]+)*)?$")]


class Secret(BaseModel):
    """Base of the secrets. `entered` maps the fields that people enter to those of the secret."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)
    entered: ClassVar[dict[str, str]]

    @property
    def token_host(self) -> str:
        """Host that receives the secret in exchange for a token; empty if there is none."""
        return ""

    def sealable(self) -> bytes:
        """Return the secret in clear, to be sealed."""
        values = {
            name: value.get_secret_value() if isinstance(value, SecretStr) else value
            for name, value in self
        }
        return json.dumps(values, separators=(",", ":")).encode()

    @classmethod
    def opened(cls: type[S], content: bytes) -> S:
        """Return the secret from the bytes of `sealable`."""
        return cls.model_validate_json(content)


class HeaderSecret(Secret):
    """The whole value of one header, such as `Bearer …` of `authorization`."""

    entered: ClassVar[dict[str, str]] = {"secret": "value", "header": "header"}
    header: Annotated[str, AfterValidator(_header_name)] = AUTHORIZATION
    value: Hidden

    @field_validator("value")
    @classmethod
    def _has_a_scheme(cls, value: SecretStr, info: Any) -> SecretStr:
        if info.data.get("header") == AUTHORIZATION and " " not in value.get_secret_value():
            raise ValueError(
                "the header authorization needs its scheme before the key, such as Bearer"
            )
        return value


class OAuth2Secret(Secret):
    """A client's secret for `token_url`, as of Microsoft Entra."""

    entered: ClassVar[dict[str, str]] = {
        "secret": "client_secret",
        "token_url": "token_url",
        "client_id": "client_id",
        "scope": "scope",
    }
    token_url: Url
    client_id: Word
    client_secret: Hidden
    scope: Words = ""

    @property
    def token_host(self) -> str:
        return urlsplit(self.token_url).hostname or ""


class GoogleSecret(Secret):
    """The parts of a service account's JSON key that sign its requests for tokens."""

    entered: ClassVar[dict[str, str]] = {"secret": "service_account", "scope": "scope"}
    client_email: Word
    private_key_id: Annotated[str, Field(max_length=100, pattern=r"^[0-9a-zA-Z]*$")] = ""
    private_key: Annotated[SecretStr, Field(max_length=VALUE_MAX)]
    token_uri: Url
    scope: Words = GOOGLE_SCOPE

    @field_validator("private_key")
    @classmethod
    def _is_an_rsa_key(cls, value: SecretStr) -> SecretStr:
        try:
            key = load_pem_private_key(value.get_secret_value().encode(), password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            key = None
        least, most = _RSA_BITS
        if not isinstance(key, RSAPrivateKey) or not least <= key.key_size <= most:
            raise ValueError(f"its private_key is not an RSA key of {least} to {most} bits")
        return value

    @property
    def token_host(self) -> str:
        return urlsplit(self.token_uri).hostname or ""

    @staticmethod
    def parts_of(service_account: str) -> dict[str, Any]:
        """Return the used members of a JSON key file. Raises ValueError for other texts."""
        try:
            content = json.loads(service_account)
        except (ValueError, RecursionError):
            content = None
        if not isinstance(content, dict) or content.get("type") != "service_account":
            raise ValueError("paste the whole JSON key file of a service account")
        names = ("client_email", "private_key_id", "private_key", "token_uri")
        return {name: content[name] for name in names if name in content}


class AwsSecret(Secret):
    """An access key that signs each request for one service in one region."""

    entered: ClassVar[dict[str, str]] = {
        "secret": "secret_access_key",
        "access_key_id": "access_key_id",
        "region": "region",
        "service": "service",
    }
    access_key_id: Annotated[str, Field(pattern=r"^[A-Z0-9]{16,128}$")]
    secret_access_key: Hidden
    region: Annotated[str, Field(pattern=r"^[a-z0-9-]{1,40}$")]
    service: Annotated[str, Field(pattern=r"^[a-z0-9-]{1,40}$")] = "bedrock"


SECRETS: dict[str, type[Secret]] = {
    "header": HeaderSecret,
    "oauth2": OAuth2Secret,
    "google": GoogleSecret,
    "aws": AwsSecret,
}
