"""Whose a certificate is, and whether it may be used.

A certificate names one URI, ``fedfsd://FEDERATION/coordinator`` or ``fedfsd://FEDERATION/region/NAME``, and
one use: the coordinator serves, a region calls. gRPC compares host names only; so the coordinator's carries
also a name made from its URI, which no other certificate of the federation's authority has.

>>> str(coordinator("roads")), str(region("roads", "EU"))
('fedfsd://roads/coordinator', 'fedfsd://roads/region/EU')
>>> host_name("fedfsd://roads/coordinator")
'b0ff0339569ac0d3c062.fedfsd'
"""

from __future__ import annotations

import datetime
import hashlib
import re
from dataclasses import dataclass
from functools import lru_cache

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from fedfsd.errors import NotReadyError, RefusedError

RENEW_DAYS, WARN_DAYS = 30, 21
"""Below how many days a certificate is renewed, and people are told that it was not."""
_NAME = "[A-Za-z][A-Za-z0-9_-]{0,31}"
_URI = re.compile(f"fedfsd://({_NAME})/(?:coordinator|region/({_NAME}))")


class IdentityError(RefusedError):
    """A certificate that does not allow what it is used for."""


@dataclass(frozen=True)
class Identity:
    """One party of one federation; ``region`` is None for the coordinator."""

    federation: str
    region: str | None = None

    def __str__(self) -> str:
        return f"fedfsd://{self.federation}/" + (f"region/{self.region}" if self.region else "coordinator")


def coordinator(federation: str) -> Identity:
    """The coordinator of a federation."""
    return Identity(federation)


def region(federation: str, name: str) -> Identity:
    """A region of a federation."""
    return Identity(federation, name)


def host_name(uri: str) -> str:
    """The DNS name used for ``uri`` where only DNS names are compared."""
    return hashlib.sha256(uri.encode()).hexdigest()[:20] + ".fedfsd"


@lru_cache(maxsize=256)
def read(pem: bytes) -> x509.Certificate:
    """The first certificate in ``pem``. NotReadyError for anything else."""
    try:
        return x509.load_pem_x509_certificate(pem)
    except ValueError:
        raise NotReadyError("certificate", got="no certificate", expected="one in PEM") from None


def identify(certificate: x509.Certificate) -> Identity:
    """The party named in ``certificate``; TLS or ``authority.check`` checks its signature.

    Raises:
        IdentityError: not one URI of a federation, a use that is not the party's, or another type of key.
    """
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        uses = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        found = [_URI.fullmatch(uri) for uri in names.get_values_for_type(x509.UniformResourceIdentifier)]
    except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError):
        found, uses = [], x509.ExtendedKeyUsage([ExtendedKeyUsageOID.TIME_STAMPING])
    if len(found) != 1 or found[0] is None:
        raise IdentityError("certificate", got="no URI of a federation", expected="fedfsd://FEDERATION/...")
    identity = Identity(found[0][1], found[0][2])
    serves = identity.region is None
    use = ExtendedKeyUsageOID.SERVER_AUTH if serves else ExtendedKeyUsageOID.CLIENT_AUTH
    if list(uses) != [use] or not isinstance(certificate.public_key(), ec.EllipticCurvePublicKey):
        raise IdentityError(
            "certificate",
            got="a different use or key type",
            expected="the coordinator to serve, a region to call",
        )
    return identity


def demand_valid(certificate: x509.Certificate, *, now: datetime.datetime | None = None) -> None:
    """IdentityError where ``certificate`` is not valid ``now``, by this machine's clock."""
    now = now or datetime.datetime.now(datetime.UTC)
    if not certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc:
        raise IdentityError(
            "certificate", got="an expired certificate, or one not valid yet", expected="a valid one"
        )


def days_left(certificate: x509.Certificate, *, now: datetime.datetime | None = None) -> int:
    """Whole days until ``certificate`` expires; negative afterwards."""
    return (certificate.not_valid_after_utc - (now or datetime.datetime.now(datetime.UTC))).days


def ago(certificate: x509.Certificate, now: datetime.datetime) -> str:
    """How long ago ``certificate`` expired, in words.

    >>> print(_span(datetime.timedelta(days=6, hours=3)), _span(datetime.timedelta(minutes=61)), sep="; ")
    6 days; 1 hour
    """
    return f"{_span(now - certificate.not_valid_after_utc)} ago"


def _span(passed: datetime.timedelta) -> str:
    hours = int(passed.total_seconds() // 3600)
    count, unit = (hours // 24, "day") if hours >= 24 else (hours, "hour")
    if count < 1:
        return "less than an hour"
    return f"{count} {unit}{'' if count == 1 else 's'}"


def fingerprint(content: bytes | x509.Certificate) -> str:
    """SHA-256 in groups that can be compared by phone; of a certificate, that of its DER."""
    der = content if isinstance(content, bytes) else content.public_bytes(Encoding.DER)
    digest = hashlib.sha256(der).hexdigest()
    return "-".join(digest[start : start + 8] for start in range(0, 64, 8))


def same_fingerprint(said: str, fingerprint: str) -> bool:
    """Whether a person's ``said`` is ``fingerprint``, however they grouped it."""
    return re.sub("[-: ]", "", said.strip().lower()) == fingerprint.replace("-", "")
