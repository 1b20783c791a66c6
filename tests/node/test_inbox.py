"""Arrays fetched in any pieces, cut anywhere: whole and right, or refused, and never more than announced."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st
from node.coordinator_fake import Status

from fedfsd.border import border_pb2 as pb
from fedfsd.border.wire import WireError
from fedfsd.node import inbox

CONTENT = bytes(range(256)) * 20
SHA256 = hashlib.sha256(CONTENT).digest()


class Pieces:
    """A line whose streams have these pieces and ends: (sizes of chunks, status or None) each."""

    def __init__(self, streams: list[tuple[list[int], grpc.StatusCode | None]]) -> None:
        self.streams = streams
        self.sent = 0

    def fetch(self, sha256: bytes, offset: int):
        sizes, status = self.streams.pop(0) if self.streams else ([len(CONTENT)], None)
        for size in sizes:
            content = CONTENT[offset : offset + size]
            if content:
                yield pb.Chunk(sha256=sha256, offset=offset, content=content)
                offset += len(content)
        if status is not None:
            raise Status(status)


CUTS = (None, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE)
STREAM = st.tuples(st.lists(st.integers(1, 2000), max_size=6), st.sampled_from(CUTS))


@given(st.lists(STREAM, max_size=8))
def test_in_any_pieces_with_any_cuts_it_comes_whole(streams):
    line = Pieces(streams)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "of an earlier round").touch()
        for _ in range(20):
            try:
                path = inbox.fetch(line, folder, sha256=SHA256, size=len(CONTENT))
                break
            except (WireError, grpc.RpcError):
                assert sum(one.stat().st_size for one in folder.iterdir()) <= len(CONTENT)
        assert path.read_bytes() == CONTENT
        assert list(folder.iterdir()) == [path]


def test_what_is_there_is_not_fetched_again(tmp_path):
    path = inbox.fetch(Pieces([]), tmp_path, sha256=SHA256, size=len(CONTENT))
    assert inbox.fetch(None, tmp_path, sha256=SHA256, size=len(CONTENT)) == path


def test_what_is_there_and_damaged_is_fetched_again(tmp_path):
    path = inbox.fetch(Pieces([]), tmp_path, sha256=SHA256, size=len(CONTENT))
    path.write_bytes(bytes(len(CONTENT)))
    assert inbox.fetch(Pieces([]), tmp_path, sha256=SHA256, size=len(CONTENT)).read_bytes() == CONTENT


def test_a_part_that_is_too_long_is_begun_anew(tmp_path):
    (tmp_path / f"{SHA256.hex()}.part").write_bytes(bytes(len(CONTENT) + 1))
    assert inbox.fetch(Pieces([]), tmp_path, sha256=SHA256, size=len(CONTENT)).read_bytes() == CONTENT


def test_a_part_that_was_damaged_is_thrown_away(tmp_path):
    (tmp_path / f"{SHA256.hex()}.part").write_bytes(bytes(1000))
    with pytest.raises(WireError, match="a different SHA-256"):
        inbox.fetch(Pieces([]), tmp_path, sha256=SHA256, size=len(CONTENT))
    assert inbox.fetch(Pieces([]), tmp_path, sha256=SHA256, size=len(CONTENT)).read_bytes() == CONTENT
