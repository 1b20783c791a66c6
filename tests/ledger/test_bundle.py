"""The archive: one spelling, every byte watched, nothing of it trusted."""

from __future__ import annotations

import hashlib
import zipfile

import ledger_kit as kit
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedfsd import canonical
from fedfsd.errors import FormatError
from fedfsd.ledger import bundle, entry
from fedfsd.ledger.error import EvidenceError

PLAN = kit.plan_of(rounds=3)


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundle")
    ledger = kit.ready(folder, PLAN)
    kit.run_round(ledger, PLAN, 1)
    ledger.checkpoint()
    kit.run_round(ledger, PLAN, 2)
    ledger.bundle(folder / "EU.zip")
    return folder / "EU.zip"


def packed(path, members: dict[str, bytes], **options) -> bytes:
    """Members as Python's own writer packs them in the format's way."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            info.create_system, info.external_attr = 3, 0o100600 << 16
            archive.writestr(info, content, **options)
    return path.read_bytes()


def unpacked(path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_a_bundle_holds_everything(archive):
    found = bundle.read(archive)
    entries = [entry.parse(content) for content in found.entries()]
    assert [one.seq for one in entries] == list(range(7)) == list(range(found.manifest.size))
    assert (found.manifest.region, found.manifest.ledger) == ("EU", "0" * 32)
    assert [(epoch, size) for epoch, size, _ in found.checkpoints] == [(0, 5), (0, 7)]


def test_every_tool_can_unpack_it_and_pack_it_again(archive, tmp_path):
    with zipfile.ZipFile(archive) as opened:
        assert opened.testzip() is None
        names = opened.namelist()
    assert names == [
        "bundle.json",
        "checkpoints/0000-0000000005.note",
        "checkpoints/0000-0000000007.note",
        "entries.jsonl",
    ]
    assert packed(tmp_path / "again.zip", unpacked(archive)) == archive.read_bytes()


def test_a_bundle_is_the_same_bytes_each_time(archive, tmp_path):
    ledger = kit.reopen(archive.parent)
    ledger.bundle(tmp_path / "again.zip")
    assert (tmp_path / "again.zip").read_bytes() == archive.read_bytes()


def test_every_flipped_byte_is_found(archive, tmp_path):
    content = archive.read_bytes()
    for where in range(0, len(content), 3):
        changed = bytearray(content)
        changed[where] ^= 1 << where % 8
        (tmp_path / "x.zip").write_bytes(changed)
        with pytest.raises(EvidenceError):
            bundle.read(tmp_path / "x.zip")


@given(st.data())
def test_cut_and_padded_archives_are_found(archive, tmp_path_factory, data):
    content = archive.read_bytes()
    where = data.draw(st.integers(0, len(content)))
    more = data.draw(st.binary(max_size=20))
    less = data.draw(st.integers(0, 20))
    changed = content[:where] + more + content[where + less :]
    path = tmp_path_factory.getbasetemp() / "cut.zip"
    path.write_bytes(changed)
    if changed != content:
        with pytest.raises(EvidenceError):
            bundle.read(path)


def consistent(members: dict[str, bytes]) -> dict[str, bytes]:
    """Members with a manifest that agrees with them."""
    files = {
        name: {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        for name, content in members.items()
    }
    manifest = {
        "format": 1,
        "kind": "fedfsd-bundle",
        "region": "EU",
        "ledger": "0" * 32,
        "size": 7,
        "files": files,
    }
    return {"bundle.json": canonical.encode(manifest), **members}


@pytest.mark.parametrize(
    "name",
    ["../evil", "/etc/passwd", "checkpoints/../../x.note", "checkpoints/1.note", "other", "ä"],
)
def test_other_names_are_refused(tmp_path, name):
    packed(tmp_path / "x.zip", consistent({name: b"x", "entries.jsonl": b"{}\n"}))
    with pytest.raises(EvidenceError, match="another file"):
        bundle.read(tmp_path / "x.zip")


def test_newer_formats_bombs_and_other_files_are_refused(tmp_path, archive):
    path = tmp_path / "x.zip"
    members = unpacked(archive)
    newer = {**members, "bundle.json": members["bundle.json"].replace(b'"format":1', b'"format":2')}
    packed(path, newer)
    with pytest.raises(FormatError, match="format 2"):
        bundle.read(path)
    packed(path, consistent({"entries.jsonl": b"0" * 10**7}), compress_type=zipfile.ZIP_DEFLATED)
    with pytest.raises(EvidenceError):
        bundle.read(path)
    packed(path, {"entries.jsonl": b"", **members})
    with pytest.raises(EvidenceError):
        bundle.read(path)
    for content in (b"", b"PK\x03\x04", b"PK" * 100, b"\xff" * 1000):
        path.write_bytes(content)
        with pytest.raises(EvidenceError):
            bundle.read(path)
    with pytest.raises(EvidenceError):
        bundle.read(tmp_path / "absent.zip")
    with pytest.raises(EvidenceError):
        bundle.read(tmp_path)
    with path.open("wb") as file:
        file.truncate(2**30 + 1)
    with pytest.raises(EvidenceError, match="at most"):
        bundle.read(path)


def test_lines_without_end_are_refused(tmp_path):
    path = tmp_path / "x.zip"
    packed(path, consistent({"entries.jsonl": b"{}\n{}"}))
    found = bundle.read(path)
    with pytest.raises(EvidenceError, match="line"):
        list(found.entries())
