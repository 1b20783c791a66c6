"""Addresses in every spelling that people use."""

from __future__ import annotations

import socket

import pytest
from connect_proxy import ConnectProxy
from hypothesis import given
from hypothesis import strategies as st

from fedfsd.errors import ConfigError
from fedfsd.service import address


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("fed.example.org", "fed.example.org"),
        ("gate_1", "gate_1"),
        ("10.1.2.3", "10.1.2.3"),
        ("::1", "::1"),
        ("[::1]", "::1"),
        ("[2001:DB8:0:0::7]", "2001:db8::7"),
        ("::", "::"),
    ],
)
def test_a_host_has_one_spelling(text, host):
    assert address.host(text) == host
    assert address.split(address.join(host, 9443)) == (host, 9443)


@pytest.mark.parametrize(
    "text", ["", "a:9443", "[a]", "[10.1.2.3]", "a b", "http://a", ":::1", "-a", "a" * 300]
)
def test_what_is_no_host(text):
    with pytest.raises(ValueError, match="without a port"):
        address.host(text)


@pytest.mark.parametrize("text", ["a", "a:", ":1", "a:0", "a:65536", "::1:9443", "[::1]", "a:1:2", "a:٣"])
def test_what_is_no_address(text):
    with pytest.raises(ValueError, match="host"):
        address.split(text)


@given(st.ip_addresses(), st.integers(1, 65535))
def test_what_was_joined_is_split_again(ip, port):
    assert address.split(address.join(address.host(str(ip)), port)) == (str(ip), port)


@pytest.mark.parametrize("listen", ["127.0.0.1", "::1", "::", "0.0.0.0", "localhost"])
def test_what_listens_is_reached_from_here(listen):
    assert address.may_listen(listen, 0)
    family = socket.AF_INET6 if ":" in listen else socket.AF_INET
    with socket.create_server((listen, 0), family=family) as server:
        port = server.getsockname()[1]
        assert not address.may_listen(listen, port)
        address.knock(address.join(address.from_here(listen), port), seconds=5)


def test_nobody_listens_at_an_address_of_another_machine():
    assert not address.may_listen("192.0.2.1", 0)
    assert not address.may_listen("nowhere.invalid", 0)


def test_through_a_proxy_that_alone_knows_the_name():
    with socket.create_server(("127.0.0.1", 0)) as server:
        proxy = ConnectProxy({"hub.invalid:9443": server.getsockname()}, authorization="Basic dTpwQHg=")
        inside = proxy.url.replace("//", "//u:p%40x@")
        try:
            address.knock("hub.invalid:9443", inside, seconds=5)
            assert address.of_proxy(inside) == proxy.url.removeprefix("http://")
            for way, target in ((proxy.url, "hub.invalid:9443"), (inside, "other.invalid:9443")):
                with pytest.raises(OSError, match=r"40[37]"):
                    address.knock(target, way, seconds=5)
        finally:
            proxy.close()


@pytest.mark.parametrize(
    "url", ["socks://a:1", "https://a:1", "a:1", "http://a", "http://a:x", "http://u:secret@a:1/x"]
)
def test_an_error_about_a_proxy_repeats_no_password(url):
    with pytest.raises(ConfigError) as refused:
        address.proxy(url)
    assert url not in str(refused.value)
    assert "secret" not in str(refused.value)
