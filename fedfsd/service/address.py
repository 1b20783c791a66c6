"""Where a gate listens and how the other one gets there: host and port (IPv6 in brackets), and a proxy.

>>> split("[2001:db8::7]:9443")
('2001:db8::7', 9443)
>>> join("2001:db8::7", 9443)
'[2001:db8::7]:9443'
"""

from __future__ import annotations

import base64
import ipaddress
import re
import socket
from contextlib import closing, suppress
from http.client import HTTPConnection, HTTPException
from typing import Annotated
from urllib.parse import unquote, urlsplit

from pydantic import AfterValidator, Field

from fedfsd.errors import ConfigError

Port = Annotated[int, Field(ge=0, le=65535)]
_NAME = re.compile(r"(?=.{1,253}$)[A-Za-z0-9_]([A-Za-z0-9_-]{0,62})(\.[A-Za-z0-9_]([A-Za-z0-9_-]{0,62}))*\.?")
_ANY = {"0.0.0.0": "127.0.0.1", "::": "::1"}


def host(text: str) -> str:
    """A name or an IP address, an IPv6 address without its brackets. ValueError for anything else."""
    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    with suppress(ValueError):
        if ":" in bare:
            return str(ipaddress.IPv6Address(bare))
        if bare == text and _NAME.fullmatch(bare):
            return bare
    raise ValueError("a host name, an IPv4 or an IPv6 address, without a port")


def split(address: str) -> tuple[str, int]:
    """Host and port of ``host:port``. ValueError for anything else."""
    name, _, port = address.rpartition(":")
    bracketed = name.startswith("[") == (":" in name)
    if not bracketed or not re.fullmatch(r"[0-9]{1,5}", port) or not 1 <= int(port) <= 65535:
        raise ValueError("host:port, an IPv6 address in brackets: [2001:db8::7]:9443")
    return host(name), int(port)


def join(name: str, port: int) -> str:
    """``host:port`` as others dial it."""
    return f"[{name}]:{port}" if ":" in name else f"{name}:{port}"


def _address_or_nothing(text: str) -> str:
    return join(*split(text)) if text else ""


def proxy(text: str) -> str:
    """An HTTP proxy's URL, or nothing. ConfigError, which does not repeat a password, for anything else."""
    with suppress(ValueError):
        parts = urlsplit(text)
        if not text or (parts.scheme == "http" and parts.hostname and parts.port and parts.path in ("", "/")):
            return text
    raise ConfigError(
        "border.proxy", got="another URL", expected="http://host:port or http://user:password@host:port"
    )


def of_proxy(proxy: str) -> str:
    """The host:port of a proxy's address."""
    parts = urlsplit(proxy)
    return join(parts.hostname or "", parts.port or 80)


Host = Annotated[str, AfterValidator(host)]
Address = Annotated[str, AfterValidator(_address_or_nothing)]
"""``host:port``, or nothing."""
Proxy = Annotated[str, AfterValidator(proxy)]
"""The address of an HTTP proxy that opens connections (CONNECT), or nothing."""


def from_here(listen: str) -> str:
    """Where a process of this machine reaches what listens on ``listen``."""
    return _ANY.get(listen, listen)


def may_listen(listen: str, port: int) -> bool:
    """Whether ``listen`` is of this machine, and ``port`` on it free (0: whatever the port)."""
    try:
        places = socket.getaddrinfo(listen, port, type=socket.SOCK_STREAM)
    except OSError:
        return False
    for family, kind, protocol, _, place in dict.fromkeys(places):
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(place)
            except OSError:
                return False
    return bool(places)


def knock(address: str, proxy: str = "", *, seconds: float) -> None:
    """Open a connection to ``address`` and close it.

    Raises:
        OSError: there is none; ValueError: no address.
    """
    name, port = split(address)
    if not proxy:
        socket.create_connection((name, port), timeout=seconds).close()
        return
    parts = urlsplit(proxy)
    with closing(HTTPConnection(parts.hostname or "", parts.port, timeout=seconds)) as connection:
        connection.set_tunnel(name, port, _authorization(parts.username, parts.password))
        try:
            connection.connect()
        except HTTPException as error:
            raise OSError(f"the proxy sent no HTTP ({type(error).__name__})") from None


def _authorization(user: str | None, password: str | None) -> dict[str, str]:
    if user is None:
        return {}
    pair = f"{unquote(user)}:{unquote(password or '')}".encode()
    return {"Proxy-Authorization": f"Basic {base64.b64encode(pair).decode()}"}
