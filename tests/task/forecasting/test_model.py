"""The forecasting models: their contract, exact per-window gradients, and models from other packages."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from conftest import drives
from opacus.validators import ModuleValidator

from fedfsd.config.experiment import Pretraining
from fedfsd.engine.local import model_on, private_step
from fedfsd.engine.pretraining import pretrain
from fedfsd.engine.probe import probe
from fedfsd.engine.randomness import RoundKey
from fedfsd.engine.vehicle import place
from fedfsd.errors import ConfigError
from fedfsd.gate.policy import OWN_MODELS
from fedfsd.plan.plan import RegionPlan
from fedfsd.task import path
from fedfsd.task.forecasting import predictor, window
from fedfsd.task.forecasting.loss import window_loss
from fedfsd.task.forecasting.model import registry
from fedfsd.task.forecasting.task import Forecasting
from fedfsd.task.forecasting.window import WindowSpec

SPEC = WindowSpec()
TASK = Forecasting({})
# Shapes that differ in every option: one mode and several, one layer and several.
LEARNED = [
    ("gru", {}),
    ("gru", {"width": 5, "modes": 6}),
    ("transformer", {}),
    ("transformer", {"width": 6, "heads": 3, "layers": 2, "modes": 1}),
]
each_model = pytest.mark.parametrize("name", OWN_MODELS["forecasting"])
each_learned = pytest.mark.parametrize(("name", "options"), LEARNED)


def windows(
    count: int, *, seed: int = 0, spec: WindowSpec = SPEC, surprising: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """Drives that speed up, slow down and turn: history (B, H, 2), future (B, F, 2).

    ``surprising`` drives hold their velocity until the present, so that the history tells nothing.
    """
    random = np.random.default_rng(seed)
    points = spec.history + spec.future
    elapsed = spec.period_seconds * np.arange(points)
    if surprising:
        elapsed = np.maximum(elapsed - elapsed[spec.history - 1], 0)
    speed = random.uniform(5, 15, (count, 1)) + random.normal(0, 1, (count, 1)) * elapsed
    heading = random.normal(0, 0.15, (count, 1)) * elapsed
    moves = spec.period_seconds * speed[..., None] * np.stack([np.cos(heading), np.sin(heading)], axis=-1)
    history, future = window.agent_frame(np.cumsum(moves, axis=1), spec.history)
    return torch.from_numpy(history), torch.from_numpy(future)


def fitted(name: str, options: dict, **drawn) -> torch.nn.Module:
    """The model after 300 steps of Adam on 400 windows."""
    model = registry.build(name, options, SPEC, seed=1)
    history, future = windows(400, **drawn)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(300):
        optimizer.zero_grad()
        window_loss(*model(history), future).mean().backward()
        optimizer.step()
    return model


def scrambled(name: str, options: dict, *, spec: WindowSpec = SPEC) -> torch.nn.Module:
    """The model with random weights: as built, its zero head hides what lies before it."""
    model = registry.build(name, options, spec, seed=1)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    return model


def region(**changes) -> RegionPlan:
    """The constants of a region of five vehicles."""
    constants = {
        "roster": 5,
        "identity": "physical",
        "sample_rate": 1.0,
        "noise_multiplier": 1.0,
        "max_grad_norm": 0.3,
        "local_steps": 1,
        "windows_per_vehicle": 4,
        "weight": 1.0,
        "target_delta": 1e-3,
        "target_epsilon": None,
        "epsilon": None,
    }
    return RegionPlan(**(constants | changes))


def one_step(model: torch.nn.Module, **changes) -> np.ndarray:
    """One private step of ``model`` on five drawn vehicles."""
    data = place(TASK.examples([drives({"CN": 9})], test=False), roster=9, device=torch.device("cpu"))
    mine = region(roster=9, **changes)
    gradient = model_on(model, TASK.loss, torch.device("cpu"))
    key = RoundKey(b"k" * 32, "CN", "plan", 1, "0" * 64)
    return private_step(gradient, data, mine, key, step=0, size=gradient.size + 7).numpy()


@each_model
def test_every_model_keeps_the_contract(name):
    model = registry.build(name, {}, SPEC, seed=1)
    assert ModuleValidator.validate(model, strict=False) == []
    probe(model, TASK)
    history, _ = windows(3)
    paths, scores = model(torch.cat([history, torch.zeros(1, SPEC.history, 2)]))  # the last one stands
    assert paths.shape == (4, scores.shape[1], SPEC.future, 2)
    assert paths.isfinite().all()
    assert scores.isfinite().all()


@each_model
def test_every_model_treats_each_row_alone(name):
    model = scrambled(name, {}).eval()
    history, _ = windows(6)
    paths, scores = model(history)
    for row in range(6):
        alone, score = model(history[row : row + 1])
        torch.testing.assert_close(alone[0], paths[row])
        torch.testing.assert_close(score[0], scores[row])


@pytest.mark.parametrize(("name", "count"), [("gru", 1212), ("transformer", 3726)])
def test_the_defaults_are_small(name, count):
    assert sum(p.numel() for p in registry.build(name, {}, SPEC, seed=1).parameters()) == count


@each_learned
@pytest.mark.parametrize("spec", [SPEC, WindowSpec(0.5, 2.0, 0.5), WindowSpec(1.0, 1.0, 0.1)])
def test_the_likeliest_path_starts_as_constant_velocity(name, options, spec):
    history, _ = windows(40, spec=spec)
    paths, scores = registry.build(name, options, spec, seed=1)(history)
    likeliest = paths[torch.arange(40), scores.argmax(dim=1)]
    np.testing.assert_allclose(
        likeliest.detach().numpy(), predictor.last_step(history.numpy(), spec.future), atol=1e-4
    )


@pytest.mark.parametrize("name", ["gru", "transformer"])
@pytest.mark.parametrize("modes", [2, 3, 6, 9])
def test_modes_start_apart_so_that_the_best_one_can_differ(name, modes):
    history = torch.stack([torch.arange(-4.0, 1), torch.zeros(5)], dim=1)[None] * 10  # straight on at 20 m/s
    paths, _ = registry.build(name, {"modes": modes}, SPEC, seed=1)(history)
    ends = paths[0, :, -1]
    assert torch.pdist(ends).min() > 3
    # Some slow down and some do not, and turns come in pairs: a mirrored scene is no harder.
    left, right = ends[ends[:, 1] > 2], ends[ends[:, 1] < -2]
    assert len(left) == len(right)


@each_learned
def test_gradients_by_window_equal_a_plain_loop(name, options):
    model = scrambled(name, options)
    history, future = windows(8)
    loop = []
    for row in range(8):
        loss = window_loss(*model(history[row : row + 1]), future[row : row + 1]).sum()
        loop.append(torch.cat([part.flatten() for part in torch.autograd.grad(loss, [*model.parameters()])]))
    engine = model_on(model, TASK.loss, torch.device("cpu"))
    together = engine.mean_by_vehicle(
        {"history": history[:, None]}, {"future": future[:, None]}, torch.ones(8, 1, dtype=torch.bool)
    )
    for row in range(8):
        assert loop[row].norm() > 0.1
        assert (together[row] - loop[row]).norm() <= 1e-5 * loop[row].norm()
    # Two vehicles of four windows each, one of which is not taken.
    taken = torch.tensor([[True] * 4, [True, True, True, False]])
    mean = engine.mean_by_vehicle(
        {"history": history.view(2, 4, -1, 2)}, {"future": future.view(2, 4, -1, 2)}, taken
    )
    for vehicle, rows in enumerate((loop[:4], loop[4:7])):
        expected = torch.stack(rows).mean(dim=0)
        assert (mean[vehicle] - expected).norm() <= 1e-5 * expected.norm()


@each_learned
def test_every_parameter_learns(name, options):
    # A weight whose gradient is always zero would still be noised, and would hide a broken path.
    model = scrambled(name, options)
    window_loss(*model(windows(64)[0]), windows(64)[1]).mean().backward()
    for label, parameter in model.named_parameters():
        assert parameter.grad.abs().max() > 1e-7, label


@each_learned
def test_training_halves_the_error_of_constant_velocity(name, options):
    model = fitted(name, options)
    history, future = windows(200, seed=9)
    paths, scores = (part.detach().numpy() for part in model(history))
    owner = np.arange(200)
    learned = path.measure(paths, scores, future.numpy(), owner).values
    simple = path.single(predictor.last_step(history.numpy(), SPEC.future), future.numpy(), owner).values
    assert simple["fde_m"].mean() > 4
    assert learned["min_fde_k_m"].mean() < 0.5 * simple["fde_m"].mean()
    assert learned["fde_m"].mean() < 0.8 * simple["fde_m"].mean()


def test_modes_share_the_futures_that_one_path_cannot_meet():
    model = fitted("gru", {"modes": 6}, surprising=True)
    history, future = windows(200, seed=9, surprising=True)
    distance = (model(history)[0][:, :, -1] - future[:, None, -1]).norm(dim=-1)
    single = (fitted("gru", {}, surprising=True)(history)[0][:, 0, -1] - future[:, -1]).norm(dim=-1)
    assert distance.min(dim=1).values.mean() < 0.6 * single.mean()
    assert len(distance.argmin(dim=1).unique()) >= 4


@each_learned
def test_pretraining_is_deterministic(name, options):
    start, one, other = (registry.build(name, options, SPEC, seed=1) for _ in range(3))
    for model in (one, other):
        pretrain(model, TASK, [drives({"PUBLIC": 30})], Pretraining(steps=5), seed=3)
    for first, same, before in zip(one.parameters(), other.parameters(), start.parameters(), strict=True):
        assert torch.equal(first, same)
        assert not torch.equal(first, before)


@each_learned
def test_a_private_step_repeats_under_its_key_and_carries_noise(name, options):
    noisy = one_step(registry.build(name, options, SPEC, seed=1))
    again = one_step(registry.build(name, options, SPEC, seed=1))
    plain = one_step(registry.build(name, options, SPEC, seed=1), noise_multiplier=0.0)
    assert (noisy == again).all()
    assert (plain[-7:] == 0).all()
    assert np.linalg.norm(plain) > 0
    assert (noisy != plain).all()


@each_model
def test_the_seed_alone_decides_the_start(name):
    torch.manual_seed(7)
    state = torch.random.get_rng_state()
    first, same, other = (registry.build(name, {}, SPEC, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), state)
    pairs = zip(first.parameters(), same.parameters(), other.parameters(), strict=True)
    different = 0
    for one, two, three in pairs:
        assert torch.equal(one, two)
        different += not torch.equal(one, three)
    assert different


@pytest.mark.parametrize(
    ("name", "options", "place"),
    [
        ("gru", {"widht": 8}, "model.options.widht"),
        ("gru", {"width": 0}, "model.options.width"),
        ("gru", {"modes": 0}, "model.options.modes"),
        ("gru", {"modes": "many"}, "model.options.modes"),
        ("transformer", {"head": 1}, "model.options.head"),
        ("transformer", {"width": 16, "heads": 3}, "model.options.heads"),
        ("transformer", {"layers": 0}, "model.options.layers"),
    ],
)
def test_options_a_model_does_not_know_are_refused(name, options, place):
    with pytest.raises(ConfigError) as caught:
        registry.build(name, options, SPEC, seed=1)
    assert caught.value.place == place
    assert caught.value.hint


@each_model
def test_a_history_without_a_step_is_refused(name):
    with pytest.raises(ConfigError, match="history_seconds"):
        registry.build(name, {}, WindowSpec(history_seconds=0.1), seed=1)


OUTSIDE = """
from fedfsd.config.load import Frozen
from torch import nn, zeros

class Options(Frozen):
    slope: float = 1.0

class Straight(nn.Module):
    def __init__(self, options, spec):
        super().__init__()
        self.line = nn.Linear(2, spec.future * 2)
        self.slope, self.future = options.slope, spec.future

    def forward(self, history):
        step = (history[:, -1] - history[:, -2]) * self.slope
        return self.line(step).unflatten(1, (1, self.future, 2)), zeros(len(history), 1)

ENTRY = (Options, Straight)
"""


@pytest.fixture
def outside(tmp_path, monkeypatch):
    """An installed distribution that registers the model ``straight``."""
    (tmp_path / "outside_straight.py").write_text(OUTSIDE)
    info = tmp_path / "outside_straight-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: outside-straight\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[fedfsd.models]\nstraight = outside_straight:ENTRY\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("outside_straight", None)


@pytest.mark.usefixtures("outside")
def test_another_package_brings_its_own_model():
    model = registry.build("straight", {"slope": 0.5}, SPEC, seed=1)
    assert type(model).__module__ == "outside_straight"
    probe(model, TASK)
    assert np.linalg.norm(one_step(model, noise_multiplier=0.0)) > 0
    with pytest.raises(ConfigError) as caught:
        registry.build("straight", {"slop": 0.5}, SPEC, seed=1)
    assert caught.value.place == "model.options.slop"
    assert caught.value.hint == "did you mean slope?"


@pytest.mark.usefixtures("outside")
def test_an_unknown_model_lists_those_there_are():
    with pytest.raises(ConfigError) as caught:
        registry.build("strait", {}, SPEC, seed=1)
    assert caught.value.place == "model.name"
    assert caught.value.got == "'strait'"
    assert caught.value.expected == "gru | mlp | straight | transformer"


def test_without_the_package_its_model_is_not_listed():
    with pytest.raises(ConfigError, match=r"gru \| mlp \| transformer"):
        registry.build("straight", {}, SPEC, seed=1)
