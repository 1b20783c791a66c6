"""The evidence a simulated run leaves: each region's ledger and grant, receipts, and the keys to check them.

All keys are made here, and the ledgers say that they are simulated: no officer stands behind them.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from fedfsd import canonical
from fedfsd.audit.receipt import Receipt, Receipts, ReceivedIncident, sign
from fedfsd.engine import randomness
from fedfsd.errors import BudgetError
from fedfsd.gate.gate import LEDGER, MIRROR, open_ledger
from fedfsd.ledger import digest, draft, entry, strict
from fedfsd.ledger.key import SigningKey
from fedfsd.ledger.ledger import Ledger
from fedfsd.ledger.witness import Witness, show
from fedfsd.mechanism.renyi import epsilon_lifetime
from fedfsd.plan.build import Limit
from fedfsd.plan.plan import Plan
from fedfsd.report.run_folder import Folder, releases
from fedfsd.runner import coins
from fedfsd.simulation.prepare import Prepared

OFFICER = "officer.key"
COORDINATOR = "fedfsd/coordinator/simulation"
PURPOSE = "simulation"


def limits(ledgers: Path) -> dict[str, Limit]:
    """What the grants of kept ledgers have left, by region; regions without a ledger are left out."""
    found = {}
    for place in sorted(ledgers.glob(f"*/{LEDGER}")):
        ledger = open_ledger(place.parent)
        for balance in ledger.balances():
            found[place.parent.name] = Limit(balance.left, balance.alpha)
        ledger.close()
    return found


class Evidence:
    """Keeps the books of one run; in mode none there are none to keep."""

    def __init__(
        self,
        prepared: Prepared,
        where: Folder,
        folders: Mapping[str, Path],
        *,
        coordinator: Path | None = None,
    ) -> None:
        """``coordinator`` is where its key and memory are kept; by default in the run folder."""
        self._plan, self._where = prepared.plan, where
        self._data, self._label = prepared.data_sha256, Path(prepared.experiment.data.path).name or "data"
        self._folders = {} if self._plan.mode == "none" else dict(folders)
        self._home = coordinator or where.path / "coordinator"

    def begin(self, *, resume: bool = False) -> None:
        """Make what ledgers and grants are missing and hold the whole plan in each.

        Raises:
            BudgetError: a kept grant has less left than the plan costs, or the same run was booked before.
        """
        for name, folder in self._folders.items():
            if not (folder / LEDGER).exists():
                _found(folder, name)
            ledger = open_ledger(folder)
            if not ledger.balances():
                self._grant(ledger, folder, name)
            if self._plan.hash in ledger.state.runs:
                ledger.close()
                if resume:
                    continue  # booked, perhaps even settled, before the run was cut off
                raise BudgetError(
                    f"ledger of {name}",
                    got="a run that is booked already",
                    expected="a new run",
                    hint="continue it with --resume; a rehearsal is the same run each time",
                )
            commitment = None
            if self._plan.mode == "private":
                commitment = digest.key_commitment(randomness.run_key(folder / "keys", self._plan.hash))
            ledger.approve_plan(self._plan, recipient=COORDINATOR, purpose=PURPOSE, key_commitment=commitment)
            ledger.close()

    def finish(self) -> dict[str, dict[str, Any]]:
        """Settle the plan, have the ledgers witnessed, write bundles, receipts and keys.

        Returns:
            By region what was charged to its grant: epsilon_lifetime, epsilon_grant, grant_simulated.
        """
        if not self._folders:
            return {}
        self._home.mkdir(parents=True, exist_ok=True)
        coordinator = _key(self._home / "coordinator.key", COORDINATOR)
        witness = Witness(self._home, coordinator)
        trust = [f"coordinator {coordinator.verification}", f"witness {coordinator.cosigner}"]
        for name in ("bundles", "checkpoints", *(("coins",) if self._plan.model.canaries else ())):
            (self._where.path / name).mkdir(exist_ok=True)
        spent = {}
        for name, folder in self._folders.items():
            ledger = open_ledger(folder)
            ledger.settle(self._plan.hash)
            randomness.destroy_run_key(folder / "keys", self._plan.hash)
            ledger.witness(_cosigned(witness, ledger), [coordinator.cosigner])
            # The entry that says so needs a cosignature too, which the coordinator keeps.
            self._where.write_text(f"checkpoints/{name}.note", _cosigned(witness, ledger))
            ledger.bundle(self._where.path / "bundles" / f"{name}.zip")
            if (opened := coins.document(folder, self._plan.hash)).exists():
                self._where.write_text(f"coins/{name}.json", opened.read_text(encoding="utf-8"))
            trust += [f"node {ledger.state.node}", f"officer {ledger.state.officer}"]
            spent[name] = _charged(ledger)
            ledger.close()
        self._where.write_text("trust.keys", "\n".join(trust) + "\n")
        self._receipts(coordinator)
        return spent

    def _grant(self, ledger: Ledger, folder: Path, name: str) -> None:
        salt = os.urandom(32)
        _secret(folder / "data.salt", salt)
        made = draft.grant(
            ledger.state,
            data_set=f"{name}:{self._label}",
            data_commitment=canonical.sha256(salt + bytes.fromhex(self._data[name])),
            delta=self._plan.region(name).target_delta,
            events=self._plan.events(name),
        )
        ledger.add(entry.sign(made, {"officer": SigningKey.read(folder / OFFICER)}))

    def _receipts(self, coordinator: SigningKey) -> None:
        receipts = [
            Receipt(
                region=name,
                plan=self._plan.hash,
                round=number,
                entry=found["entry"],
                sha256=found["sha256"],
                bytes=found["bytes"],
            )
            for line in self._where.rounds()
            for name, number, found in releases(line)
        ]
        write_receipts(
            self._where, self._plan, receipts, coordinator, incidents=_incidents(self._where, self._plan)
        )


def write_receipts(
    where: Folder,
    plan: Plan,
    receipts: Iterable[Receipt],
    coordinator: SigningKey,
    *,
    incidents: Iterable[ReceivedIncident] = (),
) -> None:
    """The receipts of one run in one signed file, with what ended regions' parts in it."""
    ended = tuple(sorted(incidents, key=lambda one: (one.region, one.plan)))
    made = Receipts(
        format=2 if ended else 1,
        incidents=ended,
        run=plan.run,
        coordinator=str(coordinator.verification),
        plans=(plan.hash,),
        receipts=tuple(sorted(receipts, key=lambda one: (one.region, one.plan, one.round))),
    )
    where.write_text("receipts.json", strict.encode(sign(made, coordinator)).decode())


def _incidents(where: Folder, plan: Plan) -> list[ReceivedIncident]:
    """By region the first round whose update had noise unlike the plan's."""
    found: dict[str, ReceivedIncident] = {}
    for line in where.rounds():
        for name, outcome in line["regions"].items():
            if outcome.get("finding") and name not in found:
                found[name] = ReceivedIncident(
                    region=name,
                    plan=plan.hash,
                    round=outcome.get("own_round", line["round"]),
                    finding=outcome["finding"],
                )
    return list(found.values())


def _found(folder: Path, name: str) -> None:
    """A new ledger in ``folder``, with keys of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    officer, node = _key(folder / OFFICER, f"fedfsd/{name}/officer"), draft.node_key(name)
    genesis = draft.genesis(node=node.verification, officer=officer.verification, simulated=True)
    signed = entry.sign(genesis, {"officer": officer, "node": node})
    Ledger.create(folder / LEDGER, mirror=folder / MIRROR, genesis=signed, node=node).close()


def _cosigned(witness: Witness, ledger: Ledger) -> str:
    """The ledger's head, with the witness's word that it has seen no other history."""
    genesis = ledger.state.genesis
    epoch, size = witness.position(genesis.region, genesis.ledger)
    shown = show(ledger.state, ledger.checkpoint(), epoch=epoch, size=size)
    return witness.accept(shown, seconds=int(time.time()))


def _key(path: Path, name: str) -> SigningKey:
    if not path.exists():
        SigningKey.generate(name).write(path)
    return SigningKey.read(path)


def _charged(ledger: Ledger) -> dict[str, Any]:
    (balance,) = ledger.balances()
    charged = epsilon_lifetime(balance.spent + balance.held, alpha=balance.alpha, delta=balance.delta)
    simulated = any(account.grant.simulated for account in ledger.state.accounts.values())
    return {"epsilon_lifetime": charged, "epsilon_grant": balance.epsilon, "grant_simulated": simulated}


def _secret(path: Path, content: bytes) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(content)
