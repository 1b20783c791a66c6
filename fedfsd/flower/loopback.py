"""A certificate for 127.0.0.1, so that what the SuperLink hears on loopback is TLS with a key of our own."""

from __future__ import annotations

import datetime
import ipaddress
import os
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_YEARS = datetime.timedelta(days=3650)
_LEAST = datetime.timedelta(days=365)


def certify(root: Path, certificate: Path, key: Path) -> None:
    """Write a root and a certificate for 127.0.0.1 that it signed, with its key (0600); nothing else can be.

    Files that are good for another year stay. The root's key is thrown away.
    """
    now = datetime.datetime.now(datetime.UTC)
    if all(path.exists() for path in (root, certificate, key)):
        held = x509.load_pem_x509_certificate(certificate.read_bytes())
        if held.not_valid_after_utc - now > _LEAST:
            return
    root_key, leaf_key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    root_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "fedfsd loopback root")])
    leaf_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    made = _builder(root_name, root_name, root_key, root_key, now, is_root=True).sign(
        root_key, hashes.SHA256()
    )
    leaf = (
        _builder(leaf_name, root_name, leaf_key, root_key, now, is_root=False)
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
        )
        .sign(root_key, hashes.SHA256())
    )
    _write(
        key,
        leaf_key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ),
    )
    _write(root, made.public_bytes(serialization.Encoding.PEM))
    _write(certificate, leaf.public_bytes(serialization.Encoding.PEM))


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    issuer_key: ec.EllipticCurvePrivateKey,
    now: datetime.datetime,
    *,
    is_root: bool,
) -> x509.CertificateBuilder:
    usage = {"digital_signature": not is_root, "key_cert_sign": is_root, "crl_sign": is_root}
    rest = ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement")
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + _YEARS)
        .add_extension(x509.BasicConstraints(ca=is_root, path_length=0 if is_root else None), critical=True)
        .add_extension(
            x509.KeyUsage(**usage, **dict.fromkeys(rest, False), encipher_only=False, decipher_only=False),
            critical=True,
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False
        )
    )


def _write(path: Path, content: bytes) -> None:
    """Whole or not at all, and for the owner alone."""
    half = path.with_name(path.name + ".part")
    descriptor = os.open(half, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    half.replace(path)
