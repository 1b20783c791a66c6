"""What an update costs on its way from the trainer into the mean of a round, in copies of itself.

A copy is what a fresh one of the update's bytes takes here, in the same minute, in processor time as all the
rest, and of each the least of several: other work on the machine makes the disk's part several times as dear.
The way is a simulation's: the gate of the region judges, hashes and writes it, the worker hands it over, the
coordinator judges and hashes it again and adds it to the mean of the round.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import Pipe
from pathlib import Path

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict

from experiments.benchmark.audit import plan_of
from experiments.benchmark.row import Row
from fedfsd.federation import reply, shared
from fedfsd.flower import held, private
from fedfsd.flower import strategy as strategies
from fedfsd.gate import arrays as gate_arrays
from fedfsd.gate.gate import content_of, witness_std
from fedfsd.ledger.disk import Mapped, write_whole
from fedfsd.plan.plan import WITNESS, Arrays, ArraySchema, Plan

REGION = "EU"
PARAMETERS = 25_000_000
_ARRAYS, _REGIONS = 40, 4
"""Of the model, and of the round whose mean is taken."""


def wire(folder: Path, *, quick: bool) -> list[Row]:
    """Copies from the trainer to the mean, and those that judging and hashing at both gates takes."""
    folder.mkdir(parents=True, exist_ok=True)
    private.become(1)
    plan = _plan(PARAMETERS // 50 if quick else PARAMETERS)
    runs = [_way(plan, folder) for _ in range(1 if quick else 5)]
    parts = {name: min(one[name] for one in runs) for name in runs[0]}
    copy = parts.pop("copy")
    copies = {name: seconds / copy for name, seconds in parts.items()}
    gates, hashed = copies["judge and hash"] + copies["read"], _hash_seconds(plan) / copy
    detail = ", ".join(f"{name} {value:.1f}" for name, value in copies.items())
    size = f"{plan.model.size / 1e6:.0f}M"
    unit = f"a copy takes {1000 * copy:.1f} ms, one SHA-256 {hashed:.1f} copies"
    return [
        Row(f"wire_{size}", sum(copies.values()), 20, "copies", "<=", f"{detail}; {unit}"),
        Row(f"wire_{size}_both_gates", gates, 12, "copies", "<=", "each judges and hashes"),
    ]


def _plan(size: int) -> Plan:
    each = (size - 4096) // _ARRAYS
    arrays = [ArraySchema(name=f"layer{number}", shape=(each,)) for number in range(_ARRAYS)]
    arrays.append(ArraySchema(name=WITNESS, shape=(size - _ARRAYS * each,)))
    usual = plan_of(1)
    model = usual.model.model_copy(update={"arrays": tuple(arrays), "witness_size": size - _ARRAYS * each})
    return usual.model_copy(update={"model": model})


def _way(plan: Plan, folder: Path) -> dict[str, float]:
    """Seconds of each part of one update's way."""
    spent: dict[str, float] = {}

    @contextmanager
    def timed(name: str) -> Iterator[None]:
        started = time.process_time()
        yield
        spent[name] = spent.get(name, 0.0) + time.process_time() - started

    schema, std = plan.model.arrays, witness_std(plan, REGION, 1)
    trained = np.random.default_rng().standard_normal(plan.model.size, np.float32).astype(np.float64) * std
    current = gate_arrays.view(trained.astype(np.float32).tobytes(), schema)
    with timed("inbound hash"):
        gate_arrays.sha256(current, schema)
    with timed("to float32"):
        update = gate_arrays.view(trained.astype(np.float32).data.cast("B"), schema)
    with timed("judge and hash"):
        content = content_of(update, plan, REGION, 1)
        sha256 = hashlib.sha256(content).hexdigest()
    with timed("write and sync"):
        write_whole(folder / "outbox", content)
    with timed("hand over"):
        record = held.record(gate_arrays.view(memoryview(Mapped(folder / "outbox")), schema))
        release = ConfigRecord({"entry": "0" * 64, "sha256": sha256})
        sent = Message(RecordDict(), 2, "train")
        private.number(sent)
        found = RecordDict({"arrays": record, "metrics": MetricRecord({}), "release": release})
        answer = _through_a_pipe(Message(found, reply_to=sent))
    with timed("read"):
        outcome, read = reply.read(answer, plan, REGION, 1)
    if read is None:
        raise RuntimeError(f"an update that should be good: {outcome.code}")
    strategies.resolve("FedAvg", {})
    # The mean of a round of equal updates, of which this one's share is counted.
    with timed("mean"):
        held.weighted_mean([_moved(current, read) for _ in range(_REGIONS)], "num-examples")
    spent["mean"] /= _REGIONS
    fresh = np.frombuffer(content, np.uint8)
    spent["copy"] = min(_seconds(lambda: fresh.copy()) for _ in range(5))
    return spent


def _moved(current: Arrays, update: Arrays) -> RecordDict:
    """A region's model as a strategy gets it."""
    arrays = ArrayRecord()
    for name, array in current.items():
        arrays[name] = held.Moved(array, update[name], np.float32(1))
    return RecordDict({"arrays": arrays, "metrics": MetricRecord({"num-examples": 1.0})})


def _through_a_pipe(message: Message) -> Message:
    """As from a worker; the sender is a thread here, so that what the two do adds up."""
    ours, theirs = Pipe()
    sender = threading.Thread(target=shared.send, args=(theirs, message))
    sender.start()
    received: Message = shared.receive(ours)
    sender.join()
    return received


def _hash_seconds(plan: Plan) -> float:
    content = np.ones(plan.model.size, np.float32)
    return min(_seconds(lambda: hashlib.sha256(content.data).hexdigest()) for _ in range(3))


def _seconds(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started
