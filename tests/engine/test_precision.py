"""bfloat16: the model's passes alone; what protects a vehicle is computed as ever."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from books import rounds_in
from conftest import drives
from engine.small import TASK, TwoPaths, vehicles
from hypothesis import given, settings
from hypothesis import strategies as st
from plan.sample import REGION, planned
from runner.runner_kit import ARRAYS, gate_of, rehearsal

from fedfsd.drive import table
from fedfsd.engine import clip, device, use
from fedfsd.engine.clip import MicroBatch
from fedfsd.engine.local import model_on
from fedfsd.engine.use import Product
from fedfsd.errors import NotReadyError
from fedfsd.gate import arrays as gate_arrays
from fedfsd.plan import plan as plans
from fedfsd.plan.plan import Plan
from fedfsd.runner.region import RegionConfig, open_region, run_round

CPU = torch.device("cpu")
KINDS = {
    "ordinary": lambda r, shape: r.normal(size=shape),
    "cancelling": lambda r, shape: r.choice([-1.0, 1.0], shape) * r.normal(size=(shape[0], 1, 1)),
    "one huge": lambda r, shape: np.where(r.random(shape) < 0.1, 1e4, 1.0) * r.normal(size=shape),
    "tiny": lambda r, shape: 1e-12 * r.normal(size=shape),
    "not a number": lambda r, shape: np.where(r.random(shape) < 0.01, np.nan, r.normal(size=shape)),
}


def batch_of(gradient: torch.Tensor, value: torch.Tensor) -> MicroBatch:
    """A micro-batch of one linear layer's weight."""
    one = Product(value)
    one.gradient = gradient
    batch = MicroBatch([gradient.shape[-1] * value.shape[-1]], len(value), CPU)
    batch.take(0, [one])
    return batch


@pytest.mark.parametrize("route", ["formed", "never formed", "as on an accelerator"])
@settings(deadline=None, max_examples=12)
@given(
    kinds=st.tuples(st.sampled_from(sorted(KINDS)), st.sampled_from(sorted(KINDS))),
    positions=st.integers(1, 40),
    seed=st.integers(0, 2**32 - 1),
)
def test_no_norm_is_under_estimated(route, kinds, positions, seed):
    """A vehicle's part of the sum is at most C; the sum is float64's from the same shortened factors."""
    random, bound, count = np.random.default_rng(seed), 0.7, 5
    gradient, value = (
        torch.from_numpy(KINDS[kind](random, (count, positions, size))).bfloat16()
        for kind, size in zip(kinds, (6, 9), strict=True)
    )
    everyone = torch.ones(count, dtype=torch.bool)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clip, "_by_product", lambda *_: route != "formed")
        patch.setattr(clip, "apart", lambda _: route == "as on an accelerator")
        total = batch_of(gradient, value).clipped_sum(bound, everyone)
        for vehicle in range(count):
            zero = torch.where(torch.arange(count) == vehicle, 0, 1)[:, None, None].bfloat16()
            rest = batch_of(torch.where(zero > 0, gradient, 0), value).clipped_sum(bound, everyone)
            assert torch.linalg.vector_norm(total - rest) <= bound * (1 + 1e-12)
        exact = torch.einsum("vlo,vli->voi", gradient.double(), value.double()).flatten(1)
        norms = torch.linalg.vector_norm(exact, dim=1)
        alone = torch.where(norms.isfinite()[:, None], exact, 0)
        unclipped = batch_of(gradient, value).clipped_sum(None, everyone)
        scale = torch.einsum("vlo,vli->v", gradient.double().abs(), value.double().abs()).nan_to_num()
        assert torch.linalg.vector_norm(unclipped - alone.sum(dim=0)) <= 2**-6 * scale.sum() + 1e-30


@pytest.mark.parametrize("kernel", [(3, 3), (1, 5)])
@pytest.mark.parametrize(
    ("dilation", "padding", "stride"), [((1, 1), (1, 1), (2, 2)), ((2, 1), (0, 2), (1, 3))]
)
def test_points_of_a_convolution_cut_by_one_copy(kernel, dilation, padding, stride):
    image = torch.randn(4, 3, 17, 21, generator=torch.Generator().manual_seed(0))
    options = (kernel, dilation, padding, stride)
    assert torch.equal(use.strided(image, *options), use._unfolded(image, *options))


def test_sums_are_close_to_those_of_float32_and_kept_in_float64():
    data, model = vehicles([3, 0, 9, 1] * 3), TwoPaths()
    slots, window, taken = np.arange(12), np.zeros((12, 1), np.int64), data.counts[:, None] > 0
    sums = [
        model_on(copy.deepcopy(model), TASK.loss, CPU, precision).clipped_sum(
            data, slots, window, taken, max_grad_norm=0.3
        )
        for precision in ("float32", "bfloat16")
    ]
    assert all(one.dtype == torch.float64 for one in sums)
    off = torch.linalg.vector_norm(sums[0] - sums[1]) / torch.linalg.vector_norm(sums[0])
    assert 1e-5 < off < 0.1


def test_a_plan_names_its_precision_where_it_is_not_float32():
    plain = planned()
    short = computed_in(plain, "bfloat16")
    assert (plain.format, short.format) == (1, 3)
    assert "precision" not in plain.document()
    assert plans.read(short.document()) == short
    assert plans.read(plain.document()).precision == "float32"


def computed_in(plan: Plan, precision: str) -> Plan:
    fields = plan.model_dump(mode="json", exclude={"format"})
    return Plan.model_validate(fields | {"precision": precision})


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("tables") / "synthetic.parquet"
    table.write(drives({REGION: 20}, origin="synthetic"), path)
    return str(path)


def updates(tmp_path, data, precision: str) -> np.ndarray:
    plan = computed_in(rehearsal(local_steps=1), precision)
    gate_of(tmp_path / precision, plan)
    region = open_region(RegionConfig(REGION, data, str(tmp_path / precision), "cpu", simulated=True))
    content = run_round(region, ARRAYS, plan, 1).content
    update = gate_arrays.view(content, plan.model.arrays)
    return np.concatenate([part.ravel() for part in update.values()])


def test_a_region_trains_by_the_plans_precision(tmp_path, data):
    """Another plan has another noise; that both are let out shows that the gates accept them."""
    assert not np.array_equal(updates(tmp_path, data, "float32"), updates(tmp_path, data, "bfloat16"))


def test_a_device_without_autocast_is_one_error_before_anything_is_booked(tmp_path, data, monkeypatch):
    monkeypatch.setattr(torch.amp, "is_autocast_available", lambda _: False)
    with pytest.raises(NotReadyError, match=r"training\.precision: got bfloat16 on cpu"):
        updates(tmp_path, data, "bfloat16")
    assert rounds_in(tmp_path / "bfloat16") == []
    device.demand_precision(CPU, "float32")
