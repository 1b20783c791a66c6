"""Processes of one region on two machines: two network namespaces with a cable between them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import drives
from plan.sample import REGION

from fedfsd.drive import table
from fedfsd.runner.process import SETTINGS
from fedfsd.service import launch

FIRST, SECOND, PORT = "10.213.7.1", "10.213.7.2", 29511
_ROUND = """
import json, sys
from pathlib import Path
import numpy as np
import torch
from conftest import drives
from runner.runner_kit import rehearsal
from fedfsd.config.load import load
from fedfsd.engine.randomness import Stream
from fedfsd.engine.sampler import choose_windows
from fedfsd.ledger import program
from fedfsd.runner.group import Group
from fedfsd.runner.peer import Reviewed
from fedfsd.runner.process import Settings
from fedfsd.runner.region import Region, RegionConfig

folder, plan = Path(sys.argv[1]), rehearsal()
settings = load(Settings, folder / "train.toml")
group = Group(folder, settings.members(), program.installed(folder).hash)
region = Region(RegionConfig(settings.name, settings.data_path, str(folder), "cpu"), Reviewed(), group)
own, data = region.prepared(plan)
slots, sums = np.arange(data.slots), []
window, taken = choose_windows(Stream(bytes(32)), slots, data.counts, 4)
with group.together(plan, region.pins(plan), own) as shared:
    for gradient in (own, shared):
        gradient.set_parameters(torch.linspace(-1, 1, own.size))
        sums.append(gradient.clipped_sum(data, slots, window, taken, max_grad_norm=0.3))
print(json.dumps([float(one.norm()) for one in (sums[0], sums[0] - sums[1])]))
"""


@pytest.fixture
def machines() -> Iterator[tuple[str, str]]:
    """The names of two namespaces that reach each other."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("network namespaces need root and iproute2")
    names = f"fd{os.getpid()}a", f"fd{os.getpid()}b"
    cables = f"fd{os.getpid()}x", f"fd{os.getpid()}y"
    try:
        made = [_ip("netns", "add", name) for name in names]
        made.append(_ip("link", "add", cables[0], "type", "veth", "peer", "name", cables[1]))
        if any(made):
            pytest.skip("this machine allows no network namespaces")
        for name, cable, address in zip(names, cables, (FIRST, SECOND), strict=True):
            assert _ip("link", "set", cable, "netns", name) == 0
            assert _ip("-n", name, "address", "add", f"{address}/24", "dev", cable) == 0
            assert _ip("-n", name, "link", "set", cable, "up") == 0
            assert _ip("-n", name, "link", "set", "lo", "up") == 0
        yield names
    finally:
        for name in names:
            _ip("netns", "delete", name)
        _ip("link", "delete", cables[0])


def _ip(*words: str) -> int:
    return subprocess.run(["ip", *words], capture_output=True, check=False).returncode


def _folder(path: Path, data: Path, first: int) -> Path:
    path.mkdir()
    (path / SETTINGS).write_text(
        f'format = 2\nname = "{REGION}"\ndata_path = "{data}"\ntest_only = true\ndevices = ["cpu"]\n'
        f'[together]\naddress = "{FIRST}:{PORT}"\nprocesses = 2\nfirst = {first}\n'
    )
    return path


@pytest.mark.slow
def test_two_machines_make_the_sum_of_one_process(tmp_path, machines):
    data = tmp_path / "synthetic.parquet"
    table.write(drives({REGION: 40}, origin="synthetic"), data)
    here, there = _folder(tmp_path / "here", data, 0), _folder(tmp_path / "there", data, 1)
    around = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    inside = ["ip", "netns", "exec"]
    runner = [sys.executable, "-I", "-m", "fedfsd.runner", "--train", str(there)]
    second = subprocess.Popen([*inside, machines[1], *runner], start_new_session=True)
    try:
        done = subprocess.run(
            [*inside, machines[0], sys.executable, "-c", _ROUND, str(here)],
            env=around,
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )
    finally:
        second.terminate()
        second.wait()
    assert done.returncode == 0, done.stderr
    length, off = json.loads(done.stdout)
    assert length > 0.1
    assert off <= 1e-6 * length


def test_a_process_without_a_network_has_a_loopback_of_its_own():
    """What processes of one region talk over; to anything else there is no way."""
    if launch.obstacle(network=False) is not None:
        pytest.skip("this machine allows no network namespaces")
    code = """
import socket
with socket.create_server(("127.0.0.1", 0)) as server:
    socket.create_connection(server.getsockname(), timeout=5).close()
try:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as outside:
        outside.connect(("192.0.2.1", 9))
    print("somewhere")
except OSError:
    print("nowhere")
"""
    command = launch.command([sys.executable, "-P", "-c", code], network=False)
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "nowhere"
