"""The examples beside FORMAT.md, read by a second verifier that was written from that page alone.

It uses nothing of fedfsd: hashlib, json, decimal, an Ed25519 library and one for RFC 8785.
"""

from __future__ import annotations

import base64
import decimal
import hashlib
import io
import json
import math
import zipfile
from pathlib import Path

import pytest
import rfc8785
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

PATH = Path(__file__).parents[2] / "fedfsd" / "ledger" / "vectors" / "ledger.json"
VECTORS = json.loads(PATH.read_text())
ENTRIES = [json.loads(text) for text in VECTORS["entries"]]


def sha(*parts: bytes) -> bytes:
    return hashlib.sha256(b"".join(parts)).digest()


def root(leaves: list[bytes]) -> bytes:
    """RFC 9162, section 2.1.1."""
    if len(leaves) < 2:
        return sha(b"\x00", leaves[0]) if leaves else sha()
    k = 1 << (len(leaves) - 1).bit_length() - 1
    return sha(b"\x01", root(leaves[:k]), root(leaves[k:]))


def public(vkey: str) -> tuple[bytes, int, bytes]:
    """(key id, type, 32 bytes) of a verification key."""
    name, identity, material = vkey.split("+", 2)
    content = base64.b64decode(material)
    assert sha(name.encode(), b"\n", content)[:4].hex() == identity
    return bytes.fromhex(identity), content[0], content[1:]


def good(vkey: str, signature: bytes, message: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(public(vkey)[2]).verify(signature, message)
    except InvalidSignature:
        return False
    return True


def step_loss(q: float, sigma: float, alpha: int) -> int:
    """Section 5's formula."""
    with decimal.localcontext(decimal.Context(prec=80, Emin=-(10**9), Emax=10**9)):
        rate, spread = decimal.Decimal(q), decimal.Decimal(sigma)
        if q == 1:
            value = alpha / (2 * spread * spread)
        else:
            total = decimal.Decimal(0)
            for k in range(alpha + 1):
                weight = math.comb(alpha, k) * (1 - rate) ** (alpha - k) * rate**k
                total += weight * (k * (k - 1) / (2 * spread * spread)).exp()
            value = total.ln() / (alpha - 1)
        return max(1, math.ceil(value * 10**9))


def epsilon(rho: int, alpha: int, delta: float) -> float:
    return max(0.0, rho / 1e9 + math.log(1 - 1 / alpha) - math.log(delta * alpha) / (alpha - 1))


def message(entry: dict) -> bytes:
    return b"fedfsd/entry/v1\n" + rfc8785.dumps(
        {name: value for name, value in entry.items() if name not in ("seq", "signatures")}
    )


def verify(entries: list[dict]) -> dict[str, tuple[int, int]]:
    """Section 5 over a whole list: (spent, held) of every data set. AssertionError where a rule is broken."""
    first = entries[0]
    node, officer = first["node_key"], first["officer_key"]
    books, plans, rounds, approvals, rhos = {}, {}, {}, {}, {}
    for seq, entry in enumerate(entries):
        kind = entry["type"]
        assert entry["seq"] == seq
        assert (kind == "genesis") == (seq == 0)
        signatures = entry.get("signatures", {})
        if signatures.get("officer"):
            assert good(officer, bytes.fromhex(signatures["officer"]), message(entry)), seq
            assert entry["ledger"] == first["ledger"]
        else:
            assert not signatures or kind == "plan"
        if kind == "genesis":
            assert good(node, bytes.fromhex(signatures["node"]), message(entry))
        elif kind == "grant":
            live = books.get(entry["data_set"])
            assert entry["predecessor"] == (live["grant"]["seq"] if live else None)
            assert epsilon(entry["rho_max"], entry["alpha"], entry["delta"]) <= entry["epsilon"] + 1e-9
            if live is None or entry["disjoint"]:
                live = {"spent": 0, "held": 0, "plans": 0, "rounds": 0}
            else:
                assert live["grant"]["alpha"] == entry["alpha"]
            live = {**live, "grant": entry, "spent": live["spent"] + entry["carried_rho"]}
            assert live["spent"] + live["held"] <= entry["rho_max"]
            books[entry["data_set"]] = live
        elif kind == "approval":
            approvals[seq] = entry
        elif kind == "plan":
            (book,) = [one for one in books.values() if one["grant"]["seq"] == entry["grant"]]
            document, mine = entry["document"], entry["document"]["regions"][first["region"]]
            assert sha(rfc8785.dumps(document)).hex() == entry["plan"]
            event = {name: mine[name] for name in ("sample_rate", "max_grad_norm")}
            event |= {"unit": "vehicle", "adjacency": "zero-out"}
            steps, count = mine["local_steps"], document["num_rounds"]
            noise = mine.get("mechanism") or {"noise_multiplier": mine["noise_multiplier"]}
            assert entry["event"] == {**event, **noise, "steps": steps * count}
            assert entry["rounds"] == count
            assert entry.get("format", 1) == (2 if "kind" in noise else 1)
            sigmas = noise["noise_multipliers"] if "kind" in noise else [noise["noise_multiplier"]] * count
            assert noise.get("kind", "gaussian-by-round") == "gaussian-by-round"
            assert len(sigmas) == count
            losses = [
                step_loss(mine["sample_rate"], sigma, book["grant"]["alpha"]) * steps for sigma in sigmas
            ]
            assert entry["rho_round"] == (losses if "kind" in noise else losses[0])
            assert entry["rho"] == sum(losses)
            assert signatures["officer"] or entry["rho"] <= book["grant"]["plan_cap"]
            book["held"] += entry["rho"]
            assert book["spent"] + book["held"] <= book["grant"]["rho_max"]
            plans[entry["plan"]] = {**entry, "book": book["grant"]["data_set"], "open": True, "left": {}}
            for number, (sigma, loss) in enumerate(zip(sigmas, losses, strict=True), 1):
                rhos[entry["plan"], number] = {**event, "noise_multiplier": sigma, "steps": steps}
                plans[entry["plan"]]["left"][number] = loss
        elif kind == "reserve":
            plan = plans[entry["plan"]]
            book = books[plan["book"]]
            assert plan["open"]
            assert (entry["plan"], entry["round"]) not in rounds
            assert entry["event"] == rhos[entry["plan"], entry["round"]]
            assert entry["rho"] == plan["left"].pop(entry["round"])
            book["spent"] += entry["rho"]
            book["held"] -= entry["rho"]
            assert (entry["spent"], entry["held"]) == (book["spent"], book["held"])
            assert entry["grant"] == book["grant"]["seq"]
            assert entry["approval"] is not None or not book["grant"]["approval_required"]
            if entry["approval"] is not None:
                approval = approvals[entry["approval"]]
                assert approval["valid_from"] <= entry["date"] <= approval["valid_until"]
                assert approval["recipient"] == plan["recipient"]
            rounds[entry["plan"], entry["round"]] = entry
        elif kind == "release":
            plan, reserve = plans[entry["plan"]], rounds[entry["plan"], entry["round"]]
            assert entry["reserve"] == reserve["seq"]
            assert reserve["approval"] == entry["approval"]
            assert entry["bytes"] == plan["release_bytes"]
            assert entry["schema"] == sha(rfc8785.dumps(plan["document"]["model"]["arrays"])).hex()
        elif kind == "settle":
            plan = plans[entry["plan"]]
            books[plan["book"]]["held"] -= entry["freed"]
            plan["open"] = False
            assert entry["freed"] == sum(plan["left"].values())
        elif kind == "recover":
            assert entry["lost_size"] >= seq
            for charge in entry["charges"]:
                (book,) = [one for one in books.values() if one["grant"]["seq"] == charge["grant"]]
                full = book["grant"]["rho_max"] - book["spent"]
                assert charge["rho"] == (book["held"] if entry["reach"] == "rounds" else full)
                book["spent"], book["held"] = book["spent"] + charge["rho"], 0
        elif kind == "key-rotate":
            assert good(entry["key"], bytes.fromhex(signatures["new"]), message(entry))
            if entry["role"] == "node":
                assert good(node, bytes.fromhex(signatures["old"]), message(entry))
                node = entry["key"]
            else:
                officer = entry["key"]
        elif kind == "close":
            assert seq == len(entries) - 1
    return {label: (book["spent"], book["held"]) for label, book in books.items()}


KNOWN = {"entry": 2, "plan": 2}
"""The newest version of each that this second verifier would read."""


def is_newer(entry: dict) -> bool:
    """Section 10: whether a newer release wrote the entry, or the plan in it. Decided before all else."""
    plan = entry.get("document") if entry.get("type") == "plan" else None
    numbers = (("entry", entry.get("format")), ("plan", plan.get("format") if plan else None))
    return any(type(number) is int and number > KNOWN[what] for what, number in numbers)


def test_the_file_is_what_the_command_makes():
    import make_vectors

    assert make_vectors.vectors() == VECTORS


def test_every_type_of_entry_occurs():
    text = (PATH.parents[1] / "FORMAT.md").read_text()
    types = {entry["type"] for entry in ENTRIES}
    assert len(types) == 14
    assert all(f"### {name}:" in text or f"| `{name}` |" in text for name in types)


def test_no_entry_of_the_example_is_newer():
    assert not any(map(is_newer, ENTRIES))


@pytest.mark.parametrize("case", VECTORS["newer"], ids=lambda case: case["answer"])
def test_the_number_is_read_before_anything_else(case):
    assert is_newer(json.loads(case["line"])) == (case["answer"] == "cannot decide")
    text = case["line"].encode()
    assert rfc8785.dumps(json.loads(text)) == text


def test_entries_are_canonical_and_hash_to_the_roots():
    contents = [text.encode() for text in VECTORS["entries"]]
    assert [rfc8785.dumps(entry) for entry in ENTRIES] == contents
    assert [sha(b"\x00", content).hex() for content in contents] == VECTORS["entry_hashes"]
    assert [root(contents[:size]).hex() for size in range(len(contents) + 1)] == VECTORS["roots"]


def test_the_second_verifier_accepts_the_ledger():
    ((spent, held),) = verify(ENTRIES).values()
    assert held == 0
    assert spent == sum(e["rho"] for e in ENTRIES if e["type"] == "reserve") + sum(
        charge["rho"] for e in ENTRIES if e["type"] == "recover" for charge in e["charges"]
    )


def test_the_second_verifier_accepts_noise_by_round():
    entries = [json.loads(text) for text in VECTORS["by_round"]]
    assert [rfc8785.dumps(entry).decode() for entry in entries] == VECTORS["by_round"]
    ((spent, held),) = verify(entries).values()
    assert held == 0
    booked = [entry["rho"] for entry in entries if entry["type"] == "reserve"]
    assert spent == sum(booked)
    assert len(set(booked)) == 2


@pytest.mark.parametrize("round", [1, 2, 3, 4])
def test_the_second_verifier_misses_no_change_of_a_rounds_noise(round):
    entries = [json.loads(text) for text in VECTORS["by_round"]]
    plan = next(entry for entry in entries if entry["type"] == "plan")
    plan["event"]["noise_multipliers"][round - 1] += 0.5
    with pytest.raises(AssertionError):
        verify(entries)


COUNTED = ("genesis", "grant", "approval", "plan", "reserve", "settle", "key-rotate")


@pytest.mark.parametrize("seq", [entry["seq"] for entry in ENTRIES if entry["type"] in COUNTED])
def test_the_second_verifier_misses_no_entry_that_later_ones_rest_on(seq):
    left = [*ENTRIES[:seq], *({**entry, "seq": entry["seq"] - 1} for entry in ENTRIES[seq + 1 :])]
    with pytest.raises((AssertionError, KeyError, ValueError)):
        verify(left)


def test_checkpoints_are_signed_by_the_key_in_force():
    keys = [line.split(" ")[1] for line in VECTORS["trust"].splitlines()]
    first, second, _, _, witness = keys
    origin = first.split("+")[0]
    heads = [(10, first, origin), (16, second, origin), (18, second, origin + "/1")]
    for text, (size, vkey, name) in zip(VECTORS["checkpoints"], heads, strict=True):
        body, _, lines = text.rpartition("\n\n")
        body += "\n"
        assert (
            body
            == f"{name}\n{size}\n" + base64.b64encode(bytes.fromhex(VECTORS["roots"][size])).decode() + "\n"
        )
        for line in lines.splitlines():
            dash, signer, encoded = line.split(" ")
            content = base64.b64decode(encoded)
            by = witness if signer == "witness/one" else vkey
            assert (dash, content[:4]) == ("—", public(by)[0])
            if public(by)[1] == 1:
                assert signer == origin
                assert good(by, content[4:], body.encode())
            else:
                seconds = int.from_bytes(content[4:12], "big")
                assert good(by, content[12:], f"cosignature/v1\ntime {seconds}\n{body}".encode())


def test_losses_are_those_of_the_formula():
    for case in VECTORS["losses"]:
        step = step_loss(case["sample_rate"], case["noise_multiplier"], case["alpha"])
        assert case["rho"] == step * case["steps"]
        assert case["epsilon_at_delta_1e-5"] == pytest.approx(
            epsilon(case["rho"], case["alpha"], 1e-5), abs=1e-9
        )


def test_receipts_and_bundle_agree_with_the_ledger():
    receipts = json.loads(VECTORS["receipts"])
    signature = bytes.fromhex(receipts.pop("signature"))
    assert good(receipts["coordinator"], signature, b"fedfsd/receipts/v1\n" + rfc8785.dumps(receipts))
    (received,) = receipts["receipts"]
    release = next(entry for entry in ENTRIES if entry["type"] == "release")
    assert received["entry"] == VECTORS["entry_hashes"][release["seq"]]
    assert received["sha256"] == release["sha256"]
    with zipfile.ZipFile(io.BytesIO(base64.b64decode(VECTORS["bundle_base64"]))) as archive:
        manifest = json.loads(archive.read("bundle.json"))
        assert [*manifest["files"]] == archive.namelist()[1:]
        for name, member in manifest["files"].items():
            assert member["sha256"] == sha(archive.read(name)).hex()
        assert archive.read("entries.jsonl").decode().splitlines() == VECTORS["entries"]
        notes = [archive.read(name).decode() for name in archive.namelist()[1:-1]]
    assert notes == VECTORS["checkpoints"]
