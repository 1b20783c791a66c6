"""Ed25519 keys: their names and public form (C2SP verifier keys), and their files.

>>> key = parse("PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW")
>>> key.name, key.id.hex()
('PeterNeumann', 'c74f20a3')
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import unicodedata
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from fedfsd.errors import NotReadyError
from fedfsd.ledger.error import EvidenceError

SIGNER = 0x01
COSIGNER = 0x04
KEY_BYTES = 32
MAX_NAME = 200
_TITLE = "fedfsd key "


@dataclass(frozen=True)
class VerificationKey:
    """A public key with its name; ``kind`` says what it signs: notes, or others' checkpoints."""

    name: str
    public: bytes
    kind: int = SIGNER

    @property
    def id(self) -> bytes:
        """The 4-byte key id of signature lines."""
        return hashlib.sha256(self.name.encode() + b"\n" + bytes([self.kind]) + self.public).digest()[:4]

    def __str__(self) -> str:
        material = base64.b64encode(bytes([self.kind]) + self.public).decode()
        return f"{self.name}+{self.id.hex()}+{material}"

    def verify(self, signature: bytes, message: bytes) -> bool:
        """Whether ``signature`` over ``message`` is by this key."""
        try:
            Ed25519PublicKey.from_public_bytes(self.public).verify(signature, message)
        except (InvalidSignature, ValueError):
            return False
        return True


@dataclass(frozen=True)
class SigningKey:
    """A private key with its name; it never prints itself."""

    name: str
    private: Ed25519PrivateKey = field(repr=False)

    @classmethod
    def generate(cls, name: str) -> SigningKey:
        """A new key from the operating system's randomness."""
        return cls(check_name(name), Ed25519PrivateKey.generate())

    @classmethod
    def from_seed(cls, name: str, seed: bytes) -> SigningKey:
        """The key of a 32-byte seed: for test vectors."""
        return cls(check_name(name), Ed25519PrivateKey.from_private_bytes(seed))

    @property
    def verification(self) -> VerificationKey:
        """What others need to check this key's signatures."""
        return VerificationKey(self.name, self._public(), SIGNER)

    @property
    def cosigner(self) -> VerificationKey:
        """What others need to check this key's cosignatures as a witness."""
        return VerificationKey(self.name, self._public(), COSIGNER)

    def sign(self, message: bytes) -> bytes:
        """64 bytes of signature."""
        return self.private.sign(message)

    def write(self, path: Path) -> None:
        """Keep the key in a new file that only its owner can read (PEM below a line with the name)."""
        pem = self.private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except OSError as error:
            raise NotReadyError(
                f"key file {path.name}", got=error.strerror, expected="a new file in a writable folder"
            ) from None
        with os.fdopen(descriptor, "wb") as file:
            file.write(f"{_TITLE}{self.name}\n".encode() + pem)
            file.flush()
            os.fsync(file.fileno())

    @classmethod
    def read(cls, path: Path) -> SigningKey:
        """The key in a file that ``write`` made.

        Raises:
            NotReadyError: no such file, readable by others, or no key.
        """
        try:
            if path.is_file() and path.stat().st_mode & 0o077:
                raise NotReadyError(
                    f"key file {path.name}",
                    got="a file that others may read",
                    expected="mode 0600",
                    hint=f"chmod 600 {path}",
                )
            title, _, pem = path.read_bytes()[:10_000].partition(b"\n")
            private = load_pem_private_key(pem, password=None)
            name = check_name(title.decode().removeprefix(_TITLE))
        except (OSError, ValueError, TypeError, UnsupportedAlgorithm, EvidenceError):
            private, name = None, ""
        if not isinstance(private, Ed25519PrivateKey):
            raise NotReadyError(
                f"key file {path.name}",
                got="no file or no Ed25519 key",
                expected="a file made by fedfsd keys new",
            )
        return cls(name, private)

    def _public(self) -> bytes:
        return self.private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)


def parse(text: str, *, kind: int | None = None) -> VerificationKey:
    """The key of ``<name>+<id>+<base64>``; with ``kind``, of that kind only.

    Raises:
        EvidenceError: not such a text, or the id is not the key's.
    """
    name, _, rest = text.partition("+") if len(text) <= 2 * MAX_NAME else ("", "", "")
    identity, _, material = rest.partition("+")
    content = strict_base64(material)
    if content is not None and len(content) == 1 + KEY_BYTES and content[0] in (SIGNER, COSIGNER):
        key = VerificationKey(check_name(name), content[1:], content[0])
        if key.id.hex() == identity and kind in (None, key.kind):
            return key
    raise EvidenceError(
        "verification key",
        got="another text" if kind is None else f"another text, or a key that is not of type {kind}",
        expected="<name>+<8 hex digits>+<base64 of type and Ed25519 key>",
    )


def check_name(name: str) -> str:
    """``name`` back, or EvidenceError where a key cannot be called that."""
    strange = any(char.isspace() or char == "+" or unicodedata.category(char)[0] == "C" for char in name)
    if strange or not 1 <= len(name) <= MAX_NAME:
        raise EvidenceError(
            "key name", got="another text", expected=f"1 to {MAX_NAME} characters without spaces and +"
        )
    return name


def strict_base64(text: str) -> bytes | None:
    """The bytes whose one standard Base64 spelling is ``text``; None where it is not one."""
    try:
        content = base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error):
        return None
    return content if base64.b64encode(content).decode() == text else None
