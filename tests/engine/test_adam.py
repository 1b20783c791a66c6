"""Adam and its schedule against torch's own classes, bit by bit."""

from __future__ import annotations

import subprocess
import sys

import torch
from torch import nn

from fedfsd.engine.adam import Adam, cosine

STEPS = 12


def model() -> nn.Sequential:
    torch.manual_seed(1)
    made = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 4), nn.Linear(4, 2))
    made[2].weight.requires_grad_(False)
    made.register_parameter("unused", nn.Parameter(torch.ones(2)))
    return made


def test_steps_are_torchs_to_the_last_bit():
    ours, theirs, alike = model(), model(), []
    mine = Adam(ours.parameters())
    own = torch.optim.Adam([one for one in theirs.parameters() if one.requires_grad], lr=0.05)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(own, STEPS)
    for number, rate in enumerate(cosine(0.05, STEPS)):
        batch = torch.randn(5, 3, generator=torch.Generator().manual_seed(number))
        alike.append(rate == own.param_groups[0]["lr"])
        mine.step(ours(batch).square().mean(), rate)
        own.zero_grad()
        theirs(batch).square().mean().backward()
        own.step()
        schedule.step()
    assert alike == [True] * STEPS
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(one, other)
    assert not torch.equal(ours[0].weight, model()[0].weight)
    assert torch.equal(ours.unused, torch.ones(2))


def test_no_compiler_is_loaded():
    code = (
        "import sys, torch; from fedfsd.engine.adam import Adam\n"
        "one = torch.ones(2, requires_grad=True); Adam([one]).step(one.sum(), 0.1)\n"
        "print(one.detach().tolist(), 'torch._dynamo' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("] ")[1].strip() == "False", done.stdout
