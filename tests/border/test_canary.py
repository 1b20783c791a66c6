"""The search itself: every spelling planted is found, and chance finds nothing."""

import base64
import bz2
import gzip
import io
import lzma
import zipfile
import zlib

import numpy as np
import pytest
from border import canary

from fedfsd.border import border_pb2 as pb

TEXT = "Kestrel7Marlin4Ibis"
POINTS = np.random.default_rng(7).uniform(1000, 60000, (6, 2))
SEARCH = canary.Search(canary.text(TEXT) | canary.track(POINTS, "canary drive"))
NOISE = np.random.default_rng(1).bytes(5000)


def planted(content: bytes, shift: int = 0) -> bytes:
    return NOISE[: 1000 + shift] + content + NOISE[1000:]


def zipped(content: bytes, name: str = "rows.bin") -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)
    return file.getvalue()


PACKERS = {
    "gzip": gzip.compress,
    "zlib": zlib.compress,
    "zip": zipped,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "gzip in zip": lambda content: zipped(gzip.compress(content)),
    "gzip in base64": lambda content: base64.b64encode(gzip.compress(content)),
    "zlib in hex": lambda content: zlib.compress(content).hex().encode(),
    "zip in gzip in zlib": lambda content: zlib.compress(gzip.compress(zipped(content))),
}
SPELLINGS = {
    "plain": lambda content: content,
    "hex": lambda content: content.hex().encode(),
    "HEX": lambda content: content.hex().upper().encode(),
    "base64": lambda content: base64.b64encode(content),
    "base64 after one": lambda content: base64.b64encode(b"." + content),
    "base64 after two": lambda content: base64.b64encode(b".." + content),
    "urlsafe": lambda content: base64.urlsafe_b64encode(content),
}
TEXTS = {encoding: TEXT.encode(encoding) for encoding in ("utf-8", "utf-16-le", "utf-16-be")}
NUMBERS = {
    f"{kind}{order} {layout}": values.astype(f"{order}{kind}").tobytes()
    for kind in ("f2", "f4", "f8")
    for order in "<>"
    for layout, values in (("rows", POINTS), ("column", POINTS[:, 1]))
}
NUMBERS["f8 that were f4"] = POINTS.astype("f4").astype("f8").tobytes()
NUMBERS["bfloat16"] = (POINTS.astype("f4").view("u4") + 0x8000 >> 16).astype("<u2").tobytes()


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("shift", range(4))
def test_every_spelling_is_found_at_any_offset(spelling: str, shift: int):
    for name, content in (TEXTS | NUMBERS).items():
        assert SEARCH(planted(SPELLINGS[spelling](content), shift)), name


@pytest.mark.parametrize("packer", PACKERS)
def test_what_is_packed_is_found(packer: str):
    for name, content in (TEXTS | NUMBERS).items():
        found = SEARCH(planted(PACKERS[packer](planted(content))))
        assert any(" in " in one for one in found), name


@pytest.mark.skipif(
    all(name != "zstd" for name, *_ in canary._FORMATS), reason="this Python has no compression.zstd"
)
def test_zstd_is_found():
    from compression import zstd

    assert SEARCH(planted(zstd.compress(planted(TEXTS["utf-8"]))))


def test_part_of_a_drive_is_enough():
    assert SEARCH(planted(POINTS[2].astype("<f4").tobytes()))
    assert SEARCH(planted(POINTS[2:4].astype(">f2").tobytes()))
    assert SEARCH(planted(f"got x = {POINTS[3, 0]:.4f}".encode()))
    assert SEARCH(planted(f"got x = {np.float32(POINTS[3, 0])!r}".encode()))


def test_a_packed_content_that_was_cut_is_found():
    packed = gzip.compress(TEXT.encode() + NOISE)
    assert SEARCH(planted(packed[: len(packed) // 2]))


def test_rows_spread_over_chunks_and_numbers_are_found():
    raw = POINTS.astype("<f4").tobytes()
    pieces = [pb.Chunk(sha256=bytes(32), content=raw[at : at + 3]) for at in range(0, len(raw), 3)]
    messages = [piece.SerializeToString() for piece in pieces]
    assert not SEARCH(b"".join(messages))
    assert any(SEARCH(field) for field in canary.fields(messages))
    bits = POINTS[:, 0].astype("<f8").view("<u8")
    hidden = [pb.Progress(offset=int(value)).SerializeToString() for value in bits]
    assert not SEARCH(b"".join(hidden))
    assert any(SEARCH(field) for field in canary.fields(hidden))


def test_fields_within_messages_are_joined():
    proof = [pb.Statement(seq=1, content=TEXT[:9].encode()), pb.Statement(seq=2, content=TEXT[9:].encode())]
    message = pb.Release(head=pb.Head(statements=proof)).SerializeToString()
    assert not SEARCH(message)
    assert any(SEARCH(field) for field in canary.fields([message]))
    assert list(canary.fields([b"\xff\xff\xff", b"\x0a\x7f", b"\x00"])) == []


def test_a_bomb_ends(monkeypatch):
    monkeypatch.setattr(canary, "_MOST", 2**20)
    bomb = gzip.compress(gzip.compress(bytes(2**24), 1), 1)
    assert max(len(inner) for _, inner in canary.unpacked(gzip.decompress(bomb))) < 2**23
    assert SEARCH(bomb) == []


def test_canaries_that_chance_would_meet_are_refused():
    for bad in ("short", "with space in it", "Müllerstrasse"):
        with pytest.raises(ValueError, match="letters and digits"):
            canary.text(bad)
    for bad in ([1.5, 2.5, 3.5], [1e5] * 4, [[1.0] * 4]):
        with pytest.raises(ValueError, match="four coordinates"):
            canary.numbers(bad, "few")
    with pytest.raises(ValueError, match="irregular"):
        canary.numbers([0.0, 1.0, 2.0, 3.0], "dull")


@pytest.mark.slow
def test_chance_finds_nothing():
    """100 MB of noise and of floats like a model's: see above how seldom chance meets a needle."""
    random = np.random.default_rng(3)
    for _ in range(3):
        assert SEARCH(random.bytes(2**24)) == []
    for kind in ("f4", "f8"):
        assert SEARCH(random.normal(0, 0.05, 2**22).astype(kind).tobytes()) == []
    assert SEARCH(bytes(2**20)) == []
