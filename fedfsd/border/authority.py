"""The federation's private authority: a root that signs the coordinator's and the regions' certificates.

Whatever a signing request wishes for is ignored but its key: name, use and dates are the authority's.
"""

from __future__ import annotations

import datetime
import os
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fedfsd.border import identity
from fedfsd.border.identity import Identity, IdentityError
from fedfsd.errors import NotReadyError, RefusedError
from fedfsd.ledger.disk import write_whole

MAX_REQUEST = 4096
ROOT_DAYS = 3650
DAYS = 90
_EARLY = datetime.timedelta(days=2)  # a clock that is a day behind finds a new certificate valid


@dataclass(frozen=True)
class Authority:
    """The root and its private key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey = field(repr=False)

    @classmethod
    def new(cls, federation: str) -> Authority:
        """A new root for ``federation``."""
        key = new_key()
        name = _name(f"fedfsd {federation} root")
        draft = _draft(name, name, key.public_key(), days=ROOT_DAYS)
        draft = draft.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        draft = draft.add_extension(_usage(signs=True), critical=True)
        return cls(draft.sign(key, SHA256()), key)

    @classmethod
    def read(cls, folder: Path) -> Authority:
        """The root in ``folder``. NotReadyError where it is not there or others may read its key."""
        return cls(identity.read((folder / "root.crt").read_bytes()), read_key(folder / "root.key"))

    def write(self, folder: Path) -> None:
        """Keep it as root.key and root.crt."""
        write_key(self.key, folder / "root.key")
        write_certificate(self.certificate, folder / "root.crt")

    def sign(self, message: bytes) -> bytes:
        """The root's own signature."""
        return self.key.sign(message, ec.ECDSA(SHA256()))

    def issue(
        self, party: Identity, key: ec.EllipticCurvePublicKey, *, days: float = DAYS
    ) -> x509.Certificate:
        """A certificate for ``party``: its URI, its one use, and for the coordinator its host name."""
        serves = party.region is None
        names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(str(party))]
        if serves:
            names.append(x509.DNSName(identity.host_name(str(party))))
        use = ExtendedKeyUsageOID.SERVER_AUTH if serves else ExtendedKeyUsageOID.CLIENT_AUTH
        draft = _draft(self.certificate.subject, _name(party.region or "coordinator"), key, days=days)
        draft = draft.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        draft = draft.add_extension(_usage(signs=False), critical=True)
        draft = draft.add_extension(x509.ExtendedKeyUsage([use]), critical=True)
        draft = draft.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return draft.sign(self.key, SHA256())


def check(certificate: x509.Certificate, *, root: x509.Certificate, party: Identity) -> None:
    """IdentityError unless ``root`` signed ``certificate`` for ``party`` and it is valid now."""
    try:
        certificate.verify_directly_issued_by(root)
    except (InvalidSignature, ValueError, TypeError):
        raise IdentityError(
            "certificate", got="one of another authority", expected="this federation's"
        ) from None
    if identity.identify(certificate) != party:
        raise IdentityError("certificate", got="another party's", expected=party)
    identity.demand_valid(certificate)


def is_signed(signature: bytes, message: bytes, root: x509.Certificate) -> bool:
    """Whether ``root`` signed ``message``."""
    key = root.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey):
        return False
    try:
        key.verify(signature, message, ec.ECDSA(SHA256()))
    except InvalidSignature:
        return False
    return True


def new_key() -> ec.EllipticCurvePrivateKey:
    """A new TLS key (P-256)."""
    return ec.generate_private_key(ec.SECP256R1())


def request(key: ec.EllipticCurvePrivateKey) -> bytes:
    """A signing request for ``key`` in DER; it contains nothing but the key."""
    draft = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return draft.sign(key, SHA256()).public_bytes(Encoding.DER)


def requested_key(request: bytes) -> ec.EllipticCurvePublicKey:
    """The key that ``request`` asks a certificate for and was signed with. Else RefusedError."""
    try:
        read = x509.load_der_x509_csr(request) if len(request) <= MAX_REQUEST else None
        if read is not None and read.is_signature_valid:
            key = read.public_key()
            if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1):
                return key
    except (ValueError, TypeError, UnsupportedAlgorithm, InvalidSignature):
        pass
    raise RefusedError("signing request", got="another content", expected="PKCS #10 by its own P-256 key")


def write_key(key: ec.EllipticCurvePrivateKey, path: Path) -> None:
    """Keep a private key in a new file that only its owner can read."""
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(pem)
        file.flush()
        os.fsync(file.fileno())


def read_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """The private key in ``path``. NotReadyError where there is none, or others may read it."""
    try:
        if path.stat().st_mode & 0o077:
            raise NotReadyError(
                path.name, got="a key readable by others", expected="mode 0600", hint=f"chmod 600 {path}"
            )
        key = load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise NotReadyError(
            str(path),
            got="no file or no key of this kind",
            expected="a P-256 key in PEM",
            hint="restore it from a backup; a region gets a new key pair with a new invitation",
        )
    return key


def write_certificate(certificate: x509.Certificate, path: Path) -> None:
    """Keep a certificate in PEM."""
    write_whole(path, certificate.public_bytes(Encoding.PEM))


def _draft(
    issuer: x509.Name, subject: x509.Name, key: ec.EllipticCurvePublicKey, *, days: float
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder(issuer_name=issuer, subject_name=subject, public_key=key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _EARLY)
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        key_cert_sign=signs,
        crl_sign=signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])
