"""One byte string for one value: RFC 8785 JSON and SHA-256, so that two sides can compare hashes."""

from __future__ import annotations

import hashlib
from typing import Any

import rfc8785

from fedfsd.errors import ConfigError


def encode(document: Any) -> bytes:
    """Canonical JSON of plain values (RFC 8785). Not finite, or not JSON: ConfigError."""
    try:
        return rfc8785.dumps(document)
    except rfc8785.CanonicalizationError as error:
        raise ConfigError("canonical JSON", got=error, expected="finite JSON values") from None


def digest(document: Any) -> str:
    """Hex SHA-256 of the canonical JSON of ``document``."""
    return sha256(encode(document))


def sha256(content: bytes | memoryview) -> str:
    """Hex SHA-256 of ``content``."""
    return hashlib.sha256(content).hexdigest()
