"""What is named trains; the rest is frozen: against one vehicle at a time in float64, and as files."""

from __future__ import annotations

import copy
from typing import ClassVar

import numpy as np
import pytest
import torch
from engine.small import SPEC, TASK
from engine.test_gradient import COUNTS, CPU, MODELS, TAKEN, Inside, built, loss_of, region, summed, windows
from plan.sample import REGION, planned
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn import functional

from fedfsd import canonical
from fedfsd.engine import backbone, clip, trunk
from fedfsd.engine.local import lanes_of, model_on, train
from fedfsd.engine.probe import probe, probe_places
from fedfsd.engine.randomness import RoundKey
from fedfsd.engine.vehicle import place
from fedfsd.errors import ConfigError, ModelError, NotReadyError, RefusedError
from fedfsd.plan.plan import WITNESS, ArraySchema, BackbonePlan, ModelPlan
from fedfsd.task.forecasting.model import registry
from fedfsd.task.task import Examples


class Adapted(nn.Module):
    """A frozen linear layer and a low-rank one beside it (Hu et al. 2021), built of known layers."""

    def __init__(self, inward: int, outward: int, rank: int = 2) -> None:
        super().__init__()
        self.base = nn.Linear(inward, outward)
        self.down = nn.Linear(inward, rank, bias=False)
        self.up = nn.Linear(rank, outward, bias=False)

    def forward(self, value: Tensor) -> Tensor:
        return self.base(value) + self.up(self.down(value))


class Body(nn.Module):
    """A convolution with normalisation, then adapters."""

    parts: ClassVar = {"adapters": ("*.down", "*.up"), "start": ("conv",)}

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(2, 4, 2)
        self.norm = nn.BatchNorm1d(4)
        self.code = Adapted(4 * (SPEC.history - 1), 6)
        self.last = nn.LayerNorm(6)

    def trunk(self, history: Tensor) -> Tensor:
        rows = torch.relu(self.norm(self.conv(history.transpose(1, 2) / 10)))
        return self.last(torch.tanh(self.code(rows.flatten(1))))


class Net(Body):
    """With a head."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(6, 2 * SPEC.future)

    def forward(self, history: Tensor) -> tuple[Tensor, Tensor]:
        paths = self.head(self.trunk(history)).unflatten(1, (1, SPEC.future, 2))
        return paths, torch.zeros(len(history), 1)


class Split(Body):
    """With a head that begins where the trunk ends."""

    def __init__(self) -> None:
        super().__init__()
        self.out = nn.Linear(6, 2 * SPEC.future)

    def head(self, code: Tensor) -> tuple[Tensor, Tensor]:
        return self.out(code).unflatten(1, (1, SPEC.future, 2)), torch.zeros(len(code), 1)

    def forward(self, history: Tensor) -> tuple[Tensor, Tensor]:
        return self.head(self.trunk(history))


def net(kind: type[Body] = Net) -> Body:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        model = kind()
        for value in (model.norm.running_mean, model.norm.running_var):
            value.add_(0.3 * torch.rand(value.shape))
        return model


# Words.


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ("all", None),
        ("head", {"head.weight", "head.bias"}),
        ("norms", {"norm.weight", "norm.bias", "last.weight", "last.bias"}),
        ("adapters", {"code.down.weight", "code.up.weight"}),
        ("start", {"conv.weight", "conv.bias"}),
        ("code.base", {"code.base.weight", "code.base.bias"}),
        (
            ["*.bias", "head.weight"],
            {"conv.bias", "norm.bias", "code.base.bias", "last.bias", "head.bias", "head.weight"},
        ),
    ],
)
def test_words_and_patterns_name_parameters(wanted, found):
    model = net()
    every = [name for name, _ in model.named_parameters()]
    assert backbone.trained(model, wanted) == tuple(name for name in every if found is None or name in found)


@pytest.mark.parametrize("wanted", ["heads", ["head", "layers.9.*"], "", []])
def test_a_pattern_that_names_nothing_is_refused(wanted):
    with pytest.raises(ConfigError) as refused:
        backbone.trained(net(), wanted)
    assert refused.value.place == "model.trainable"
    for word in ("heads", "layers.9.*"):
        assert (word in str(refused.value)) == (word in wanted)


def test_norms_are_found_in_the_shipped_models():
    model = registry.build("transformer", {}, SPEC, seed=1)
    found = backbone.trained(model, ["norms", "head"])
    assert "norm.weight" in found
    assert "layers.0.feed.0.bias" in found
    assert not any("query" in name or "embed" in name for name in found)


# Gradients.


class OwnAdapted(nn.Linear):
    """The same with parameters of its own, as many write it: not a layer that the engine knows."""

    def __init__(self, inward: int, outward: int, rank: int = 2) -> None:
        super().__init__(inward, outward)
        self.down = nn.Parameter(torch.randn(rank, inward))
        self.up = nn.Parameter(torch.randn(outward, rank))

    def forward(self, value: Tensor) -> Tensor:
        return functional.linear(value, self.weight, self.bias) + value @ self.down.t() @ self.up.t()


class LowRank(nn.Module):
    """An adapter as a parametrization of a weight."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.up = nn.Parameter(torch.randn(2, 6)), nn.Parameter(torch.randn(5, 2))

    def forward(self, weight: Tensor) -> Tensor:
        return weight + self.up @ self.down


def shared() -> nn.Module:
    model = nn.Sequential(OwnAdapted(6, 6), nn.Tanh(), OwnAdapted(6, 6))
    model[2].down = model[0].down
    return model


ADAPTED = {
    "adapters": lambda: nn.Sequential(Adapted(6, 5), nn.Tanh(), Adapted(5, 3)),
    "adapters of one's own": lambda: nn.Sequential(OwnAdapted(6, 5), nn.Tanh(), OwnAdapted(5, 3)),
    "shared adapters": shared,
}


def slow(model: nn.Module, data, clip_norm: float) -> np.ndarray:
    """The sum over vehicles of their clipped mean gradients in what learns, one window at a time."""
    model = copy.deepcopy(model).double()
    learning = [one for one in model.parameters() if one.requires_grad]
    total: np.ndarray | float = 0.0
    for first, count in zip(data.first, data.counts, strict=True):
        mine: np.ndarray | float = 0.0
        for row in range(first, first + count):
            loss = loss_of(model(data.inputs["x"][[row]].double()), None).sum()
            parts = torch.autograd.grad(loss, learning)
            mine = mine + torch.cat([part.flatten() for part in parts]).numpy() / count
        total = total + mine * min(1.0, clip_norm / np.linalg.norm(mine))
    return np.asarray(total)


@pytest.mark.parametrize("odd", [False, True])
@pytest.mark.parametrize("kind", sorted({*MODELS, *ADAPTED}))
def test_what_learns_gets_the_gradients_of_the_slow_reference(kind, odd, monkeypatch):
    """Every second parameter frozen, in every layer that the engine knows."""
    if kind in ADAPTED:
        monkeypatch.setitem(MODELS, kind, (ADAPTED[kind], (5, 6)))
    monkeypatch.setattr(clip, "_by_product", lambda *_: False)  # which rounds more
    model = built(kind)
    for module in model.modules():  # the reference has no dropout
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        elif isinstance(module, nn.RNNBase | nn.MultiheadAttention):
            module.dropout = 0.0
    names = [name for name, _ in model.named_parameters()]
    chosen = names[odd::2]
    if not chosen:
        return
    backbone.freeze(model, chosen)
    data = region(windows(kind, 14), COUNTS)
    ours = model_on(copy.deepcopy(model), loss_of, CPU)
    assert ours.size == sum(one.numel() for one in model.parameters() if one.requires_grad)
    for clip_norm in (1e9, 0.01):
        wanted = slow(model, data, clip_norm)
        assert np.linalg.norm(summed(ours, data, TAKEN, clip_norm) - wanted) <= 2e-5 * np.linalg.norm(wanted)
    wanted = slow(model, data, 1e9)
    assert np.linalg.norm(summed(ours, data, TAKEN, None) - wanted) <= 2e-5 * np.linalg.norm(wanted)


@pytest.mark.parametrize("kind", sorted(ADAPTED))
def test_adapters_beside_frozen_layers(kind, monkeypatch):
    """Exact, whoever computes them, and taken by the probe; what stands before them gets no gradient."""
    monkeypatch.setitem(MODELS, kind, (ADAPTED[kind], (5, 6)))
    monkeypatch.setattr(clip, "_by_product", lambda *_: False)
    torch.manual_seed(3)
    model = built(kind)
    backbone.freeze(model, backbone.trained(model, ["*down*", "*up*"]))
    data = region(windows(kind, 14), COUNTS)
    ours = model_on(copy.deepcopy(model), loss_of, CPU)
    for clip_norm in (1e9, 0.01):
        wanted = slow(model, data, clip_norm)
        assert np.linalg.norm(summed(ours, data, TAKEN, clip_norm) - wanted) <= 2e-5 * np.linalg.norm(wanted)
    inside = Inside(built(kind), (5, 6))
    names = backbone.trained(inside, ["*down*", "*up*"])
    backbone.freeze(inside, names)
    probe(inside, TASK, names)


def test_an_adapter_as_a_parametrization_is_refused_by_name():
    inner = nn.Linear(6, 5)
    nn.utils.parametrize.register_parametrization(inner, "weight", LowRank())
    model = Inside(nn.Sequential(inner), (5, 6))
    names = backbone.trained(model, ["*.down", "*.up"])
    backbone.freeze(model, names)
    with pytest.raises(ModelError, match=r"model layer inner\.0: got a weight that is computed from others"):
        probe(model, TASK, names)
    names = backbone.trained(model, "leave")  # frozen, it is a constant
    backbone.freeze(model, names)
    probe(model, TASK, names)


def test_nothing_is_computed_before_the_first_layer_that_learns(monkeypatch):
    model = net()
    backbone.freeze(model, ["head.weight", "head.bias"])
    ours = model_on(model, TASK.loss, CPU)
    seen = []
    model.code.register_forward_hook(lambda _, __, output: seen.append(output.requires_grad))
    inputs, targets = TASK.synthetic(torch.Generator().manual_seed(0))
    ours.mean_by_vehicle(inputs, targets, torch.ones(6, 3, dtype=torch.bool))
    assert seen == [False]


# Frozen parts.


def test_a_frozen_part_stays_still(monkeypatch):
    """Batch normalisation is refused where it learns, and a constant where it is frozen."""
    model = net()
    with pytest.raises(ModelError):
        probe(copy.deepcopy(model), TASK)
    names = backbone.trained(model, ["adapters", "head"])
    backbone.freeze(model, names)
    probe(model, TASK, names)
    before = {name: value.clone() for name, value in model.named_buffers()}
    ours = model_on(model, TASK.loss, CPU)
    inputs, targets = TASK.synthetic(torch.Generator().manual_seed(0))
    ours.mean_by_vehicle(inputs, targets, torch.ones(6, 3, dtype=torch.bool))
    assert before
    assert all(torch.equal(value, before[name]) for name, value in model.named_buffers())


def test_one_that_should_learn_is_refused_frozen():
    model = net()
    backbone.freeze(model, ["head.weight"])
    with pytest.raises(ModelError, match=r"head\.bias"):
        probe(model, TASK, ["head.weight", "head.bias"])


# Files.


def plan_of(model: nn.Module, names: tuple[str, ...], content: bytes, source="file") -> ModelPlan:
    shapes = {name: tuple(one.shape) for name, one in model.named_parameters() if name in names}
    return ModelPlan(
        name="net",
        options={},
        arrays=tuple(ArraySchema(name=name, shape=shape) for name, shape in shapes.items()),
        witness_size=0,
        initial_sha256="0" * 64,
        backbone=BackbonePlan(sha256=canonical.sha256(content), size=1, source=source),
    )


def moved(model: nn.Module) -> nn.Module:
    """The same with other weights and buffers."""
    other = copy.deepcopy(model)
    with torch.no_grad():
        for value in (*other.parameters(), other.norm.running_mean):
            value.add_(1.0)
    return other


def test_a_backbone_comes_back_from_its_file_whole(tmp_path):
    model, names = moved(net()), ("head.weight", "head.bias")
    content = backbone.packed(model, names)
    assert content == backbone.packed(copy.deepcopy(model), names)
    (tmp_path / "other.safetensors").write_bytes(b"something else")
    (tmp_path / "mine.safetensors").write_bytes(content)
    for files in (tmp_path, tmp_path / "mine.safetensors"):
        fresh = net()
        backbone.fit(fresh, plan_of(fresh, names, content), files)
        state = fresh.state_dict()
        for name, value in model.state_dict().items():
            assert torch.equal(value, state[name]) == (name not in names)
        assert [name for name, one in fresh.named_parameters() if one.requires_grad] == list(names)


def test_a_model_that_brings_its_backbone_needs_no_file():
    model, names = net(), ("head.weight", "head.bias")
    plan = plan_of(model, names, backbone.packed(model, names), "model")
    backbone.fit(model, plan, "")
    with pytest.raises(RefusedError, match=r"plan\.model\.backbone: got other weights"):
        backbone.fit(moved(model), plan, "")


@pytest.mark.parametrize("files", ["nowhere", "."])
def test_a_missing_backbone_is_said_by_its_hash(tmp_path, monkeypatch, files):
    monkeypatch.chdir(tmp_path)
    model, names = net(), ("head.weight", "head.bias")
    plan = plan_of(model, names, backbone.packed(moved(model), names))
    (tmp_path / "other.safetensors").write_bytes(backbone.packed(model, names))
    with pytest.raises(NotReadyError, match=f"backbone {plan.backbone.sha256[:16]}: no file with this hash"):
        backbone.fit(model, plan, files)


def test_arrays_of_another_model_are_refused():
    model, names = net(), ("head.weight", "head.bias")
    content = backbone.packed(model, names)
    plan = plan_of(model, names, content)
    for arrays in (plan.arrays[::-1], (*plan.arrays, ArraySchema(name="more", shape=(1,)))):
        with pytest.raises(RefusedError, match=r"plan\.model\.arrays"):
            backbone.fit(net(), plan.model_copy(update={"arrays": arrays}), "")
    with pytest.raises(RefusedError, match=r"plan\.model\.arrays"):  # without a backbone all must be there
        backbone.fit(net(), plan.model_copy(update={"backbone": None}), "")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda found: found.pop("conv.bias"), "without conv.bias"),
        (lambda found: found.update({"conv.bias": torch.zeros(9)}), "with another shape of conv.bias"),
        (lambda found: found.update({"layer.9": torch.zeros(9)}), "with the unknown layer.9"),
    ],
)
def test_a_file_of_another_model_is_refused(change, said):
    model, names = net(), ("head.weight", "head.bias")
    found = {name: value.clone() for name, value in model.state_dict().items()}
    change(found)
    with pytest.raises(ConfigError, match=f"there: got weights {said}"):
        backbone.restore(model, names, save(found), place="there")
    for nothing in (b"", b"\x00" * 100, b"\xff" * 9):
        with pytest.raises(ConfigError, match="there: no file of weights"):
            backbone.restore(model, names, nothing, place="there")


# Features.


def examples(counts: list[int], seed: int = 0) -> Examples:
    random = np.random.default_rng(seed)
    step = random.normal([4.0, 0.0], [1.0, 0.4], size=(sum(counts), SPEC.history + SPEC.future, 2))
    track = step.cumsum(1).astype(np.float32)
    track -= track[:, SPEC.history - 1 : SPEC.history]
    return Examples(
        tuple(f"car {number:02}" for number in range(len(counts))),
        np.repeat(np.arange(len(counts)), counts),
        {"history": track[:, : SPEC.history]},
        {"future": track[:, SPEC.history :]},
    )


def update(
    model: nn.Module,
    found: Examples,
    names: tuple[str, ...],
    *,
    behind: bool,
    engine: str = "auto",
    packed: bool = False,
) -> dict[str, np.ndarray]:
    """One round of three steps without noise worth mentioning."""
    shapes = {name: tuple(one.shape) for name, one in model.named_parameters() if name in names}
    plan = planned({**shapes, WITNESS: (64,)}, roster=12, local_steps=3, noise_multiplier=0.01, epsilon=1.0)
    mine = plan.region(REGION).model_copy(update={"packed": packed})
    plan = plan.model_copy(update={"format": 3, "regions": {REGION: mine}})
    arrays = {name: one.detach().numpy() for name, one in model.named_parameters() if name in names}
    arrays[WITNESS] = np.zeros(64, np.float32)
    model = copy.deepcopy(model)
    backbone.freeze(model, names)
    assert trunk.frozen(model, TASK)
    gradient = model_on(model, TASK.loss, CPU, behind_trunk=behind, engine=engine)
    data = (
        trunk.place_behind(model, found, roster=12, device=CPU)
        if behind
        else place(found, roster=12, device=CPU)
    )
    return train(gradient, data, arrays, plan, RoundKey(bytes(32), REGION, "plan", 1, "arrays"))


CARS = [3, 0, 1, 9, 2, 0, 17, 1, 8, 4, 30, 2]


@pytest.mark.parametrize("counts", [CARS, [0] * 12])
def test_features_kept_or_computed_again_are_the_same_bits(monkeypatch, counts):
    model, found = net(Split), examples(counts)
    names = backbone.trained(model, "out")
    kept = update(model, found, names, behind=True)
    monkeypatch.setattr(trunk, "_KEPT", 0)
    again = update(model, found, names, behind=True)
    assert all(np.array_equal(kept[name], again[name]) for name in kept)
    for other in (
        update(model, found, names, behind=False),
        update(model, found, names, behind=True, engine="hooks"),
    ):
        for name in kept:
            np.testing.assert_allclose(kept[name], other[name], rtol=1e-3, atol=1e-6)
    assert (np.abs(kept["out.weight"]).max() > 5 * np.abs(kept[WITNESS]).max()) == any(counts)


def test_features_are_packed_as_windows_are(monkeypatch):
    model, found = net(Split), examples(CARS)
    names = backbone.trained(model, "out")
    forward, seen = trunk.Head.forward, []
    monkeypatch.setattr(
        trunk.Head, "forward", lambda *given: (seen.append(len(given[1])), forward(*given))[1]
    )
    usual = update(model, found, names, behind=True)
    computed = sum(seen)
    packed = update(model, found, names, behind=True, packed=True)
    assert sum(seen) - computed not in (0, computed)
    monkeypatch.setattr(trunk, "_KEPT", 0)
    again = update(model, found, names, behind=True, packed=True)
    for name in usual:
        assert np.array_equal(packed[name], again[name])
        np.testing.assert_allclose(packed[name], usual[name], rtol=1e-4, atol=1e-7)


def test_what_is_packed_behind_a_trunk_is_tried_behind_it(monkeypatch):
    model, seen = net(Split), []
    backbone.freeze(model, backbone.trained(model, "out"))
    usual = trunk.Head.forward
    monkeypatch.setattr(trunk.Head, "forward", lambda *given: (seen.append(len(given[1])), usual(*given))[1])
    mine = planned().region(REGION).model_copy(update={"packed": True, "roster": 60})
    probe_places(model, TASK, [mine])
    shapes = lanes_of(mine, sum(one.numel() for one in model.out.parameters()), CPU)
    assert {lane.vehicles * lane.places for lane in shapes} == set(seen)


def test_a_vehicles_features_depend_on_no_other():
    model, found = net(Split), examples(CARS)
    backbone.freeze(model, ["out.weight", "out.bias"])
    whole = trunk.place_behind(model, found, roster=12, device=CPU)
    left = np.isin(found.owner, [6, 8, 10])
    fewer = Examples(
        found.vehicles,
        found.owner[left],
        {name: values[left] for name, values in found.inputs.items()},
        {name: values[left] for name, values in found.targets.items()},
    )
    alone = trunk.place_behind(model, fewer, roster=12, device=CPU)
    for slot in (6, 8, 10):
        mine, other = (
            data.inputs["0"][int(data.first[slot]) : int(data.first[slot] + data.counts[slot])]
            for data in (whole, alone)
        )
        assert len(mine) == CARS[slot]
        assert torch.equal(mine, other)


def test_a_trunk_that_learns_is_no_frozen_one():
    model = net(Split)
    for wanted, ends in ((["out"], True), (["out", "norms"], False), ("all", False)):
        backbone.freeze(model, backbone.trained(model, wanted))
        assert trunk.frozen(model, TASK) == ends
    plain = registry.build("mlp", {}, SPEC, seed=1)
    backbone.freeze(plain, ["head.weight"])
    assert not trunk.frozen(plain, TASK)


@pytest.mark.parametrize("name", ["gru", "transformer"])
def test_the_shipped_models_say_where_their_trunk_ends(name):
    model = registry.build(name, {}, SPEC, seed=1)
    backbone.freeze(model, backbone.trained(model, "head"))
    assert trunk.frozen(model, TASK)
    inputs, _ = TASK.synthetic(torch.Generator().manual_seed(0))
    history = inputs["history"].flatten(0, 1)
    for one, other in zip(model(history), trunk.Head(model)(*model.trunk(history)), strict=True):
        assert torch.equal(one.nan_to_num(), other.nan_to_num())
