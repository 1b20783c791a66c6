"""The ledger's and the accountants' promises: durable reservations, short proofs, quick composition."""

from __future__ import annotations

import math
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from experiments.benchmark.audit import REGION, plan_of
from experiments.benchmark.row import Row
from fedfsd import canonical
from fedfsd.ledger import draft, entry
from fedfsd.ledger.ledger import Ledger
from fedfsd.ledger.merkle import Tree, leaf_hash
from fedfsd.mechanism.accountant import compose
from fedfsd.mechanism.event import Event

BLOCK, BLOCKS, LEAVES = 50, 8, 100_000


def ledger(folder: Path, *, quick: bool = False) -> list[Row]:
    """Reservations against bare commits in turn, the proof of one entry in many, 52 plans composed."""
    blocks, leaves = (1, 1000) if quick else (BLOCKS, LEAVES)
    tree = Tree()
    for number in range(leaves):
        tree.append(leaf_hash(canonical.encode(number)))
    started = time.perf_counter()
    compose([[Event(0.05, 1.6 + number / 1000, 300)] for number in range(5 if quick else 52)], 1e-5)
    seconds = time.perf_counter() - started
    return [
        Row("reservations over bare durable commits", _ratio(folder, blocks), 0.3, "", ">="),
        Row(
            f"hashes that prove one of {leaves:,} entries",
            len(tree.inclusion(leaves // 3, leaves)),
            math.ceil(math.log2(leaves)),
            "hashes",
            "<=",
        ),
        Row("52 plans composed by PLD", seconds, 5, "s", "<"),
    ]


def _ratio(folder: Path, blocks: int) -> float:
    """Commits' seconds over reservations' seconds, median over interleaved blocks."""
    folder.mkdir(parents=True, exist_ok=True)
    books, plan_hash = _books(folder, blocks * BLOCK)
    bare = sqlite3.connect(folder / "bare.sqlite", isolation_level=None)
    bare.execute("PRAGMA journal_mode = WAL")
    bare.execute("PRAGMA synchronous = FULL")
    bare.execute("CREATE TABLE one (content BLOB)")
    found = []
    for block in range(blocks):
        first = block * BLOCK + 1
        commits = _seconds(lambda _: bare.execute("INSERT INTO one VALUES (?)", (bytes(300),)), first)
        reserved = _seconds(
            lambda round: books.reserve(plan_hash, round, canonical.sha256(str(round).encode())), first
        )
        found.append(commits / reserved)
    books.close()
    bare.close()
    return median(found)


def _seconds(work: Callable[[int], object], first: int) -> float:
    started = time.perf_counter()
    for number in range(first, first + BLOCK):
        work(number)
    return time.perf_counter() - started


def _books(folder: Path, rounds: int) -> tuple[Ledger, str]:
    """A region's ledger with a plan of so many rounds."""
    node, officer = draft.node_key(REGION), draft.officer_key(REGION)
    genesis = draft.genesis(node=node.verification, officer=officer.verification)
    signed = entry.sign(genesis, {"officer": officer, "node": node})
    mirror = folder / "mirror.jsonl"
    books = Ledger.create(folder / "ledger", mirror=mirror, genesis=signed, node=node)
    plan = plan_of(0, rounds=rounds)
    grant = draft.grant(
        books.state, data_set="fleet", data_commitment="0" * 64, delta=1e-5, events=plan.events(REGION)
    )
    books.add(entry.sign(grant, {"officer": officer}))
    books.approve_plan(plan, recipient="hub", purpose="benchmark", key_commitment="0" * 64)
    return books, plan.hash
