"""The wire of the other tests here does what it says."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import closing

import pytest
from survival.relay import CUT, GOOD, SILENT, Relay, Wire


@pytest.fixture
def echo():
    """(relay, connect): what is sent through the relay comes back."""
    with closing(socket.create_server(("127.0.0.1", 0))) as server:

        def serve():
            while True:
                try:
                    one, _ = server.accept()
                except OSError:
                    return
                with one:
                    try:
                        while piece := one.recv(65536):
                            one.sendall(piece)
                    except OSError:
                        continue

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        relay = Relay(server.getsockname())
        host, port = relay.address.split(":")
        with closing(relay):
            yield relay, lambda: socket.create_connection((host, int(port)), timeout=10)
        server.shutdown(socket.SHUT_RDWR)
    thread.join()


def answer(one: socket.socket, content: bytes) -> bytes:
    sender = threading.Thread(target=one.sendall, args=(content,))
    sender.start()
    got = b""
    while len(got) < len(content) and (piece := one.recv(65536)):
        got += piece
    sender.join()
    return got


def test_a_good_wire_passes_everything(echo):
    _, connect = echo
    content = bytes(range(256)) * 2000
    with connect() as one:
        assert answer(one, content) == content


def test_a_lossy_wire_loses_nothing(echo):
    relay, connect = echo
    relay.wire = Wire(loss=0.05)
    content = bytes(range(256)) * 200
    with connect() as one:
        assert answer(one, content) == content


def test_delay_and_rate_are_what_they_are_set_to(echo):
    relay, connect = echo
    relay.wire = Wire(delay=0.1, bytes_per_second=100_000)
    with connect() as one:
        start = time.monotonic()
        answer(one, bytes(30_000))
        assert time.monotonic() - start > 0.45  # two ways, and three tenths for the bytes


def test_a_cut_wire_ends_connections_and_a_silent_one_holds_them(echo):
    relay, connect = echo
    with connect() as one:
        assert answer(one, b"1") == b"1"
        relay.wire = SILENT
        one.sendall(b"2")
        one.settimeout(0.3)
        with pytest.raises(TimeoutError):
            one.recv(1)
        relay.wire = GOOD
        one.settimeout(10)
        assert one.recv(1) == b"2"
        relay.wire = CUT
        with pytest.raises(ConnectionResetError):
            one.recv(1)
    with pytest.raises(ConnectionResetError), connect() as one:  # the call itself may be what is reset
        one.recv(1)
    relay.wire = GOOD
    with connect() as one:
        assert answer(one, b"4") == b"4"
