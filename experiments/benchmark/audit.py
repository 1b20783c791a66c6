"""How long, and in how much memory, large ledgers are verified.

Seconds are processor time of one core, imports included, so that other work on the machine does not
count. A tenth of the entries are releases, each with its reservation and a cosigned checkpoint; the rest are
refused requests. Building such a ledger takes about as long as verifying it.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from experiments.benchmark.row import Row
from fedfsd import canonical
from fedfsd.ledger import booking, bundle, draft, entry, note
from fedfsd.ledger.key import SigningKey
from fedfsd.ledger.state import State
from fedfsd.mechanism.accountant import epsilon_pld
from fedfsd.mechanism.event import Event
from fedfsd.plan.plan import ArraySchema, ModelPlan, OptimizerPlan, Plan, RegionPlan, TaskPlan

REGION, DAY, ROUNDS = "EU", "2026-11-22", 100
SIZES = (1_000, 10_000, 100_000)
_VERIFY = """
import os, sys, time
os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])
from pathlib import Path
from fedfsd.audit.evidence import load
from fedfsd.audit.text import text
from fedfsd.audit.verify import verify
report = verify(load([Path(sys.argv[1])], trust=Path(sys.argv[2])))
text(report)
seconds = time.process_time()
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]
print(report.exit_code, seconds, int(peak) / 1024)
"""


def audit(folder: Path, *, quick: bool = False) -> list[Row]:
    """Seconds and memory for the largest ledger, and whether the time per entry grows with the size."""
    folder.mkdir(parents=True, exist_ok=True)
    sizes = tuple(size // 10 for size in SIZES) if quick else SIZES
    measured = [_measure(folder / str(size), size) for size in sizes]
    (small, _), (middle, _), (large, memory) = measured
    early = (middle - small) / (sizes[1] - sizes[0])
    late = (large - middle) / (sizes[2] - sizes[1])
    return [
        Row(f"verify {sizes[2]:,} entries, seconds", large, 30, "s", "<="),
        Row(f"verify {sizes[2]:,} entries, memory", memory, 500, "MB", "<="),
        Row("verify: time of one more entry, large against small ledgers", late / early, 1.5, "", "<="),
    ]


def _measure(folder: Path, size: int) -> tuple[float, float]:
    """Seconds and MB of one verification, in a process of its own on one core."""
    folder.mkdir()
    paths = build(folder, size)
    command = [sys.executable, "-c", _VERIFY, *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    code, seconds, memory = done.stdout.split()
    if code != "0":
        raise RuntimeError(f"a ledger of {size} entries should hold")
    return float(seconds), float(memory)


def build(folder: Path, size: int) -> tuple[Path, Path]:
    """A bundle of about ``size`` entries, and the trust file for it."""
    node, officer = draft.node_key(REGION), draft.officer_key(REGION)
    witness = SigningKey.generate("witness")
    state, contents = State(), []
    checkpoints: list[tuple[int, int, str]] = []

    def add(one: entry.Entry) -> None:
        placed = one.model_copy(update={"seq": state.size})
        contents.append(entry.encode(placed))
        state.apply(placed, contents[-1])

    genesis = draft.genesis(node=node.verification, officer=officer.verification)
    add(entry.sign(genesis, {"officer": officer, "node": node}))
    grant = draft.grant(
        state, data_set="fleet", data_commitment="0" * 64, delta=1e-5, epsilon=1e5, alpha=4, max_rounds=10**6
    )
    add(entry.sign(grant, {"officer": officer}))
    rounds = max(1, size // 10 // ROUNDS)
    for number in range(rounds):
        plan = plan_of(number)
        add(
            draft.plan(
                state,
                plan,
                recipient="fedfsd/coordinator/hub",
                purpose="research",
                key_commitment=canonical.sha256(plan.hash.encode()),
            )
        )
        run = state.runs[plan.hash]
        for round in range(1, min(ROUNDS, size // 10) + 1):
            digest = canonical.sha256(f"{number} {round}".encode())
            add(booking.reservation(state, run, round, digest, DAY))
            add(booking.release(state, run, run.bookings[round], digest, run.entry.release_bytes))
            head = note.Checkpoint(node.name, state.size, state.tree.root())
            text = note.cosign(note.sign(head.text, [node]), witness, seconds=round)
            checkpoints.append((0, head.size, text))
            add(entry.WitnessEntry(size=head.size, checkpoint=text))
        for one in _refusals(plan.hash, size // rounds - 3 * ROUNDS - 2):
            add(one)
        reserved, released, freed = state.settlement(run)
        add(entry.Settle(plan=plan.hash, reserved=reserved, released=released, freed=freed))
    head = note.Checkpoint(node.name, state.size, state.tree.root())
    checkpoints.append((0, head.size, note.sign(head.text, [node])))
    path, trust = folder / "bundle.zip", folder / "trust.keys"
    ledger = state.genesis.ledger
    bundle.write(path, region=REGION, ledger=ledger, entries=contents, checkpoints=checkpoints)
    keys = {"node": node.verification, "officer": officer.verification, "witness": witness.cosigner}
    trust.write_text("".join(f"{role} {key}\n" for role, key in keys.items()), encoding="utf-8")
    return path, trust


def _refusals(plan_hash: str, count: int) -> Iterator[entry.Refuse]:
    for number in range(count):
        yield entry.Refuse(plan=plan_hash, round=10_000 + number, code="arrays")


def plan_of(seed: int, *, rounds: int = ROUNDS) -> Plan:
    """A plan of ``rounds`` rounds of one step; ``seed`` makes it another one."""
    region = RegionPlan(
        roster=1000,
        identity="physical",
        sample_rate=0.1,
        noise_multiplier=2.0,
        max_grad_norm=1.0,
        local_steps=1,
        windows_per_vehicle=2,
        weight=1.0,
        target_delta=1e-5,
        target_epsilon=None,
        epsilon=epsilon_pld([Event(0.1, 2.0, rounds)], 1e-5),
    )
    return Plan(
        name="benchmark",
        mode="private",
        num_rounds=rounds,
        regions={REGION: region},
        model=ModelPlan(
            name="mlp",
            options={},
            arrays=tuple(ArraySchema(name=f"layer{number}", shape=(64, 64)) for number in range(12)),
            witness_size=0,
            initial_sha256="0" * 64,
        ),
        task=TaskPlan(
            name="forecasting",
            options={"history_seconds": 2.0, "future_seconds": 3.0, "period_seconds": 0.5},
        ),
        optimizer=OptimizerPlan(learning_rate=0.1, momentum=0.9, schedule="constant"),
        seed=seed,
        strategy="FedAvg",
        strategy_options={},
        quorum=0.5,
        late_updates="drop",
        average_last=0.0,
    )
