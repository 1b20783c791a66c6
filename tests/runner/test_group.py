"""A region of several processes: the same noise, draws and sum; a lost process fails a round and no more."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from books import rounds_in
from conftest import drives
from plan.sample import REGION, with_canaries
from runner.runner_kit import ARRAYS, gate_of, rehearsal, train_folder

from fedfsd.config.load import load
from fedfsd.drive import table
from fedfsd.engine.randomness import Stream
from fedfsd.engine.sampler import choose_windows
from fedfsd.errors import ConfigError, NotReadyError
from fedfsd.gate import arrays as gate_arrays
from fedfsd.ledger import program as programs
from fedfsd.mechanism.canary import coins as tosses
from fedfsd.mechanism.canary import verdict
from fedfsd.plan.plan import WITNESS
from fedfsd.runner import coins
from fedfsd.runner.group import Group, Members
from fedfsd.runner.process import SETTINGS, Settings
from fedfsd.runner.region import Region, RegionConfig, open_region, run_round

TWO = 'format = 2\ndevices = ["cpu", "cpu"]\n'


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A runner's folder of two processes, and its table."""
    folder = tmp_path_factory.mktemp("group")
    data = folder / "synthetic.parquet"
    table.write(drives({REGION: 40, "EU": 5}, origin="synthetic"), data)
    train = train_folder(folder, str(data))
    settings = train / SETTINGS
    settings.write_text(TWO + settings.read_text().replace('device = "cpu"\n', ""))
    return train


@pytest.fixture(scope="module")
def group(place):
    """The second process is started once."""
    two = Members(("cpu", "cpu"))
    found = Group(place, two, programs.installed(place).hash)
    yield found
    found.close()


def region(place: Path, folder: Path, plan, group: Group | None) -> Region:
    gate_of(folder, plan)
    data = str(place.parent / "synthetic.parquet")
    found = open_region(RegionConfig(REGION, data, str(folder), "cpu", simulated=True))
    found.group = group
    return found


def flat(content: bytes, plan) -> tuple[np.ndarray, np.ndarray]:
    """The update of the model, and the witness block."""
    update = gate_arrays.view(content, plan.model.arrays)
    return np.concatenate([update[name].ravel() for name in update if name != WITNESS]), update[WITNESS]


def test_two_processes_make_what_one_makes(tmp_path, place, group):
    plan = rehearsal(local_steps=3)
    one, two = (
        flat(run_round(region(place, tmp_path / name, plan, who), ARRAYS, plan, 1).content, plan)
        for name, who in (("one", None), ("two", group))
    )
    assert np.linalg.norm(one[0] - two[0]) <= 1e-6 * np.linalg.norm(one[0])
    np.testing.assert_array_equal(one[1], two[1])  # the witness block is noise alone


@pytest.mark.parametrize("swapped", [False, True])
def test_canaries_show_the_same_of_one_process_and_of_two(tmp_path, place, group, monkeypatch, swapped):
    """Also where they show something: to a runner that takes those that are out for those that are in."""
    count = 8
    plan = with_canaries(
        rehearsal(local_steps=2, roster=40, sample_rate=1.0, noise_multiplier=0.5, target_delta=1e-4), count
    )
    arrays = {one.name: ARRAYS.get(one.name, np.zeros(count, np.float32)) for one in plan.model.arrays}
    if swapped:
        monkeypatch.setattr(coins, "coins", lambda *given: ~tosses(*given))
    said: list[str] = []
    monkeypatch.setattr(
        coins, "verdict", lambda *given, **more: said.append(verdict(*given, **more)) or "...."
    )
    found = []
    for name, who in (("one", None), ("two", group)):
        here = region(place, tmp_path / name, plan, who)
        here.gate.policy = here.gate.policy.model_copy(update={"max_epsilon": 1000.0})
        contents = [run_round(here, arrays, plan, round).content for round in (1, 2)]
        found.append((said[-2:], [gate_arrays.view(one, plan.model.arrays) for one in contents]))
    (one, updates), (two, others) = found
    assert one == two
    assert ("x" in "".join(one)) == swapped
    for mine, theirs in zip(updates, others, strict=True):
        for entry in plan.model.arrays:
            np.testing.assert_allclose(theirs[entry.name], mine[entry.name], rtol=1e-5, atol=1e-7)
        np.testing.assert_array_equal(theirs[WITNESS], mine[WITNESS])


@pytest.mark.parametrize(("clip", "vehicles"), [(0.01, None), (0.01, 8), (None, None)])
def test_the_sum_of_two_processes_is_that_of_one(tmp_path, place, group, clip, vehicles):
    """Without noise, which is larger: every vehicle clipped, and nobody."""
    plan = rehearsal()
    here = region(place, tmp_path / "here", plan, group)
    own, data = here.prepared(plan)
    slots = np.arange(data.slots)
    window, taken = choose_windows(Stream(bytes(32)), slots, data.counts, 4)
    sums = []
    with group.together(plan, here.pins(plan), own) as shared:
        for gradient in (own, shared):
            gradient.set_parameters(torch.linspace(-1, 1, own.size))
            found = gradient.clipped_sum(data, slots, window, taken, max_grad_norm=clip, vehicles=vehicles)
            sums.append(found.numpy())
    assert np.linalg.norm(sums[0]) > (0.01 if clip else 0.1)
    assert np.linalg.norm(sums[0] - sums[1]) <= 1e-6 * np.linalg.norm(sums[0])


def test_a_lost_process_fails_the_round_which_is_trained_again(tmp_path, place, group, monkeypatch):
    plan = rehearsal(local_steps=2)
    expected = run_round(region(place, tmp_path / "whole", plan, group), ARRAYS, plan, 1).content
    (lost,) = group._others.values()
    folder = tmp_path / "broken"
    here = region(place, folder, plan, group)

    def steps() -> None:
        """Before the second step the other process is gone."""
        if steps.calls == 1:
            os.kill(lost.pid, signal.SIGKILL)
            lost.wait()
        steps.calls += 1

    steps.calls = 0
    monkeypatch.setattr(here.gate, "demand_wanted", steps)
    with pytest.raises(NotReadyError, match="trained again"):
        run_round(here, ARRAYS, plan, 1)
    assert steps.calls == 2
    assert [one["type"] for one in rounds_in(folder)] == ["reserve"]
    assert not torch.distributed.is_initialized()
    assert run_round(here, ARRAYS, plan, 1).content == expected
    assert [one["type"] for one in rounds_in(folder)] == ["reserve", "release"]


def test_a_process_that_cannot_begin_is_one_error(tmp_path, place, group, capfd):
    """It says why in the runner's output, and the first process does not wait for it."""
    plan = rehearsal(local_steps=1)
    here = region(place, tmp_path / "broken", plan, group)
    here.prepared(plan)
    settings = place / SETTINGS
    whole = settings.read_text()
    settings.write_text("devices = 5\n" + whole)
    group.close()
    try:
        with pytest.raises(NotReadyError, match="process 1, which ended"):
            run_round(here, ARRAYS, plan, 1)
    finally:
        settings.write_text(whole)
    assert "process 1: " in capfd.readouterr().err


def test_a_process_of_another_program_is_refused(place):
    class Store:
        """Where it said its program's hash."""

        def check(self, _: list[str]) -> bool:
            return True

        def get(self, _: str) -> bytes:
            return b"1" * 64

    with pytest.raises(NotReadyError, match="another program"):
        Group(place, Members(("cpu", "cpu")), "0" * 64)._await(Store(), 1, 1)


@pytest.mark.parametrize(
    ("members", "word"),
    [
        (Members(("cpu",) * 4097), "4097 processes on cpu"),
        (Members(("cuda:77", "cpu")), "cuda:77"),
        (Members(("cpu",), "10.0.0.1", 5, first=2, processes=2), "from process 2 on, of 2"),
    ],
)
def test_more_processes_than_devices_are_one_error(members, word):
    with pytest.raises(NotReadyError) as caught:
        members.demand()
    assert word in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        'devices = ["cpu"]\n',
        'format = 2\n[together]\naddress = "10.0.0.1:29500"\nprocesses = 2\n',
        'format = 2\ndevices = ["cpu"]\n[together]\naddress = "10.0.0.1:29500"\nprocesses = 1\n',
    ],
)
def test_settings_that_do_not_fit_are_refused(tmp_path, text):
    head = 'name = "CN"\ndata_path = "embedded"\n'
    (tmp_path / SETTINGS).write_text(head + text)
    with pytest.raises(ConfigError):
        load(Settings, tmp_path / SETTINGS)


def test_several_machines_do_not_meet_on_the_loopback(tmp_path):
    text = 'format = 2\nname = "CN"\ndata_path = "embedded"\ndevices = ["cpu"]\n'
    (tmp_path / SETTINGS).write_text(text + '[together]\naddress = "127.0.0.1:29500"\nprocesses = 2\n')
    with pytest.raises(ConfigError, match=r"together\.address"):
        load(Settings, tmp_path / SETTINGS).members()
