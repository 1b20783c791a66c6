"""What an operator works with: plans as a coordinator sends them, a region's folder, rounds, an officer."""

from __future__ import annotations

from contextlib import closing
from functools import lru_cache
from pathlib import Path
from typing import Any

from plan.sample import model, spending

from fedfsd import canonical
from fedfsd.ledger.key import SigningKey
from fedfsd.mechanism.accountant import epsilon_pld
from fedfsd.mechanism.event import Event
from fedfsd.node import adding, grant, new_region, paper
from fedfsd.node.node import open_node
from fedfsd.plan.plan import WITNESS, Plan

REGION = "EU"
ROSTER = 1000
WITNESS_SIZE = 1024
RELEASE = bytes(4 * WITNESS_SIZE)
DATA = "fleet-2026"
HUB = "fedfsd/coordinator/hub"
DELTA = 1e-4
GRANT = ["--epsilon", 10, "--delta", DELTA, "--data-set", DATA]


@lru_cache(maxsize=64)
def plan(
    *,
    rounds: int = 3,
    noise: float = 2.0,
    seed: int = 1,
    roster: int = ROSTER,
    region: str = REGION,
    mode: str = "private",
    delta: float = DELTA,
) -> Plan:
    """A plan of ``rounds`` rounds of 4 steps whose stated epsilon is the true one."""
    return spending(
        region,
        noise=noise,
        region={
            "roster": roster,
            "target_delta": delta,
            "epsilon": epsilon_pld([Event(0.1, noise, 4 * rounds)], delta),
        },
        name=f"motion-{seed}",
        mode=mode,
        num_rounds=rounds,
        model=model(WITNESS_SIZE, array=WITNESS),
        seed=seed,
    )


def send(folder: Path, one: Plan, name: str = "plan.json") -> str:
    """The plan's file, as the coordinator sent it."""
    (folder / name).write_text(one.document(), encoding="utf-8")
    return name


def fill_in(folder: Path) -> None:
    """What a person writes into the region's two files."""
    policy, settings = folder / "policy.toml", folder / "region.toml"
    text = policy.read_text(encoding="utf-8")
    text = text.replace("# roster = 1000", f"roster = {ROSTER}")
    text = text.replace("round_seconds = 10.0", "round_seconds = 0.0")  # tests do not wait
    policy.write_text(text.replace('# identity = "recording"', 'identity = "physical"'), encoding="utf-8")
    text = settings.read_text(encoding="utf-8").replace('recipient = ""', f'recipient = "{HUB}"')
    settings.write_text(text.replace('purpose = ""', 'purpose = "research"'), encoding="utf-8")


def run_rounds(folder: Path, one: Plan, *rounds: int) -> None:
    """Reserve and release rounds, as the region's gate does."""
    with closing(open_node(folder).open_ledger()) as ledger:
        for round in rounds:
            booked = ledger.reserve(one.hash, round, canonical.sha256(b"%d" % round))
            ledger.release(RELEASE, booked)


def checkpoint(folder: Path) -> str:
    """The newest head, as a witness keeps it."""
    with closing(open_node(folder).open_ledger()) as ledger:
        return ledger.checkpoint()


def region(folder: Path, **wish: Any) -> Path:
    """A region in ``folder``/eu with a grant, ready to approve plans; its officer's key is officer.key."""
    if not (folder / "officer.key").exists():
        SigningKey.generate(f"fedfsd/{REGION}/officer").write(folder / "officer.key")
    officer = SigningKey.read(folder / "officer.key")
    node, genesis = new_region.make(REGION, folder / "eu", mirror=None, officer=officer.verification)
    adding.add(node, [paper.sign(genesis, officer)])
    fill_in(node.folder)
    with closing(node.open_ledger()) as ledger:
        asked = grant.Wish(data_set=DATA, epsilon=10.0, delta=DELTA, **wish)
        made = grant.make(ledger.state, asked, policy=node.policy(), salts=node.salts, data=None)
    adding.add(node, [paper.sign(made, officer)])
    return node.folder
