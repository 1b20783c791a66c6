"""Files that were made to break a reader: a finding or a refusal with its code, and little memory."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path

import pytest
from forge import Forge, outcomes, receipts, texts, trust

from fedfsd.audit.evidence import load
from fedfsd.audit.trust import read
from fedfsd.audit.verify import verify
from fedfsd.errors import ConfigError, NotReadyError
from fedfsd.ledger import bundle, merkle, note

DEEP = 50_000


@pytest.fixture(scope="module")
def forge() -> Forge:
    made = Forge()
    made.story()
    return made


def verified(path: Path) -> tuple[str, int]:
    report = verify(load([path]))
    return report.headline, report.exit_code


def zipped(path: Path, members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def members(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.mark.parametrize(
    "content",
    [b"", b"PK", b"PK\x03\x04", b"PK\x05\x06" + b"\0" * 18, b"{}", os.urandom(4096), b"\0" * 4096],
    ids=["empty", "PK", "header", "no members", "json", "noise", "zeros"],
)
def test_a_file_that_is_no_bundle(tmp_path, content):
    path = tmp_path / "x.zip"
    path.write_bytes(content)
    assert verified(path) == ("contradicted: archive", 10)


@pytest.mark.parametrize(
    "name", ["../../evil", "/etc/passwd", "entries.jsonl/../x", "checkpoints/x.note", "C:\\x"]
)
def test_a_member_of_another_name(tmp_path, forge, name):
    honest = members(forge.bundle(tmp_path))
    manifest = json.loads(honest["bundle.json"])
    manifest["files"][name] = {"bytes": 1, "sha256": "0" * 64}
    for table in (honest, {**honest, "bundle.json": json.dumps(manifest).encode()}):
        path = zipped(tmp_path / "evil.zip", {**table, name: b"x"})
        assert verified(path) == ("contradicted: archive", 10)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["EU.zip", "evil.zip"]


@pytest.mark.slow
def test_a_bomb(tmp_path, forge):
    honest = members(forge.bundle(tmp_path))
    path = zipped(tmp_path / "bomb.zip", {**honest, "entries.jsonl": b"\0" * 2**28}, zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 2**20
    assert peak(path) < 150


def test_gigabytes_declared(tmp_path, forge):
    content = bytearray(forge.bundle(tmp_path).read_bytes())
    path = tmp_path / "large.zip"
    for size in (2**31, 2**32 - 1):
        struct.pack_into("<LL", content, 18, size, size)
        path.write_bytes(content)
        assert verified(path) == ("contradicted: archive", 10)
    assert peak(path) < 150


def peak(path: Path) -> float:
    """MB that verifying a file takes, in a process of its own."""
    code = """
import sys
from pathlib import Path
from fedfsd.audit.evidence import load
from fedfsd.audit.verify import verify
assert verify(load([Path(sys.argv[1])])).exit_code == 10
print(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1])
"""
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True)
    return float(done.stdout) / 1024


def test_a_newer_format_cannot_be_decided(tmp_path, forge):
    content = forge.bundle(tmp_path).read_bytes().replace(b'"format":1', b'"format":2', 1)
    start = bundle._LOCAL.size + len(bundle.MANIFEST)
    length = struct.unpack_from("<L", content, 18)[0]
    crc = struct.pack("<L", zlib.crc32(content[start : start + length]))
    path = tmp_path / "newer.zip"
    path.write_bytes(content[:14] + crc + content[18:])
    assert verified(path) == ("cannot decide: archive", 11)


def test_a_damaged_bundle_does_not_hide_the_others(tmp_path, forge):
    (tmp_path / "bad.zip").write_bytes(b"PK")
    paths = [tmp_path / "bad.zip", forge.bundle(tmp_path)]
    report = verify(load(paths, receipts=receipts(tmp_path, forge), trust=trust(tmp_path, forge)))
    assert outcomes(report) == {"archive": "contradicted"}
    assert [one.name for one in report.parts[0].answers] == ["archive"]
    assert report.parts[1].answers


LINES = {
    "deep": b'{"document":' + b"[" * DEEP + b"]" * DEEP + b',"type":"plan"}',
    "deep objects": b'{"document":' + b'{"a":' * DEEP,
    "duplicate keys": b'{"code":"other","plan":null,"seq":8,"seq":8,"text":"x","type":"incident"}',
    "NaN": b'{"document":{"a":NaN},"type":"plan"}',
    "infinite": b'{"document":{"a":1e999},"type":"plan"}',
    "huge integer": b'{"document":{"a":' + b"9" * 10_000 + b'},"type":"plan"}',
    "surrogate": b'{"code":"other","plan":null,"seq":8,"text":"\\ud800","type":"incident"}',
    "control": b'{"code":"other","plan":null,"seq":8,"text":"\\u001b[2J","type":"incident"}',
    "white space": b'{"code":"other", "plan":null,"seq":8,"text":"x","type":"incident"}',
    "unknown type": b'{"seq":8,"type":"gift"}',
    "unknown field": b'{"code":"other","more":1,"plan":null,"seq":8,"text":"x","type":"incident"}',
    "negative": b'{"code":"other","plan":null,"seq":-8,"text":"x","type":"incident"}',
    "a float": b'{"code":"other","plan":null,"seq":8.0,"text":"x","type":"incident"}',
    "true": b'{"code":"other","plan":null,"seq":true,"text":"x","type":"incident"}',
    "no object": b"[]",
    "nothing": b"",
    "no text": b"\xff\xfe",
    "large": b'"' + b"x" * 5 * 2**20 + b'"',
}


@pytest.mark.parametrize("name", LINES)
def test_a_line_that_is_no_entry(tmp_path, forge, name):
    lines = [*forge.contents, LINES[name]]
    tree = merkle.Tree()
    for line in lines:
        tree.append(merkle.leaf_hash(line))
    head = note.sign(note.Checkpoint(forge.node.name, len(lines), tree.root()).text, [forge.node])
    path = tmp_path / "EU.zip"
    ledger = forge.entries[0].ledger
    bundle.write(path, region="EU", ledger=ledger, entries=lines, checkpoints=[(0, len(lines), head)])
    report = verify(load([path], receipts=receipts(tmp_path, forge), trust=trust(tmp_path, forge)))
    assert report.exit_code == 10
    assert {name for name, one in outcomes(report).items() if one == "contradicted"} <= {
        "entries",
        "rules",
        "archive",
    }
    assert "\x1b" not in texts(report, "entries")


def test_a_ledger_too_large_to_keep(tmp_path, forge):
    """A line may hold 4 MiB, which as empty lists would be a hundred times as much in memory."""
    path, ledger = tmp_path / "EU.zip", forge.entries[0].ledger
    line = b'{"document":[' + b"[]," * 100_000 + b'[]],"type":"plan"}'
    head = forge.head(8)
    lines = [*forge.contents, line]
    bundle.write(path, region="EU", ledger=ledger, entries=lines, checkpoints=[(0, 8, head)])
    assert verified(path) == ("cannot decide: archive", 11)


NOTES = {
    "empty": b"",
    "no signature": b"fedfsd/EU/x\n5\nAAAA\n\n",
    "huge size": b"fedfsd/EU/x\n" + b"9" * 400 + b"\nAAAA\n\n\xe2\x80\x94 a AAAA\n",
    "negative": b"fedfsd/EU/x\n-5\nAAAA\n\n\xe2\x80\x94 a AAAAAAAA\n",
    "many lines": b"fedfsd/EU/x\n5\nAAAA\n\n" + b"\xe2\x80\x94 a AAAAAAAA\n" * 1000,
    "no text": b"\xff" * 100,
    "large": b"x\n" * 2**20,
}


@pytest.mark.parametrize("name", NOTES)
def test_a_file_that_is_no_checkpoint(tmp_path, forge, name):
    path = tmp_path / "x.note"
    path.write_bytes(NOTES[name])
    report = verify(load([forge.bundle(tmp_path), path], trust=trust(tmp_path, forge)))
    assert outcomes(report) == {"heads": "cannot decide"}  # whoever kept it, the region did not sign it


@pytest.mark.parametrize(
    "content",
    [b"", b"{}", b"[]", b"\xff", b"[" * DEEP, b'{"format":1,"format":1}', b"NaN", b'{"format":0}'],
    ids=repr,
)
def test_a_file_that_is_no_receipts(tmp_path, forge, content):
    path = tmp_path / "receipts.json"
    path.write_bytes(content[:100] if len(content) > 100 else content)
    report = verify(load([forge.bundle(tmp_path)], receipts=path, trust=trust(tmp_path, forge)))
    assert outcomes(report) == {"coordinator": "contradicted"}


@pytest.mark.parametrize("change", ["twice", "backwards", "uncovered"])
def test_receipts_out_of_order(tmp_path, forge, change):
    from fedfsd.audit import receipt

    path = receipts(tmp_path, forge)
    rows = receipt.read(path).receipts
    changes = {
        "twice": {"receipts": (rows[0], *rows)},
        "backwards": {"receipts": rows[::-1]},
        "uncovered": {"plans": ()},
    }
    evidence = load([forge.bundle(tmp_path)], receipts=receipts(tmp_path, forge, **changes[change]))
    assert outcomes(verify(evidence))["coordinator"] == "contradicted"


@pytest.mark.parametrize(
    "line",
    [
        *(
            "node",
            "node x",
            "king KEY",
            "node\tKEY",
            " node KEY",
            "node  KEY",
            "node KEY ",
            "witness KEY",
            "KEY",
        ),
        "\x00",
        "\r",
        "node KEY\r",
        "node KEY\u2028node KEY",
    ],
)
def test_a_line_of_a_trust_file(tmp_path, forge, line):
    path = tmp_path / "trust.keys"
    path.write_bytes(f"# mine\n{line.replace('KEY', str(forge.node.verification))}\r\n".encode())
    with pytest.raises(ConfigError, match=r"trust\.keys line 2"):
        load([], trust=path)


def test_lines_of_a_trust_file(tmp_path, forge):
    """Written on another system, put together from several files, with nothing at its end."""
    key = forge.node.verification
    path = tmp_path / "trust.keys"
    path.write_bytes(f"# mine\r\n\r\nnode {key}\r\nnode {key}\nofficer {forge.officer.verification}".encode())
    assert read(path).keys == (("node", key), ("officer", forge.officer.verification))


@pytest.mark.parametrize("content", [b"\xff\xfe", b"#" * (2**20 + 1)], ids=["no text", "large"])
def test_a_file_that_is_no_trust_file(tmp_path, content):
    path = tmp_path / "trust.keys"
    path.write_bytes(content)
    with pytest.raises(ConfigError):
        load([], trust=path)


@pytest.mark.parametrize("option", ["bundle", "note", "receipts", "trust"])
@pytest.mark.parametrize("kind", ["folder", "pipe", "nothing"])
def test_what_is_no_file(tmp_path, option, kind):
    path = tmp_path / ("x.note" if option == "note" else "x")
    {"folder": path.mkdir, "pipe": lambda: os.mkfifo(path), "nothing": lambda: None}[kind]()
    with pytest.raises((NotReadyError, OSError)):
        load(
            [path] if option in ("bundle", "note") else [],
            **({option: path} if option in ("receipts", "trust") else {}),
        )


def test_an_error_never_shows_what_it_read(tmp_path, forge):
    path = tmp_path / "receipts.json"
    path.write_bytes(b'{"secret":"of the region"}')
    report = verify(load([forge.bundle(tmp_path)], receipts=path))
    assert "extra_forbidden" in texts(report, "coordinator") or "missing" in texts(report, "coordinator")
    assert "of the region" not in texts(report, "coordinator")
