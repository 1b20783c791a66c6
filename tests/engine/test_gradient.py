"""Every layer that the engine knows, by every route, against one vehicle at a time in plain float64."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable

import numpy as np
import pytest
import torch
from engine.small import SPEC, TASK, Plain
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from fedfsd.engine import clip, layer, use
from fedfsd.engine.clip import MicroBatch
from fedfsd.engine.gradient import VehicleGradient, micro_batch
from fedfsd.engine.local import model_on
from fedfsd.engine.probe import probe
from fedfsd.engine.use import Product, Sampled
from fedfsd.engine.vehicle import VehicleData
from fedfsd.errors import ModelError

CPU = torch.device("cpu")
BOUND = 1 + 1e-6


class Of(nn.Module):
    """Layers under names, and what a forward makes of them."""

    def __init__(self, compute, **layers: nn.Module) -> None:
        super().__init__()
        self.compute = compute
        for name, module in layers.items():
            self.add_module(name, module)

    def forward(self, value: Tensor) -> Tensor:
        return self.compute(self, value)


def tied() -> nn.Module:
    model = Of(lambda m, x: m.b(torch.tanh(m.a(x))), a=nn.Linear(6, 6), b=nn.Linear(6, 6))
    model.b.weight = model.a.weight
    return model


def tied_embedding() -> nn.Module:
    model = Of(lambda m, x: m.b(m.a(x.long() % 7)), a=nn.Embedding(7, 5), b=nn.Linear(5, 7))
    model.b.weight = model.a.weight
    return model


def attend(model: nn.Module, x: Tensor) -> Tensor:
    mask = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).triu(1)
    out, weight = model.a(x, x, x, attn_mask=mask)
    return torch.cat([out.flatten(1), weight.flatten(1)], dim=1)


def attend_across(model: nn.Module, x: Tensor) -> Tensor:
    """Steps first, queries of other steps than keys, the last key hidden, one mask for each head."""
    x = x.transpose(0, 1)
    hidden = torch.zeros(x.shape[1], 4, dtype=x.dtype)
    hidden[:, -1] = -torch.inf
    shift = torch.linspace(-1, 1, 3 * 4, dtype=x.dtype).view(3, 4).repeat(2 * x.shape[1], 1, 1)
    out, _ = model.a(x[:3], x[:4], 2 * x[:4], key_padding_mask=hidden, attn_mask=shift, need_weights=False)
    return out.transpose(0, 1)


STEPS, PICTURE, LINE = (5, 6), (3, 9, 8), (4, 11)
Made = Callable[[], nn.Module]


def in_turn(*layers: nn.Module) -> nn.Module:
    return nn.Sequential(*layers)


def gru(model: nn.Module, x: Tensor) -> Tensor:
    return model.a(x)[0]


def lstm(model: nn.Module, x: Tensor) -> Tensor:
    """Steps first; the last states alone."""
    return torch.cat([part.transpose(0, 1).flatten(1) for part in model.a(x.transpose(0, 1))[1]], dim=1)


def lstm_from(model: nn.Module, x: Tensor) -> Tensor:
    """The first states come from a layer of their own."""
    return model.a(x, (model.b(x[:, 0])[None],) * 2)[0]


def indexed(model: nn.Module, x: Tensor) -> Tensor:
    return model.b(model.a(x.long() % 7))


def flattened(model: nn.Module, x: Tensor) -> Tensor:
    return model.a(x.flatten(0, 1)).view(len(x), -1)


def again(model: nn.Module, x: Tensor) -> Tensor:
    return model.a(torch.tanh(model.a(model.a(x))))


def for_nothing(model: nn.Module, x: Tensor) -> Tensor:
    model.a(2 * x)
    return model.a(x)


MODELS: dict[str, tuple[Made, tuple[int, ...]]] = {
    "linear": (lambda: in_turn(nn.Flatten(), nn.Linear(30, 7), nn.Tanh(), nn.Linear(7, 3)), STEPS),
    "linear over steps": (lambda: in_turn(nn.Linear(6, 9, bias=False), nn.GELU(), nn.Linear(9, 2)), STEPS),
    "rows flattened": (lambda: Of(flattened, a=nn.Linear(6, 4)), STEPS),
    "wide": (lambda: in_turn(nn.Flatten(), nn.Linear(30, 150), nn.ReLU(), nn.Linear(150, 2)), STEPS),
    "wide over steps": (lambda: in_turn(nn.Linear(6, 90), nn.Tanh(), nn.Linear(90, 70)), STEPS),
    "Conv1d": (lambda: in_turn(nn.Conv1d(4, 6, 3, 2, 1, 2, 2), nn.Tanh(), nn.Conv1d(6, 2, 2)), LINE),
    "Conv2d": (
        lambda: in_turn(
            nn.Conv2d(3, 6, (3, 2), (1, 2), (2, 1), dilation=(2, 1)),
            nn.ReLU(inplace=True),
            nn.Conv2d(6, 4, 3, groups=2, bias=False),
            nn.Conv2d(4, 2, 1, padding="valid"),
        ),
        PICTURE,
    ),
    "large Conv2d": (lambda: in_turn(nn.Conv2d(3, 5, 3, padding=1), nn.Tanh()), (3, 16, 16)),
    "GroupNorm": (lambda: in_turn(nn.Conv2d(3, 6, 2), nn.GroupNorm(3, 6), nn.Tanh()), PICTURE),
    "LayerNorm": (lambda: in_turn(nn.LayerNorm(6), nn.Tanh(), nn.LayerNorm((5, 6))), STEPS),
    "LayerNorm without bias": (lambda: in_turn(nn.LayerNorm(6, bias=False), nn.Tanh()), STEPS),
    "Embedding": (lambda: Of(indexed, a=nn.Embedding(7, 3, padding_idx=2), b=nn.Linear(3, 2)), STEPS),
    "MultiheadAttention": (lambda: Of(attend, a=nn.MultiheadAttention(6, 2, 0.3, batch_first=True)), STEPS),
    "attention, steps first": (lambda: Of(attend_across, a=nn.MultiheadAttention(6, 2, bias=False)), STEPS),
    "TransformerEncoderLayer": (lambda: nn.TransformerEncoderLayer(6, 3, 11, batch_first=True), STEPS),
    "GRU": (lambda: Of(gru, a=nn.GRU(6, 4, 2, batch_first=True, bidirectional=True)), STEPS),
    "LSTM": (lambda: Of(lstm, a=nn.LSTM(6, 4, 2, dropout=0.4)), STEPS),
    "LSTM from a layer": (
        lambda: Of(lstm_from, a=nn.LSTM(6, 4, bias=False, batch_first=True), b=nn.Linear(6, 4)),
        STEPS,
    ),
    "called again": (lambda: Of(again, a=nn.Linear(6, 6)), STEPS),
    "a call for nothing": (lambda: Of(for_nothing, a=nn.Linear(6, 6)), STEPS),
    "tied": (tied, STEPS),
    "tied with an embedding": (tied_embedding, STEPS),
    "by opacus": (lambda: in_turn(nn.Linear(6, 6), nn.InstanceNorm1d(5, affine=True)), STEPS),
}
INDEXED = {"Embedding", "tied with an embedding"}  # an index is always finite, and passes no gradient on
ROUTES = {
    "chosen": None,
    "formed": lambda *_: False,
    "never formed": lambda *_: True,
    "as on an accelerator": lambda *_: True,
}


def loss_of(output: Tensor, _: object) -> Tensor:
    return (output.flatten(1) - 0.5).square().mean(dim=1)


@pytest.fixture(params=MODELS)
def kind(request) -> str:
    return request.param


@pytest.fixture(params=ROUTES)
def route(request, monkeypatch) -> str:
    if ROUTES[request.param]:
        monkeypatch.setattr(clip, "_by_product", ROUTES[request.param])
    if request.param == "as on an accelerator":  # parameters of one shape are one, sums are of all vehicles
        monkeypatch.setattr(clip, "apart", lambda _: True)
        monkeypatch.setattr(use, "on_host", lambda _: False)
    return request.param


def built(kind: str, seed: int = 0) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return MODELS[kind][0]().train()


def windows(kind: str, count: int, *, seed: int = 0) -> Tensor:
    return 2 * torch.randn(count, *MODELS[kind][1], generator=torch.Generator().manual_seed(seed))


def region(values: Tensor, counts: list[int]) -> VehicleData:
    values = torch.cat([values[: sum(counts)], torch.zeros_like(values[:1])])
    owned = np.array(counts)
    return VehicleData({"x": values}, {"y": torch.zeros(len(values))}, np.cumsum(owned) - owned, owned, CPU)


def slow(model: nn.Module, data: VehicleData, taken: np.ndarray, clip_norm: float) -> list[np.ndarray]:
    """Each vehicle's clipped mean gradient in float64, by plain autograd, a window at a time."""
    model, found = copy.deepcopy(model).double(), []
    for module in model.modules():
        if isinstance(module, (nn.RNNBase, nn.MultiheadAttention)):
            module.dropout = 0.0
        elif isinstance(module, nn.Dropout):
            module.p = 0.0
    for first, mine in zip(data.first, taken, strict=True):
        total = np.zeros(sum(parameter.numel() for parameter in model.parameters()))
        for row in first + np.flatnonzero(mine):
            loss = loss_of(model(data.inputs["x"][[row]].double()), None).sum()
            parts = torch.autograd.grad(loss, list(model.parameters()))
            total += torch.cat([part.flatten() for part in parts]).numpy() / mine.sum()
        norm = np.linalg.norm(total)
        found.append(total * min(1.0, clip_norm / norm) if norm else total)
    return found


def summed(
    ours: VehicleGradient, data: VehicleData, taken: np.ndarray, clip_norm: float | None
) -> np.ndarray:
    window = np.where(taken, np.arange(taken.shape[1]), 0)
    return ours.clipped_sum(data, np.arange(len(taken)), window, taken, max_grad_norm=clip_norm).numpy()


COUNTS = [3, 1, 4, 2, 4]
TAKEN = np.arange(4) < np.array(COUNTS)[:, None]


def test_sums_equal_the_slow_reference(kind, route):
    model = built(kind)
    data, ours = region(windows(kind, 14), COUNTS), model_on(copy.deepcopy(model), loss_of, CPU)
    whole = sum(slow(model, data, TAKEN, 1e9))
    assert np.linalg.norm(whole) > 1e-3
    assert np.linalg.norm(summed(ours, data, TAKEN, 1e9) - whole) <= 2e-5 * np.linalg.norm(whole)
    assert np.linalg.norm(summed(ours, data, TAKEN, None) - whole) <= 2e-5 * np.linalg.norm(whole)
    norms = [np.linalg.norm(one) for one in slow(model, data, TAKEN, 1e9)]
    middle = float(np.median(norms))
    # Where no gradient is formed, a 256th of C is kept back and norms are taken from above.
    slack = 0.03 if route in ("chosen", "never formed") else 1e-5
    if (kind, route) == ("large Conv2d", "never formed"):
        return  # of so many positions, bounds on rounding are no norms: never chosen
    clipped = sum(slow(model, data, TAKEN, middle))
    assert np.linalg.norm(summed(ours, data, TAKEN, middle) - clipped) <= slack * np.linalg.norm(clipped)


def test_no_vehicle_counts_more_than_the_clip(kind, route):
    model = built(kind)
    data, ours = region(windows(kind, 14), COUNTS), model_on(model, loss_of, CPU)
    for vehicle in range(len(COUNTS)):
        alone = TAKEN & (np.arange(len(COUNTS)) == vehicle)[:, None]
        for clip_norm in (1e-3, 0.02):
            found = np.linalg.norm(summed(ours, data, alone, clip_norm))
            assert 0.5 * clip_norm < found <= clip_norm * BOUND


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e30])
@pytest.mark.parametrize("kind", sorted(MODELS.keys() - INDEXED))
def test_spoilt_vehicles_count_nothing_and_spoil_nobody(kind, value, monkeypatch):
    monkeypatch.setattr(clip, "_by_product", ROUTES["never formed"])
    model = built(kind)
    values = windows(kind, 14)
    spoilt = values.clone()
    spoilt[3] = value  # the second vehicle's only window
    spoilt[4] = value  # one of the third's
    ours = model_on(model, loss_of, CPU)
    others = TAKEN & ~np.isin(np.arange(len(COUNTS)), [1, 2])[:, None]
    whole, without = (summed(ours, region(spoilt, COUNTS), taken, 0.05) for taken in (TAKEN, others))
    assert np.isfinite(whole).all()
    assert np.linalg.norm(whole - without) <= 2 * 0.05 * BOUND
    if not np.isfinite(value):
        np.testing.assert_array_equal(whole, without)
        plain = summed(ours, region(spoilt, COUNTS), TAKEN, None)
        expected = summed(ours, region(values, COUNTS), others, None)
        np.testing.assert_allclose(plain, expected, rtol=1e-4, atol=1e-6)


def test_a_vehicles_bits_depend_on_no_other(kind):
    ours = model_on(built(kind), loss_of, CPU)
    one, other = windows(kind, 20), windows(kind, 20, seed=1)
    other[4:8] = one[4:8]
    other[12:] *= 1e3
    means = [
        ours.mean_by_vehicle({"x": x.unflatten(0, (5, 4))}, {"y": torch.zeros(5, 4)}, torch.from_numpy(TAKEN))
        for x in (one, other)
    ]
    assert torch.equal(means[0][1], means[1][1])
    assert not torch.equal(means[0][0], means[1][0])


SATURATED = {
    "large Conv2d",
    "wide over steps",
}  # random weights saturate them: rounding decides


@pytest.mark.parametrize("kind", sorted(MODELS.keys() - INDEXED - SATURATED))
def test_the_probe_takes_what_the_engine_knows(kind):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = Inside(built(kind), MODELS[kind][1])
    probe(model, TASK)


class Inside(nn.Module):
    """A layer between others that give it the shapes of the forecasting task."""

    def __init__(self, inner: nn.Module, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.shape = shape
        self.enter = nn.Linear(2 * SPEC.history, int(np.prod(shape)))
        self.inner = inner
        self.leave = nn.Linear(inner(torch.zeros(1, *shape)).numel(), 2 * SPEC.future)

    def forward(self, history: Tensor) -> tuple[Tensor, Tensor]:
        inner = self.inner(self.enter(history.flatten(1) / 10).unflatten(1, self.shape))
        paths = self.leave(inner.flatten(1)).unflatten(1, (1, SPEC.future, 2))
        return paths, torch.zeros(len(history), 1)


@settings(deadline=None)
@given(
    vehicles=st.integers(1, 5),
    k=st.integers(1, 4),
    steps=st.integers(1, 4),
    features=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    scale=st.sampled_from([1e-12, 1e-3, 1.0, 1e3, 1e7]),
    clip_norm=st.sampled_from([1e-3, 1.0, 1e4]),
    never=st.booleans(),
    data=st.data(),
)
def test_any_shape_equals_the_slow_reference(vehicles, k, steps, features, scale, clip_norm, never, data):
    counts = data.draw(st.lists(st.integers(0, k), min_size=vehicles, max_size=vehicles))
    taken = np.arange(k) < np.array(counts)[:, None]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(sum(counts))
        model = nn.Sequential(nn.Linear(features[0], features[1]), nn.Tanh(), nn.Linear(features[1], 2))
        values = scale * torch.randn(max(1, sum(counts)), steps, features[0])
    found = region(values, counts)
    wanted = sum(slow(model, found, taken, clip_norm))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clip, "_by_product", lambda *_: never)
        ours = summed(model_on(model, loss_of, CPU), found, taken, clip_norm)
    assert np.linalg.norm(ours - wanted) <= (0.03 if never else 1e-4) * np.linalg.norm(wanted) + 1e-9


def signs(random: np.random.Generator, shape: tuple[int, int, int]) -> np.ndarray:
    """One vector a vehicle, with another sign at each position."""
    return random.normal(size=(shape[0], 1, shape[2])) * (-1.0) ** np.arange(shape[1])[:, None]


# What a coordinator's weights could make of the positions of one vehicle.
FACTORS = {
    "ordinary": lambda r, shape: r.normal(size=shape),
    "cancelling": lambda r, shape: signs(r, shape),
    "nearly cancelling": lambda r, shape: signs(r, shape) + 1e-6 * r.normal(size=shape),
    "constant": lambda r, shape: np.ones(shape) * r.normal(size=(shape[0], 1, 1)),
    "one huge": lambda r, shape: np.where(r.random(shape) < 0.1, 1e7, 1.0) * r.normal(size=shape),
    "tiny": lambda r, shape: 1e-20 * r.normal(size=shape),
    "huge": lambda r, shape: 1e15 * r.normal(size=shape),
    "not a number": lambda r, shape: np.where(r.random(shape) < 0.01, np.nan, r.normal(size=shape)),
}


def batch_of(gradient: Tensor, value: Tensor) -> MicroBatch:
    one = Product(value)
    one.gradient = gradient
    batch = MicroBatch([gradient.shape[2] * value.shape[2]], len(value), CPU)
    batch.take(0, [one])
    return batch


@settings(deadline=None)
@given(
    names=st.tuples(st.sampled_from(sorted(FACTORS)), st.sampled_from(sorted(FACTORS))),
    vehicles=st.integers(1, 70),
    positions=st.sampled_from([1, 2, 7, 40]),
    features=st.tuples(st.sampled_from([1, 3, 64]), st.sampled_from([1, 5, 80])),
    scale=st.sampled_from([1e-6, 1.0, 1e4]),
    clip_norm=st.sampled_from([1e-3, 0.3, 100.0]),
    seed=st.integers(0, 1000),
)
def test_norms_without_gradients_are_never_too_small(
    names, vehicles, positions, features, scale, clip_norm, seed
):
    """Against gradients formed in float64: factor times norm is at most C, and so is each one's influence."""
    random = np.random.default_rng(seed)
    gradient, value = (
        torch.from_numpy(FACTORS[name](random, (vehicles, positions, size)).astype(np.float32))
        for name, size in zip(names, features, strict=True)
    )
    gradient *= scale
    everyone = torch.ones(vehicles, dtype=torch.bool)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clip, "_by_product", lambda *_: True)
        total = batch_of(gradient, value).clipped_sum(clip_norm, everyone).numpy()
        assert np.isfinite(total).all()
        factors = batch_of(gradient, value)._factors(clip_norm, everyone).numpy()
        norms = torch.linalg.vector_norm(
            torch.bmm(gradient.double().transpose(1, 2), value.double()).flatten(1), dim=1
        ).numpy()
        counted = factors > 0
        assert (factors[counted] * norms[counted] <= clip_norm).all()
        victim = int(random.integers(vehicles))
        zero = gradient.clone(), value.clone()
        for part in zero:
            part[victim] = 0
        without = batch_of(*zero).clipped_sum(clip_norm, everyone).numpy()
    assert np.linalg.norm(total - without) <= clip_norm


def test_rounding_is_paid_for_where_parameters_have_other_groups(monkeypatch):
    """Of three parameters of 2, 9 and 40 positions, which cancel: rounding is nearly all there is."""
    monkeypatch.setattr(clip, "_by_product", lambda *_: True)
    count, bound, random = 32, 0.3, np.random.default_rng(0)
    batch, worst = MicroBatch([24] * 3, count, CPU), np.zeros(count)
    groups = {2: 32, 9: 32, 40: 4}  # equal ones of at most 288 positions and 64 vehicles
    for index, (positions, group) in enumerate(groups.items()):
        one = Product(torch.from_numpy(np.ones((count, positions, 4), np.float32)))
        factor = signs(random, (count, positions, 6)).astype(np.float32) * 1e4
        one.gradient = torch.from_numpy(factor)
        batch.take(index, [one])
        spread = 2 * np.linalg.norm(factor, axis=2).sum(axis=1)  # each |x| is 2
        worst += (2 * (group * positions + 4) * 2.0**-24 * group * spread) ** 2
    found = batch._factors(bound, torch.ones(count, dtype=torch.bool)).numpy()
    assert (found <= bound / 256 / np.sqrt(len(set(groups.values())) * worst)).all()
    assert (found > 0.9 * bound / 256 / np.sqrt(len(set(groups.values())) * worst)).all()


def test_coarser_products_are_not_relied_on():
    before = torch.get_float32_matmul_precision()
    one = Product(torch.ones(4, 20, 100))
    one.gradient = torch.ones(4, 20, 100)
    try:
        assert clip._by_product([one], 4)
        torch.set_float32_matmul_precision("medium")
        assert not clip._by_product([one], 4)
    finally:
        torch.set_float32_matmul_precision(before)


def test_large_sums_go_by_blocks(monkeypatch):
    means = torch.randn(9, 10_000, generator=torch.Generator().manual_seed(0))
    means[4, 5] = torch.inf
    wide = means.double().numpy()
    wide = np.delete(wide, 4, axis=0)
    wanted = (wide * np.minimum(1, 50 / (np.linalg.norm(wide, axis=1) + 1e-6))[:, None]).sum(axis=0)
    for block in (1 << 30, 1 << 16, 20_000, 999, 7):
        monkeypatch.setattr(clip, "_BLOCK", block)
        np.testing.assert_allclose(clip.clip_and_sum(means, 50.0), wanted, rtol=1e-11, atol=1e-13)


def test_mode_none_keeps_no_gradient_by_vehicle(monkeypatch):
    model = built("linear")
    ours = model_on(model, loss_of, CPU)
    monkeypatch.setattr(MicroBatch, "take", None)
    monkeypatch.setattr(layer.Tape, "recording", None)
    assert summed(ours, region(windows("linear", 14), COUNTS), TAKEN, None).any()


def test_an_input_changed_in_place_is_refused():
    model = Of(
        lambda m, x: m.a(y := torch.tanh(m.b(x))) + y.mul_(2).sum(), a=nn.Linear(6, 2), b=nn.Linear(6, 6)
    )
    ours = model_on(model, loss_of, CPU)
    with pytest.raises(ModelError, match="in place"):
        summed(ours, region(windows("linear", 14), COUNTS), TAKEN, 1.0)
    with pytest.raises(RuntimeError):  # as autograd itself would
        summed(ours, region(windows("linear", 14), COUNTS), TAKEN, None)


def test_what_the_probe_refuses_it_names():
    frozen, unused = Plain(), Plain()
    frozen.line.bias.requires_grad_(False)
    unused.spare = nn.Linear(3, 3)
    for model, name in ((frozen, "line.bias"), (unused, "spare.weight")):
        with pytest.raises(ModelError, match=f"model parameter {name}"):
            probe(model, TASK)


class Own(nn.Linear):
    """A layer of somebody's own: the engine cannot know what it computes."""

    def forward(self, input: Tensor) -> Tensor:
        return functional.linear(input, self.weight * 2, self.bias)


UNKNOWN = {
    "a subclass": lambda: Own(6, 2),
    "max_norm": lambda: nn.Embedding(5, 2, max_norm=1.0),
    "padding of another kind": lambda: nn.Conv1d(4, 2, 3, padding="same"),
    "circular padding": lambda: nn.Conv1d(4, 2, 3, padding=1, padding_mode="circular"),
    "projected LSTM": lambda: nn.LSTM(6, 4, proj_size=2),
    "attention of other widths": lambda: nn.MultiheadAttention(6, 2, kdim=4),
    "attention with a bias of its own": lambda: nn.MultiheadAttention(6, 2, add_bias_kv=True),
    "weight norm": lambda: nn.utils.parametrizations.weight_norm(nn.Linear(6, 2)),
}


@pytest.mark.parametrize("what", UNKNOWN)
def test_what_may_compute_something_else_is_not_known(what):
    assert layer.unknown(nn.Sequential(UNKNOWN[what]()))


def test_slower_gradients_are_announced_once(caplog):
    with caplog.at_level(logging.WARNING, logger="fedfsd.engine"):
        ours = model_on(built("by opacus"), loss_of, CPU)
        for _ in range(3):
            summed(ours, region(windows("by opacus", 14), COUNTS), TAKEN, 1.0)
        model_on(built("linear"), loss_of, CPU)
    assert [record.getMessage() for record in caplog.records] == [
        "slower gradients, by opacus: of 1 (InstanceNorm1d) the engine has none"
    ]


@pytest.mark.parametrize("kind", ["linear", "by opacus"])
def test_hooks_give_the_same_gradients(kind):
    model, data = built(kind), region(windows(kind, 14), COUNTS)
    ours, hooked = (model_on(copy.deepcopy(model), loss_of, CPU, engine=one) for one in ("auto", "hooks"))
    assert type(hooked._model).__name__ == "_Hooked"
    for clip_norm in (1e9, 0.02, None):
        wanted = summed(ours, data, TAKEN, clip_norm)
        assert np.linalg.norm(summed(hooked, data, TAKEN, clip_norm) - wanted) <= 1e-5 * np.linalg.norm(
            wanted
        )


@pytest.mark.parametrize("what", sorted(UNKNOWN))
def test_the_fast_engine_refuses_what_it_does_not_know_by_its_name(what):
    model = nn.Sequential(nn.Linear(2, 2), nn.Sequential(UNKNOWN[what]()))
    parameter = next(name for name, _ in model.named_parameters() if name.startswith("1.0"))
    with pytest.raises(ModelError) as refused:
        model_on(model, loss_of, CPU, engine="fast")
    name = refused.value.place.removeprefix("model parameter ")
    assert name in dict(model.named_parameters())
    assert name.startswith("1.0")
    assert parameter.split(".")[:2] == name.split(".")[:2]
    assert 'engine = "auto"' in refused.value.hint
    for one in model[1].parameters():  # what does not learn is not in its way
        one.requires_grad_(False)
    assert model_on(model, loss_of, CPU, engine="fast").size == 6


@pytest.mark.parametrize("kind", sorted(MODELS.keys() - {"by opacus"}))
def test_a_fast_engine_takes_every_layer_that_it_knows(kind):
    assert model_on(built(kind), loss_of, CPU, engine="fast").size


@settings(deadline=None)
@given(
    roster=st.integers(1, 100_000),
    rate=st.floats(1e-6, 1),
    places=st.integers(1, 64),
    size=st.integers(1, 30_000_000),
    share=st.floats(0.01, 4),
)
def test_a_micro_batch_fits_and_wastes_little(roster, rate, places, size, share):
    values = int(share * size * places) + 1
    found = micro_batch(roster, rate, places, size, values)
    assert 1 <= found <= min(roster, 256)
    assert found == 1 or 8 * values * found <= 2**30
    batches = -(-max(1, round(roster * rate)) // found)
    # Dear windows: no more of them empty than a draw's own spread and a batch's start are worth.
    empty = batches * found - roster * rate
    start = 2**20 + size
    assert empty * places * size <= 3 * (batches * start + places * size * (1 + 3 * np.sqrt(roster * rate)))


def test_micro_batches_of_public_sizes():
    assert micro_batch(150, 1.0, 8, 3726, 100_000) == 150
    assert micro_batch(150, 0.1, 8, 216, 1000) > 20  # nearly every draw in one batch
    assert 4 <= micro_batch(150, 0.1, 8, 171_316, 10**6) <= 10
    assert micro_batch(100_000, 1.0, 1, 11_000_000, 4_000_000) == 33  # what is kept has to fit


def test_what_the_tape_saw_is_gone_after_the_step():
    model = built("linear over steps")
    ours = model_on(model, loss_of, CPU)
    summed(ours, region(windows("linear over steps", 14), COUNTS), TAKEN, 1.0)
    tape = ours._model._tape
    assert not tape._uses
    assert not tape._awaited
    assert all(parameter.grad is None for parameter in model.parameters())


def test_ready_gradients_of_rows_are_summed_by_vehicle():
    rows = torch.arange(12.0).view(6, 2)
    np.testing.assert_array_equal(Sampled(rows).by_vehicle(3), [[2, 4], [10, 12], [18, 20]])
