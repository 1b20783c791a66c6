"""The test sink: whatever way something leaks, both ends have recorded it, also of a child process."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from border import canary, crossing, recorder

from fedfsd.border import border_pb2 as pb
from fedfsd.border import rpc

TEXT = "Kestrel7Marlin4Ibis"
NEEDLES = canary.text(TEXT)
HASH = bytes(32)


class Leaky:
    """A coordinator that leaks where it is told to."""

    def __init__(self, way: str) -> None:
        self.way = way

    def Next(self, request: pb.Ready, context: grpc.ServicerContext) -> pb.Task:
        text = TEXT if self.way != "nothing" else "nothing"
        if self.way == "reply":
            return pb.Task(plan=pb.PlanOffer(plan=TEXT.encode(), size=3))
        if self.way == "unknown field":
            return pb.Task.FromString(b"\x9a\x06" + bytes([len(TEXT)]) + TEXT.encode())
        if self.way == "initial metadata":
            context.send_initial_metadata((("x-path", text),))
        if self.way == "trailing metadata":
            context.set_trailing_metadata((("x-path-bin", text.encode()),))
        if self.way == "details":
            context.abort(grpc.StatusCode.INTERNAL, text)
        if self.way == "exception":
            raise OSError(text)
        return pb.Task()

    def Fetch(self, request: pb.ArraysRequest, context: grpc.ServicerContext) -> Iterator[pb.Chunk]:
        for at in range(0, len(TEXT), 4):
            yield pb.Chunk(sha256=HASH, offset=at, content=TEXT[at : at + 4].encode())
        if self.way == "exception":
            raise OSError(TEXT)

    def Send(self, requests: Iterator[pb.Chunk], context: grpc.ServicerContext) -> pb.Progress:
        return pb.Progress(offset=sum(len(chunk.content) for chunk in requests))


@contextmanager
def stub(way: str) -> Iterator[Any]:
    """A connection to a leaky coordinator in this process."""
    pool = ThreadPoolExecutor(2)
    server = grpc.server(pool)
    rpc.add(server, Leaky(way))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield rpc.stub(channel)
    server.stop(0).wait()
    pool.shutdown()


def ends(folder: Path) -> set[str]:
    """Which ends have recorded the canary."""
    return {hit.rpartition(": ")[2].split()[0] for hit in crossing.found(folder, NEEDLES)}


REPLIES = ("reply", "unknown field", "initial metadata", "trailing metadata", "details", "exception")


@pytest.mark.parametrize("way", REPLIES)
def test_whatever_a_reply_brings_is_recorded_by_both_ends(tmp_path: Path, way: str):
    with recorder.installed(tmp_path), stub(way) as border:
        try:
            border.Next(pb.Ready(version=1), timeout=10)
        except grpc.RpcError:
            assert way in ("details", "exception")
    assert ends(tmp_path) == {"client", "server"}


REQUESTS: dict[str, Callable[[Any], object]] = {
    "request": lambda border: border.Next(
        pb.Ready.FromString(b"\x9a\x06" + bytes([len(TEXT)]) + TEXT.encode()), timeout=10
    ),
    "metadata": lambda border: border.Next(pb.Ready(), metadata=(("x-path", TEXT),), timeout=10),
    "future": lambda border: border.Next.future(
        pb.Ready(), metadata=(("x-path", TEXT),), timeout=10
    ).result(),
    "chunks": lambda border: border.Send(
        iter([pb.Chunk(content=TEXT[at : at + 4].encode()) for at in range(0, len(TEXT), 4)]), timeout=10
    ),
    "fetched": lambda border: list(border.Fetch(pb.ArraysRequest(), timeout=10)),
}


@pytest.mark.parametrize("way", REQUESTS)
def test_whatever_a_request_brings_is_recorded_by_both_ends(tmp_path: Path, way: str):
    with recorder.installed(tmp_path), stub("nothing") as border:
        REQUESTS[way](border)
    assert ends(tmp_path) == {"client", "server"}


def test_a_stream_that_breaks_is_recorded(tmp_path: Path):
    with recorder.installed(tmp_path), stub("exception") as border, pytest.raises(grpc.RpcError):
        list(border.Fetch(pb.ArraysRequest(), timeout=10))
    hits = crossing.found(tmp_path, NEEDLES)
    assert any("server" in hit and "status" in hit for hit in hits)
    assert any("client" in hit and "status" in hit for hit in hits)


def test_an_honest_call_is_recorded_and_clean(tmp_path: Path):
    with recorder.installed(tmp_path), stub("nothing") as border:
        border.Next(pb.Ready(version=1), timeout=10)
    records = recorder.read(tmp_path)
    kinds = {(one.side, one.kind) for one in records}
    sides, said = ("client", "server"), ("request", "reply", "metadata")
    assert {(side, kind) for side in sides for kind in said} <= kinds
    assert pb.Ready(version=1).SerializeToString() in [one.content for one in records]
    assert any(b"grpc-python" in one.content for one in records if one.kind == "metadata")
    assert crossing.found(tmp_path, NEEDLES) == []


def test_interceptors_see_and_add_what_they_do_and_it_is_recorded(tmp_path: Path):
    class Adding(grpc.UnaryUnaryClientInterceptor):
        def intercept_unary_unary(self, continuation, details, request):
            return continuation(details._replace(metadata=(("x-path", TEXT),)), request)

    with recorder.installed(tmp_path), stub("nothing") as border:
        inner = border.Next
        assert inner(pb.Ready(), timeout=10) == pb.Task()
    assert ends(tmp_path) == set()
    with recorder.installed(tmp_path):
        pool = ThreadPoolExecutor(1)
        server = grpc.server(pool)
        rpc.add(server, Leaky("nothing"))
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            rpc.stub(grpc.intercept_channel(channel, Adding())).Next(pb.Ready(), timeout=10)
        server.stop(0).wait()
        pool.shutdown()
    assert ends(tmp_path) == {"client", "server"}


def test_outside_the_fixture_nothing_is_recorded(tmp_path: Path):
    with recorder.installed(tmp_path):
        pass
    with stub("reply") as border:
        border.Next(pb.Ready(), timeout=10)
    assert recorder.read(tmp_path) == []


CHILD = """
import sys
assert "grpc" not in sys.modules
import grpc, os, signal
from fedfsd.border import border_pb2 as pb, rpc
channel = grpc.insecure_channel(f"127.0.0.1:{sys.argv[1]}")
rpc.stub(channel).Next(pb.Ready(), metadata=(("x-path", sys.argv[2]),), timeout=10)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_child_process_records_and_being_killed_loses_nothing(tmp_path: Path):
    pool = ThreadPoolExecutor(1)
    server = grpc.server(pool)
    rpc.add(server, Leaky("nothing"))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    child = subprocess.run(
        [sys.executable, "-c", CHILD, str(port), TEXT],
        env=recorder.environment(tmp_path, os.environ),
        capture_output=True,
        timeout=60,
    )
    server.stop(0).wait()
    pool.shutdown()
    assert child.returncode == -signal.SIGKILL, child.stderr.decode()
    assert ends(tmp_path) == {"client"}


def test_half_a_record_is_left_out(tmp_path: Path):
    one = recorder.Recorder(tmp_path)
    write = one.call("client", "/fedfsd.border.v1.Border/Next")
    write("request", b"whole")
    write("request", b"half of it")
    one.close()
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:-3])
    assert [record.content for record in recorder.read(tmp_path)] == [b"whole"]


def test_flowers_own_calls_are_left_out(tmp_path: Path):
    one = recorder.Recorder(tmp_path)
    assert one.call("client", "/flwr.proto.Fleet/PullMessages") is None
    one.close()
