"""Receipts and trust files: written once, changed never."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedfsd import canonical
from fedfsd.errors import ConfigError
from fedfsd.ledger import receipt
from fedfsd.ledger.error import EvidenceError
from fedfsd.ledger.key import SigningKey
from fedfsd.ledger.receipt import Receipt, Trust

HUB = SigningKey.from_seed("fedfsd/coordinator/hub", b"h" * 32)
PLAN = "a" * 64


def one(round: int, **changed: object) -> Receipt:
    values = {
        "region": "EU",
        "plan": PLAN,
        "round": round,
        "entry": "e" * 64,
        "sha256": "f" * 64,
        "bytes": 20,
    }
    return Receipt(**{**values, **changed})


CONTENT = receipt.write("run 1", [PLAN], [one(2), one(1), one(1, region="CN")], HUB)


def test_receipts_come_back_in_order():
    found = receipt.read(CONTENT)
    assert [one.place for one in found.receipts] == [("CN", PLAN, 1), ("EU", PLAN, 1), ("EU", PLAN, 2)]
    assert (found.run, found.plans, found.coordinator) == ("run 1", (PLAN,), str(HUB.verification))
    with pytest.raises(ConfigError):
        receipt.write("two\nlines", [], [], HUB)


@given(st.integers(0, len(CONTENT) - 1), st.integers(0, 255))
def test_every_changed_byte_is_found(where, value):
    changed = bytearray(CONTENT)
    changed[where] = value
    if bytes(changed) != CONTENT:
        with pytest.raises(EvidenceError):
            receipt.read(bytes(changed))


@pytest.mark.parametrize(
    "receipts",
    [[one(1), one(1)], [one(1), one(1, sha256="0" * 64)], [one(1, plan="b" * 64)]],
)
def test_signed_nonsense_is_refused_too(receipts):
    with pytest.raises(EvidenceError):
        receipt.read(receipt.write("run", [PLAN], receipts, HUB))


def test_receipts_out_of_order_are_refused():
    document = json.loads(CONTENT)
    document["receipts"].reverse()
    del document["signature"]
    signature = HUB.sign(b"fedfsd/receipts/v1\n" + canonical.encode(document)).hex()
    with pytest.raises(EvidenceError, match="order"):
        receipt.read(canonical.encode({**document, "signature": signature}))


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", CONTENT + b"\n", CONTENT[:-1], b"{" * 10**6])
def test_other_files_are_no_receipts(content):
    with pytest.raises(EvidenceError):
        receipt.read(content)


def test_trust_files_name_keys_by_role():
    witness = SigningKey.from_seed("witness/one", b"w" * 32)
    trust = Trust((("coordinator", HUB.verification), ("witness", witness.cosigner)))
    read = receipt.read_trust(f"# by telephone\n\n{trust}".encode())
    assert read == trust
    assert read.of("witness") == (witness.cosigner,)
    assert read.of("node") == ()


@pytest.mark.parametrize(
    "line",
    [
        "hub " + str(HUB.verification),
        "node",
        "node x",
        f"witness {HUB.verification}",
        f"node {HUB.cosigner}",
        "\x00",
    ],
)
def test_other_lines_are_named(line):
    with pytest.raises(EvidenceError):
        receipt.read_trust(b"# comment\n" + line.encode() + b"\n")
    for content in (b"\xff", b"x" * 2**21):
        with pytest.raises(EvidenceError):
            receipt.read_trust(content)
