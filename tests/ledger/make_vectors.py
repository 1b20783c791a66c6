"""Make the examples that stand beside FORMAT.md, from keys that anybody may know:

python tests/ledger/make_vectors.py > fedfsd/ledger/vectors/ledger.json
"""

from __future__ import annotations

import base64
import json
import sys
import tempfile
from pathlib import Path

import ledger_kit as kit

from fedfsd import canonical
from fedfsd.audit.receipt import Receipt, Receipts, sign
from fedfsd.ledger import digest, draft, entry, note, strict
from fedfsd.ledger.entry import Close, KeyRotate
from fedfsd.ledger.key import SigningKey
from fedfsd.mechanism.event import Event
from fedfsd.mechanism.renyi import epsilon_lifetime, nano_nats

NEXT = SigningKey.from_seed(kit.NODE.name, b"m" * 32)
HUB = SigningKey.from_seed(kit.RECIPIENT, b"h" * 32)
WITNESS = SigningKey.from_seed("witness/one", b"w" * 32)
SECONDS = 1_800_000_000
FIRST, SECOND = kit.plan_of(rounds=3), kit.plan_of(rounds=2, noise=2.5, seed=1)
BY_ROUND = kit.plan_of(rounds=4, noise=(2.5, 2.5, 3.75, 6.0))


def ledger_of(folder: Path) -> tuple[list[str], Path, list[Receipt]]:
    """A ledger with an entry of every type: its checkpoints, its bundle and the coordinator's receipts."""
    ledger = kit.create(folder)
    kit.grant(ledger, approval_required=True, alpha=4)
    kit.approval(ledger)
    kit.approve(ledger, FIRST)
    booked = ledger.reserve(FIRST.hash, 1, kit.ARRAYS[1])
    sent = ledger.release(kit.update(booked), booked)
    received = Receipt(
        region=kit.REGION, plan=FIRST.hash, round=1, entry=sent.entry_hash, sha256=sent.sha256, bytes=20
    )
    ledger.abort(ledger.reserve(FIRST.hash, 2, kit.ARRAYS[2]), "operator")
    ledger.refuse(FIRST.hash, 1, "arrays")
    ledger.incident("software", "One round was given up after a disk failed.", plan_hash=FIRST.hash)
    checkpoints = [note.cosign(ledger.checkpoint(), WITNESS, seconds=SECONDS)]
    ledger.witness(checkpoints[0], [WITNESS.cosigner])
    turned = KeyRotate(ledger="0" * 32, role="node", key=str(NEXT.verification))
    ledger.rotate(entry.sign(turned, {"officer": kit.OFFICER, "new": NEXT, "old": kit.NODE}), NEXT)
    ledger.settle(FIRST.hash)
    kit.grant(ledger, epsilon=12.0, plan_cap=1)
    kit.approve(ledger, SECOND, officer=kit.OFFICER)
    ledger.reserve(SECOND.hash, 1, kit.ARRAYS[1])
    checkpoints.append(ledger.checkpoint())
    state = ledger.state
    ledger.add(kit.sign(draft.recover(state, lost_size=20, lost_root="ab" * 32, reach="rounds")))
    ledger.add(kit.sign(Close(ledger="0" * 32, reason="end of the example")))
    checkpoints.append(ledger.checkpoint())
    ledger.bundle(folder / "EU.zip")
    return checkpoints, folder / "EU.zip", [received]


def by_round() -> list[str]:
    """The entries of a second ledger, whose plan has noise of its own in every round and ends early."""
    with tempfile.TemporaryDirectory(dir=kit.MEMORY) as name:
        ledger = kit.create(Path(name))
        kit.grant(ledger, alpha=4)
        kit.approve(ledger, BY_ROUND)
        for number in (1, 3):
            booked = ledger.reserve(BY_ROUND.hash, number, kit.ARRAYS[number])
            ledger.release(kit.update(booked), booked)
        ledger.settle(BY_ROUND.hash)
        return [content.decode() for content in ledger._store.entries()]


def losses() -> list[dict[str, object]]:
    """Losses of single mechanisms in nano-nats, and what sums of them mean."""
    cases = [(0.1, 1.0, 1), (0.1, 1.0, 300), (0.05, 0.6, 10), (1.0, 5.0, 7), (1e-6, 50.0, 3), (0.3, 2.25, 4)]
    return [
        {
            "sample_rate": q,
            "noise_multiplier": sigma,
            "steps": steps,
            "alpha": alpha,
            "rho": nano_nats([Event(q, sigma, steps)], alpha),
            "epsilon_at_delta_1e-5": epsilon_lifetime(
                nano_nats([Event(q, sigma, steps)], alpha), alpha=alpha, delta=1e-5
            ),
        }
        for q, sigma, steps in cases
        for alpha in (2, 4, 64)
        if sigma >= 1 or alpha < 64
    ]


def newer(entries: list[str]) -> list[dict[str, object]]:
    """Lines in the place of an entry of the ledger, and what a verifier says of each."""
    incident = next(seq for seq, text in enumerate(entries) if '"type":"incident"' in text)
    plan = next(seq for seq, text in enumerate(entries) if '"type":"plan"' in text)
    document, without = (json.loads(entries[plan])["document"] | {"format": number} for number in (9, None))
    cases: list[tuple[int, dict[str, object], str]] = [
        (incident, {"format": 9}, "cannot decide"),
        (incident, {"format": 9, "type": "something else", "more": [1]}, "cannot decide"),
        (plan, {"document": document, "plan": canonical.digest(document)}, "cannot decide"),
        (plan, {"document": without, "plan": canonical.digest(without)}, "contradicted"),
        (incident, {"format": "9"}, "contradicted"),
        (incident, {"format": 0}, "contradicted"),
        (incident, {"more": 1}, "contradicted"),
    ]
    return [
        {"seq": seq, "line": canonical.encode(json.loads(entries[seq]) | changes).decode(), "answer": answer}
        for seq, changes, answer in cases
    ]


def vectors() -> dict[str, object]:
    """All examples; the code hash is a fixed one, so that they do not change with the program."""
    usual = digest.code, digest.version
    digest.code, digest.version = lambda: "c" * 64, lambda: "0.0.0"
    try:
        with tempfile.TemporaryDirectory(dir=kit.MEMORY) as name:
            checkpoints, bundle, received = ledger_of(Path(name))
            archive = bundle.read_bytes()
            ledger = kit.reopen(Path(name))
            entries = [content.decode() for content in ledger._store.entries()]
            tree = ledger.state.tree
        varied = by_round()
    finally:
        digest.code, digest.version = usual
    receipts = Receipts(
        run="example", coordinator=str(HUB.verification), plans=(FIRST.hash,), receipts=tuple(received)
    )
    keys = {
        "node": kit.NODE.verification,
        "node ": NEXT.verification,
        "officer": kit.OFFICER.verification,
        "coordinator": HUB.verification,
        "witness": WITNESS.cosigner,
    }
    return {
        "seeds": {"node": "n" * 32, "next node": "m" * 32, "officer": "o" * 32, "coordinator": "h" * 32}
        | {"witness": "w" * 32},
        "trust": "".join(f"{role.strip()} {key}\n" for role, key in keys.items()),
        "entries": entries,
        "entry_hashes": [tree.leaf(seq).hex() for seq in range(len(entries))],
        "roots": [tree.root(size).hex() for size in range(len(entries) + 1)],
        "inclusion": {"seq": 5, "size": 16, "proof": [node.hex() for node in tree.inclusion(5, 16)]},
        "consistency": {"first": 10, "second": 16, "proof": [n.hex() for n in tree.consistency(10, 16)]},
        "checkpoints": checkpoints,
        "losses": losses(),
        "by_round": varied,
        "newer": newer(entries),
        "receipts": strict.encode(sign(receipts, HUB)).decode(),
        "bundle_base64": base64.b64encode(archive).decode(),
    }


if __name__ == "__main__":
    json.dump(vectors(), sys.stdout, indent=1, ensure_ascii=False)
    sys.stdout.write("\n")
