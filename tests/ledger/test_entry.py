"""Entries: one spelling each, everything else refused without a traceback."""

from __future__ import annotations

import json
from importlib.resources import files

import ledger_kit as kit
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from setting import examples

from fedfsd import canonical
from fedfsd.errors import FormatError
from fedfsd.ledger import draft, entry
from fedfsd.ledger.entry import Mechanism, Reserve
from fedfsd.ledger.error import EvidenceError

RESERVE = Reserve(
    seq=7,
    plan="a" * 64,
    round=1,
    arrays="b" * 64,
    event=Mechanism(sample_rate=0.1, noise_multiplier=1.0, steps=4, max_grad_norm=1.0),
    rho=5,
    grant=1,
    spent=5,
    held=10,
    approval=None,
    date="2026-11-22",
)
RAW = entry.encode(RESERVE)


NEWER = json.loads((files("fedfsd.ledger") / "vectors" / "ledger.json").read_text())["newer"]


@pytest.mark.parametrize("case", NEWER, ids=lambda case: case["answer"])
def test_a_newer_format_is_no_damage(case):
    error = FormatError if case["answer"] == "cannot decide" else EvidenceError
    with pytest.raises(error) as refused:
        entry.parse(case["line"].encode(), place="entry 7")
    if error is FormatError:
        assert refused.value.place.startswith("entry 7")
        assert refused.value.got == "format 9"


@pytest.mark.parametrize(
    "content",
    [
        b'{"format":9',
        b'{"format":' + b"[" * 50_000,
        b'["format"]',
        b'{"format":' + b"9" * 5000 + b"}",
        b'"format"',
    ],
    ids=["cut", "deep", "list", "digits", "text"],
)
def test_what_only_looks_newer_is_malformed(content):
    with pytest.raises(EvidenceError):
        entry.parse(content)


def test_entries_come_back():
    assert entry.parse(RAW) == RESERVE
    genesis = draft.genesis(node=kit.NODE.verification, officer=kit.OFFICER.verification)
    signed = entry.sign(genesis, {"officer": kit.OFFICER, "node": kit.NODE})
    assert entry.parse(entry.encode(signed)) == signed
    assert entry.is_signed(signed, "officer", kit.OFFICER.verification)
    assert not entry.is_signed(signed, "officer", kit.NODE.verification)
    assert not entry.is_signed(genesis, "officer", kit.OFFICER.verification)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b"[" * 10**5,
        b'{"a":' * 10**5,
        RAW + b"\n",
        b" " + RAW,
        RAW.replace(b'"seq":7', b'"seq":7.0'),
        RAW.replace(b'"seq":7', b'"seq":07'),
        RAW.replace(b'"seq":7', b'"seq":-7'),
        RAW.replace(b'"seq":7', b'"seq":true'),
        RAW.replace(b'"seq":7', b'"seq":"7"'),
        RAW.replace(b'"seq":7', b'"seq":9007199254740992'),
        RAW.replace(b'"seq":7', b'"seq":' + b"9" * 10**5),
        RAW.replace(b'"seq":7', b'"seq":6,"seq":7'),
        RAW.replace(b'"seq":7', b'"seq":7,"more":1'),
        RAW.replace(b"0.1", b"NaN"),
        RAW.replace(b"0.1", b"1e-1"),
        RAW.replace(b"0.1", b"0.10"),
        RAW.replace(b"0.1", b"1e999"),
        RAW.replace(b"0.1", b"0"),
        RAW.replace(b"0.1", b"1.1"),
        RAW.replace(b"vehicle", b"window"),
        RAW.replace(b"reserve", b"reverse"),
        RAW.replace(b"2026-11-22", b"2026-13-22"),
        RAW.replace(b"2026-11-22", b"22.11.2026"),
        RAW.replace(b"a" * 64, b"A" * 64),
        RAW.replace(b"a" * 64, b"a" * 63),
        RAW.replace(b'"approval":null,', b""),
        b"\xff" + RAW,
        b"x" * (entry.MAX_ENTRY + 1),
    ],
)
def test_every_other_spelling_is_refused(content):
    with pytest.raises(EvidenceError):
        entry.parse(content)


def test_hidden_characters_are_refused():
    document = {"type": "incident", "seq": 1, "plan": None, "code": "other", "text": "plain"}
    entry.parse(canonical.encode(document))
    for text in ("a\nb", "a\x00", "\u202egnp", "zero\u200bwidth", "\u2028", "", "x" * 2001):
        with pytest.raises(EvidenceError):
            entry.parse(canonical.encode({**document, "text": text}))
    with pytest.raises(EvidenceError):
        entry.parse(b'{"code":"other","plan":null,"seq":1,"text":"\\ud800","type":"incident"}')


def test_errors_never_repeat_what_a_stranger_wrote():
    with pytest.raises(EvidenceError) as caught:
        entry.parse(RAW.replace(b'"seq":7', b'"seq":7,"\\u001b[31mred\\n":1'))
    assert "\x1b" not in str(caught.value)
    assert "\n" not in str(caught.value)


@settings(max_examples=examples(300))
@given(st.data())
def test_mutations_are_refused_or_mean_the_same(data):
    content = bytearray(RAW)
    for _ in range(data.draw(st.integers(1, 4))):
        where = data.draw(st.integers(0, len(content) - 1))
        content[where : where + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    try:
        found = entry.parse(bytes(content))
    except EvidenceError:
        return
    assert entry.encode(found) == bytes(content)
    assert json.loads(bytes(content))["seq"] == found.seq
