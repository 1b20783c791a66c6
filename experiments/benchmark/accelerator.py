"""What privacy costs on an accelerator: ``bash experiments/benchmark/accelerator.sh`` prints one document.

Ratios are of neighbours in time: all ways of a case (see ``ways``) take turns, and a turn is a round of
``STEPS`` steps, waited for. A row that fails has its error instead of figures; what does not fit into the
time allowed is left out and says so. It needs torch, numpy, pydantic, cryptography and rfc8785; opacus where
hooks are to be measured. ``--device cpu --quick`` tries the machinery.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata
from itertools import islice
from statistics import median, quantiles
from typing import Any

import numpy as np
import torch
from torch import Tensor

from experiments.benchmark.ways import WAYS, Case, Steps
from fedfsd.config.experiment import Precision
from fedfsd.engine import chacha, noise
from fedfsd.engine.device import resolve
from fedfsd.engine.randomness import RoundKey, Stream

CASES = (
    Case("mlp", 64, 8),
    Case("gru", 64, 8),
    Case("transformer", 64, 8),
    Case("transformer of 171k", 64, 1),
    Case("transformer of 1.5M", 64, 1),
    Case("PilotNet", 64, 1),
    Case("PilotNet", 16, 8),
    Case("ResNet-18", 32, 1),
    # What fills an accelerator; with less to compute, the time is that of the calls.
    Case("transformer of 171k", 1024, 1),
    Case("PilotNet", 512, 1),
    Case("ResNet-18", 128, 1),
)
STEPS, TURNS = 5, 7
SCALE = 2.0**20
"""Steps of the grid in the noise's standard deviation, about as a plan has them."""
PRECISIONS: tuple[Precision, ...] = ("float32", "bfloat16")
_MEGABYTE = 2**20
_PACKAGES = ("torch", "numpy", "opacus", "pydantic", "cryptography")


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="accelerator.sh", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--seconds", type=float, default=420.0, help="begin no row after this many")
    parser.add_argument("--only", action="append", help="rows whose name has this; may be repeated")
    parser.add_argument("--quick", action="store_true", help="try the machinery: its numbers mean nothing")
    parser.add_argument("--profile", action="store_true", help="also what each private step's time goes to")
    parser.add_argument("--worker", choices=[case.name for case in CASES], help=argparse.SUPPRESS)
    given = parser.parse_args()
    device = resolve(given.device)
    if given.worker:
        _work(next(case for case in CASES if case.name == given.worker), device)
        return
    until = time.monotonic() + given.seconds
    document: dict[str, Any] = {"quick": given.quick, **_place(device), "rows": []}
    for name, row in _rows(device, quick=given.quick, profile=given.profile):
        if given.only and not any(part in name for part in given.only):
            continue
        print(f"measuring: {name}", file=sys.stderr, flush=True)
        started = time.monotonic()
        try:
            found = row() if started < until else {"left out": "no time left"}
        except Exception as error:
            found = {"error": f"{type(error).__name__}: {str(error)[:400]}"}
        document["rows"].append({"name": name, **found, "seconds": round(time.monotonic() - started, 1)})
    print(json.dumps(document, indent=1))


Row = Callable[[], dict[str, Any]]


def _rows(device: torch.device, *, quick: bool, profile: bool) -> Iterator[tuple[str, Row]]:
    cases = [Case(case.model, 4, 2) for case in CASES[:4]] if quick else CASES
    turns = 2 if quick else TURNS
    yield "ChaCha20 and normal values", lambda: _noise_is_right(device)
    for model in ("mlp", "gru", "transformer", "PilotNet"):
        for precision in PRECISIONS:
            yield (
                f"clipped sum, {model}, {precision}",
                lambda m=model, p=precision: _sum_is_right(device, m, p),
            )
    for size in (252_219, 1_560_942, 11_177_025)[: 1 if quick else 3]:
        yield f"noise, {size:,} values", lambda s=size: _noise_seconds(device, s, turns)
    for precision in PRECISIONS:
        for case in cases if precision == "float32" else cases[3:]:
            yield (
                f"step, {case.name}, {precision}",
                lambda c=case, p=precision: _step(Steps(c, device, p, STEPS), turns),
            )
            if profile:
                yield (
                    f"profile, {case.name}, {precision}",
                    lambda c=case, p=precision: _profile(Steps(c, device, p, STEPS)),
                )
    if device.type == "cuda":
        for case in cases:
            yield f"memory, {case.name}, float32", lambda c=case: _memory(Steps(c, device))
    for case in (cases[3],):
        yield f"two processes, {case.name}", lambda c=case: _two_processes(c, device)


def _place(device: torch.device) -> dict[str, Any]:
    """A number without them says little."""
    found = {"device": str(device), "python": platform.python_version(), "threads": torch.get_num_threads()}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "missing"
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        found |= {
            "accelerator": properties.name,
            "memory MB": properties.total_memory // _MEGABYTE,
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
        }
    return found


def _noise_is_right(device: torch.device) -> dict[str, Any]:
    """The keystream against cryptography's, whole and from a block on; what two devices make of it."""
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms

    key, block, count = bytes(range(32)), 2**31 - 3, 100_003
    nonce = block.to_bytes(4, "little") + bytes(12)
    wanted = Cipher(algorithms.ChaCha20(key, nonce), None).encryptor().update(bytes(8 * count))
    stream, made = chacha.Stream(key, device), noise.DeviceNoise(key, device)
    found = stream.bits(count, block=block).cpu().numpy().astype("<i8").tobytes()
    ours, hosts = made.normal(count).cpu(), noise.DeviceNoise(key, torch.device("cpu")).normal(count)
    again = made.normal(count).cpu()
    long = made.normal(4_000_001)
    return {
        "made by": chacha.blocks_of(device).__name__,
        "keystream equals cryptography's": found == wanted,
        "normal values: same bits twice": bool(torch.equal(ours, again)),
        "normal values: largest difference from the CPU's": float((ours - hosts).abs().max()),
        "normal values: unequal to the CPU's": float((ours != hosts).double().mean()),
        "z of mean": float(long.mean() * len(long) ** 0.5),
        "z of variance": float((long.var() - 1) * (len(long) / 2) ** 0.5),
    }


def _sum_is_right(device: torch.device, model: str, precision: Precision) -> dict[str, Any]:
    """The engine's sum against autograd's, each vehicle alone in float64 on the CPU; and its clipping."""
    steps = Steps(Case(model, 8, 2), device, precision)
    gradient, data = steps.engine()
    slots, window = np.arange(8), np.arange(2) + np.zeros((8, 1), np.int64)

    def clipped(some: np.ndarray, clip: float) -> Tensor:
        taken = np.isin(slots, some)[:, None] & (window >= 0)
        return gradient.clipped_sum(data, slots, window, taken, max_grad_norm=clip)

    exact = torch.stack([_alone(steps, vehicle, exact=True) for vehicle in range(8)])
    plain = torch.stack([_alone(steps, vehicle) for vehicle in range(8)]).sum(dim=0)
    clip = float(exact.norm(dim=1).median())
    found, again, whole = clipped(slots, clip), clipped(slots, clip), clipped(slots, 1e9).cpu()
    wanted = exact.sum(dim=0)
    alone = [float(clipped(slots[vehicle : vehicle + 1], clip).norm()) / clip for vehicle in range(8)]
    moved = [float((found - clipped(np.delete(slots, v), clip)).norm()) / clip for v in range(8)]
    return {
        "error of the sum over its norm, unclipped": float((whole - wanted).norm() / wanted.norm()),
        "the same of autograd alone": float((plain - wanted).norm() / wanted.norm()),
        "same bits twice": bool(torch.equal(found, again)),
        "largest norm of one vehicle over C": max(alone),
        "farthest that one vehicle moves the sum, over C": max(moved),
        "kept in": f"{found.dtype} on {found.device.type}",
    }


def _alone(steps: Steps, vehicle: int, *, exact: bool = False) -> Tensor:
    """A vehicle's mean gradient by autograd, (P,) float64; ``exact``: computed in float64 on the CPU."""
    device, dtype = (torch.device("cpu"), torch.float64) if exact else (steps.device, torch.float32)
    model = copy.deepcopy(steps.model).to(device, dtype).train()
    rows = slice(2 * vehicle, 2 * vehicle + 2)
    inputs, targets = (
        {name: values[rows].to(device, dtype) for name, values in part.items()}
        for part in (steps.inputs, steps.targets)
    )
    torch.set_default_dtype(dtype)  # of what models make themselves
    try:
        with steps.autocast(enabled=not exact):
            loss = steps.loss(model(*inputs.values()), targets).mean()
        found = torch.autograd.grad(loss, list(model.parameters()))
    finally:
        torch.set_default_dtype(torch.float32)
    return torch.cat([part.flatten() for part in found]).double().cpu()


def _noise_seconds(device: torch.device, size: int, turns: int) -> dict[str, Any]:
    """Nanoseconds a value, by everything that makes some."""
    key = RoundKey(bytes(32), "EU", "plan", 1, "")
    counters = torch.arange(-(-size // 8), device=device)
    ways: dict[str, Callable[[], object]] = {
        "noise of a step": lambda: noise.of_step(key, 0, device).whole(size, SCALE),
        "keystream by operations": lambda: chacha.operations(counters, (1,) * 8),
        "torch's own, not fit for a release": lambda: torch.randn(size, device=device),
        "AES-256 on the host, one thread": lambda: noise.HostNoise(Stream(bytes(32))).whole(size, SCALE),
    }
    if device.type == "cuda":
        ways["keystream by one function"] = lambda: chacha.fused(counters, (1,) * 8)
    found = {}
    for name, way in ways.items():
        way()
        seconds = [_seconds(way, device) for _ in range(turns)]
        found[f"{name}, ns a value"] = round(median(seconds) / size * 1e9, 4)
    return found


def _step(steps: Steps, turns: int) -> dict[str, Any]:
    """Seconds of a plain step, ratios to it, and the noise's share of it."""
    ways: dict[str, Callable[[], object]] = {}
    errors = {}
    for name in WAYS:
        try:
            way = steps.way(name)
            way()
            _wait(steps.device)
        except Exception as error:
            errors[name] = f"{type(error).__name__}: {str(error)[:200]}"
        else:
            ways[name] = way
    key = RoundKey(bytes(32), "EU", "plan", 1, "")
    ways["noise"] = lambda: [
        noise.of_step(key, step, steps.device).whole(steps.size, SCALE) for step in range(STEPS)
    ]
    took: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(turns + 1):
        for name, way in ways.items():
            seconds = _seconds(way, steps.device)
            if turn:
                took[name].append(seconds)
    if "plain" not in took:
        return {"errors": errors}
    plain = took.pop("plain")
    return {
        "parameters": steps.size,
        "plain ms": round(median(plain) / STEPS * 1000, 3),
        "ratios": {
            name: _spread([one / other for one, other in zip(seconds, plain, strict=True)])
            for name, seconds in took.items()
        },
        **({"errors": errors} if errors else {}),
    }


def _spread(ratios: Sequence[float]) -> list[float]:
    """The middle, and the quarters around it."""
    low, middle, high = quantiles(ratios, n=4)
    return [round(value, 3) for value in (middle, low, high)]


def _profile(steps: Steps) -> dict[str, Any]:
    """Where a private step's time goes: milliseconds a step of the twelve largest kernels and operations."""
    from torch.profiler import ProfilerActivity, profile

    way = steps.way("private")
    way()
    _wait(steps.device)
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (steps.device.type == "cuda")
    with profile(activities=activities) as seen:
        way()
        _wait(steps.device)
    events = seen.key_averages()

    def largest(of: str) -> dict[str, Any]:
        ranked = sorted(events, key=lambda event: -getattr(event, of))
        return {
            event.key[:90]: [round(getattr(event, of) / 1000 / STEPS, 3), event.count // STEPS]
            for event in islice(ranked, 12)
        }

    found: dict[str, Any] = {}
    for place, of in (("device", "self_device_time_total"), ("host", "self_cpu_time_total")):
        found[f"{place} ms"] = round(sum(getattr(event, of) for event in events) / 1000 / STEPS, 3)
        found[f"{place} ms and calls"] = largest(of)
    return found


def _memory(steps: Steps) -> dict[str, Any]:
    """Peak MB of two steps over what model and data take, by way."""
    found: dict[str, Any] = {}
    for name in WAYS:
        try:
            way = steps.way(name)
            torch.cuda.synchronize(steps.device)
            torch.cuda.reset_peak_memory_stats(steps.device)
            before = torch.cuda.memory_allocated(steps.device)
            way()
            way()
            torch.cuda.synchronize(steps.device)
            found[name] = round((torch.cuda.max_memory_allocated(steps.device) - before) / _MEGABYTE, 2)
            del way
        except Exception as error:
            found[name] = f"{type(error).__name__}: {str(error)[:200]}"
    return found


def _two_processes(case: Case, device: torch.device) -> dict[str, Any]:
    """Private steps a second of one process, and of two at the same time, each with a model of its own."""
    case = case if case in CASES else CASES[3]
    alone = _rates([case], device)
    both = _rates([case, case], device)
    return {
        "one, steps a second": alone,
        "two, steps a second": both,
        "together over one": sum(both) / alone[0],
    }


def _rates(cases: Sequence[Case], device: torch.device) -> list[float]:
    command = [sys.executable, "-m", "experiments.benchmark.accelerator", "--device", str(device), "--worker"]
    workers = [
        subprocess.Popen([*command, case.name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for case in cases
    ]
    try:
        for worker in workers:
            assert worker.stdout is not None
            worker.stdout.readline()  # ready
        for worker in workers:
            assert worker.stdin is not None
            worker.stdin.write("\n")
            worker.stdin.flush()
        return [round(float(worker.communicate(timeout=120)[0]), 2) for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()


def _work(case: Case, device: torch.device) -> None:
    """Be one of the processes: say that all is ready, wait for a line, and step for five seconds."""
    way = Steps(case, device, steps=STEPS).way("private")
    way()
    _wait(device)
    print("ready", flush=True)
    sys.stdin.readline()
    started, rounds = time.monotonic(), 0
    while time.monotonic() - started < 5:
        way()
        _wait(device)
        rounds += 1
    print(rounds * STEPS / (time.monotonic() - started))


def _seconds(way: Callable[[], object], device: torch.device) -> float:
    started = time.perf_counter()
    way()
    _wait(device)
    return time.perf_counter() - started


def _wait(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "4")
    main()
