"""Ledgers made entry by entry, honest or not: whoever holds a region's keys can write whatever they like."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import books
from plan.sample import spending

from fedfsd import canonical
from fedfsd.audit import receipt
from fedfsd.audit.evidence import load
from fedfsd.audit.receipt import Receipt, Receipts
from fedfsd.audit.verdict import Report
from fedfsd.audit.verify import verify
from fedfsd.ledger import bundle, draft, entry, note, strict
from fedfsd.ledger.entry import Release, Reserve, Settle
from fedfsd.ledger.key import SigningKey
from fedfsd.ledger.merkle import Tree, leaf_hash
from fedfsd.ledger.state import State
from fedfsd.plan.plan import Plan

DATA, PURPOSE, DAY = "fleet-2026", "research", "2026-11-22"
COORDINATOR = SigningKey.from_seed("fedfsd/coordinator/hub", b"c" * 32)
WITNESS = SigningKey.from_seed("fedfsd/coordinator/hub-witness", b"w" * 32)


def plan_of(
    *, rounds: int = 2, noise: float = 2.0, seed: int = 0, mode: str = "private", **changes: Any
) -> Plan:
    """A plan of two regions and ``rounds`` rounds of 5 steps; ``seed`` makes it another one."""
    region = {"local_steps": 5, "weight": 0.5, "epsilon": None, **changes}
    if mode != "rehearsal" and "epsilon" not in changes:
        region["epsilon"] = epsilon_of(noise, 5 * rounds)
    return spending("EU", "US", noise=noise, region=region, num_rounds=rounds, seed=seed, mode=mode)


def epsilon_of(noise: float, steps: int) -> float:
    """What the plan costs by PLD."""
    from fedfsd.mechanism.accountant import epsilon_pld
    from fedfsd.mechanism.event import Event

    return epsilon_pld([Event(0.1, noise, steps)], 1e-4)


class Forge:
    """One region's keys, and entries that nothing checks."""

    def __init__(self, region: str = "EU", *, seed: str = "", previous: str | None = None) -> None:
        def made(name: str, role: str) -> SigningKey:
            material = canonical.sha256(f"{region}{seed}{role}".encode())
            return SigningKey.from_seed(name, bytes.fromhex(material))

        ledger = canonical.sha256(f"{region}{seed}".encode())[:32]
        self.region, self.ledger = region, ledger
        self.node = made(f"fedfsd/{region}/{ledger}", "node")
        self.officer = made(f"fedfsd/{region}/officer", "officer")
        self.entries: list[Any] = []
        self.heads: dict[tuple[int, int], str] = {}
        self.epoch = 0
        genesis = draft.genesis(
            node=self.node.verification, officer=self.officer.verification, previous=previous
        )
        self.add(genesis)

    @property
    def state(self) -> State:
        """What an honest region would make of the entries."""
        state = State()
        for one, content in zip(self.entries, self.contents, strict=True):
            state.apply(one, content)
        return state

    @property
    def contents(self) -> list[bytes]:
        return [entry.encode(one) for one in self.entries]

    @property
    def tree(self) -> Tree:
        tree = Tree()
        for content in self.contents:
            tree.append(leaf_hash(content))
        return tree

    def add(self, one: Any, *, sign: bool = True) -> int:
        """Append an entry under its number, signed by everybody who has to."""
        one = one.model_copy(update={"seq": len(self.entries)})
        self.entries.append(self._signed(one) if sign else one)
        return one.seq

    def edit(self, at: int, **changes: Any) -> None:
        """Rewrite an entry and sign it again."""
        self.entries[at] = self._signed(self.entries[at].model_copy(update=changes))

    def drop(self, seq: int) -> None:
        """Take an entry out and number the others anew."""
        del self.entries[seq]
        self.renumber()

    def renumber(self) -> None:
        for seq, _ in enumerate(self.entries):
            self.edit(seq, seq=seq)

    def _signed(self, one: Any) -> Any:
        if not isinstance(one, entry.Signed):
            return one
        roles = {"officer": self.officer}
        if isinstance(one, entry.Genesis):
            roles["node"] = self.node
        if isinstance(one, entry.PlanEntry) and one.signatures.officer is None:
            return one
        return one if isinstance(one, entry.KeyRotate) else entry.sign(one, roles)

    # Honest steps.

    def grant(self, **options: Any) -> int:
        defaults = {"data_set": DATA, "data_commitment": "d" * 64, "delta": 1e-4, "epsilon": 8.0}
        return self.add(draft.grant(self.state, **{**defaults, **options}))

    def approve(self, plan: Plan, **options: Any) -> int:
        defaults = {
            "recipient": COORDINATOR.name,
            "purpose": PURPOSE,
            "key_commitment": canonical.sha256(plan.hash.encode()),
        }
        return self.add(draft.plan(self.state, plan, **{**defaults, **options}))

    def permit(self, **options: Any) -> int:
        limits = {"max_releases": 2, "max_bytes": 40, **options}
        return self.add(books.permission(self.state.genesis.ledger, **limits))

    def reserve(self, plan: Plan, round: int, *, approval: int | None = None, date: str = DAY) -> int:
        state = self.state
        run = state.runs[plan.hash]
        account = state.accounts[run.data_set]
        rho = run.entry.rho_of(min(round, run.entry.rounds))
        return self.add(
            Reserve(
                plan=plan.hash,
                round=round,
                arrays=canonical.sha256(b"arrays%d" % round),
                event=run.terms.round_event(min(round, run.entry.rounds)),
                rho=rho,
                grant=account.grant.seq,
                spent=account.spent + rho,
                held=account.held - rho,
                approval=approval,
                date=date,
            )
        )

    def release(self, plan: Plan, round: int) -> int:
        state = self.state
        run = state.runs[plan.hash]
        booked = run.bookings[round].entry
        totals: tuple[int | None, ...] = (None, None, None)
        if booked.approval is not None:
            year = int(booked.date[:4])
            totals = (year, *state.permissions[booked.approval].totals(year, 20))
        return self.add(
            Release(
                plan=plan.hash,
                round=round,
                reserve=booked.seq,
                sha256=canonical.sha256(f"{self.region} update {round}".encode()),
                bytes=20,
                schema=run.terms.schema,
                destination=COORDINATOR.name,
                approval=booked.approval,
                year=totals[0],
                approval_releases=totals[1],
                approval_bytes=totals[2],
            )
        )

    def round(self, plan: Plan, round: int, **options: Any) -> None:
        self.reserve(plan, round, **options)
        self.release(plan, round)

    def settle(self, plan: Plan) -> int:
        state = self.state
        reserved, released, freed = state.settlement(state.runs[plan.hash])
        return self.add(Settle(plan=plan.hash, reserved=reserved, released=released, freed=freed))

    def head(self, size: int | None = None, *, cosigned: bool = False) -> str:
        """A signed checkpoint, kept for the bundle."""
        size = len(self.entries) if size is None else size
        origin = self.node.name + (f"/{self.epoch}" if self.epoch else "")
        text = note.sign(note.Checkpoint(origin, size, self.tree.root(size)).text, [self.node])
        text = note.cosign(text, WITNESS, seconds=1) if cosigned else text
        self.heads[self.epoch, size] = text
        return text

    def story(self, plan: Plan | None = None, **options: Any) -> Plan:
        """A grant, one plan, its rounds, its end."""
        plan = plan or plan_of()
        self.grant()
        self.approve(plan, **options)
        for number in range(1, plan.num_rounds + 1):
            self.round(plan, number)
        self.settle(plan)
        return plan

    # What others get.

    def bundle(self, folder: Path, name: str | None = None) -> Path:
        """The archive, whose last checkpoint covers everything."""
        if (self.epoch, len(self.entries)) not in self.heads:
            self.head()
        path = folder / (name or f"{self.region}.zip")
        bundle.write(
            path,
            region=self.region,
            ledger=self.ledger,
            entries=self.contents,
            checkpoints=[(*key, text) for key, text in sorted(self.heads.items())],
        )
        return path


def receipts(folder: Path, *forges: Forge, **changes: Any) -> Path:
    """The coordinator's receipts for everything that was released, one a round."""
    rows = {
        (forge.region, one.plan, one.round): Receipt(
            region=forge.region,
            plan=one.plan,
            round=one.round,
            entry=leaf_hash(entry.encode(one)).hex(),
            sha256=one.sha256,
            bytes=one.bytes,
        )
        for forge in forges
        for one in forge.entries
        if isinstance(one, Release)
    }
    made = Receipts(
        run="test",
        coordinator=str(COORDINATOR.verification),
        plans=tuple(sorted({plan for _, plan, _ in rows})),
        receipts=tuple(rows[case] for case in sorted(rows)),
    ).model_copy(update=changes)
    path = folder / "receipts.json"
    path.write_bytes(strict.encode(receipt.sign(made, COORDINATOR)))
    return path


def trust(folder: Path, *forges: Forge) -> Path:
    """The keys of honest regions, and of coordinator and witness."""
    rows = [("coordinator", COORDINATOR.verification), ("witness", WITNESS.cosigner)]
    for one in forges:
        rows += [("node", one.node.verification), ("officer", one.officer.verification)]
    path = folder / "trust.keys"
    path.write_text("# keys\n" + "".join(f"{role} {key}\n" for role, key in dict.fromkeys(rows)))
    return path


def check(folder: Path, *forges: Forge, extra: tuple[Path, ...] = ()) -> Report:
    """Verify what these regions hand in, with the coordinator's receipts and everybody's keys."""
    bundles = [one.bundle(folder, f"{one.region}-{number}.zip") for number, one in enumerate(forges)]
    return verify(load([*bundles, *extra], receipts=receipts(folder, *forges), trust=trust(folder, *forges)))


def outcomes(report: Report) -> dict[str, str]:
    """The worst outcome of each check that does not simply hold."""
    found: dict[str, str] = {}
    for part in report.parts:
        for one in part.answers:
            if one.outcome in ("contradicted", "cannot decide") and found.get(one.name) != "contradicted":
                found[one.name] = str(one.outcome)
    return found


def texts(report: Report, name: str) -> str:
    """Everything a check found."""
    answers = [one for part in report.parts for one in part.answers if one.name == name]
    return "\n".join(str(finding) for one in answers for finding in one.findings)
