"""Everything a list of entries says, and whether one more entry may follow: FORMAT.md as one pure fold.

Each rule checks before it changes anything, so a refused entry leaves the state as it was.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from fedfsd import canonical
from fedfsd.errors import BudgetError
from fedfsd.ledger import budget, entry, key, note, terms
from fedfsd.ledger.budget import Account
from fedfsd.ledger.entry import Entry, Genesis, Incident, PlanEntry, Program, Release
from fedfsd.ledger.error import EvidenceError
from fedfsd.ledger.key import VerificationKey
from fedfsd.ledger.merkle import Tree, leaf_hash
from fedfsd.ledger.permission import Permission, refusal, year_of
from fedfsd.ledger.terms import Terms


@dataclass
class Booking:
    """A reservation and what became of it."""

    entry: entry.Reserve
    aborted: bool = False
    release: Release | None = None


@dataclass
class Run:
    """An approved plan and its rounds."""

    entry: PlanEntry
    terms: Terms
    data_set: str
    bookings: dict[int, Booking] = field(default_factory=dict)
    newest: int = 0
    """The last round that was released."""
    settled: bool = False
    program: Program | None = None
    """What trains its rounds now; None where an earlier release approved it and nothing was booked since."""
    ended: Incident | None = None
    """An update was not what the plan releases: no other round is booked or released."""


class State:
    """A ledger's meaning after its first ``size`` entries."""

    def __init__(self) -> None:
        self.tree = Tree()
        self.accounts: dict[str, Account] = {}
        self.runs: dict[str, Run] = {}
        self.permissions: dict[int, Permission] = {}
        self.refusals: set[tuple[str, int | None, str]] = set()
        self._secrets: set[str] = set()
        self.epoch = 0
        self.epochs: list[tuple[int, int]] = []
        """(size kept, largest size lost) of every recovery."""
        self.statements: list[tuple[int, bytes]] = []
        """(seq, content) of what a witness reads: genesis, grants, rotations, recoveries, close."""
        self.closed = False
        self.officer: VerificationKey
        self._genesis: Genesis | None = None
        self._node_keys: list[tuple[int, VerificationKey]] = []

    @classmethod
    def drafted(cls, genesis: Genesis) -> State:
        """What papers are drafted from that will follow ``genesis``, which nobody may have signed yet."""
        made = cls()
        made._genesis = genesis
        return made

    @property
    def size(self) -> int:
        """Number of entries."""
        return len(self.tree)

    @property
    def genesis(self) -> Genesis:
        """The first entry."""
        if self._genesis is None:
            raise EvidenceError("ledger", got="no entry", expected="a genesis")
        return self._genesis

    @property
    def node(self) -> VerificationKey:
        """The node key in force."""
        return self._node_keys[-1][1]

    @property
    def node_keys(self) -> tuple[VerificationKey, ...]:
        """Every node key there has been, the one in force last."""
        return tuple(key for _, key in self._node_keys)

    def node_at(self, size: int) -> VerificationKey:
        """The node key that signs checkpoints of ``size``."""
        return [key for start, key in self._node_keys if start <= size][-1]

    def origin(self, epoch: int) -> str:
        """The first line of checkpoints."""
        name = self._node_keys[0][1].name
        return f"{name}/{epoch}" if epoch else name

    def apply(self, one: Entry, content: bytes) -> None:
        """Let ``one``, whose bytes are ``content``, follow.

        Raises:
            BudgetError, RefusedError, EvidenceError: it may not stand here; nothing has changed.
        """
        demand(one.seq == self.size, one, f"number {one.seq}", f"number {self.size}")
        demand((one.type == "genesis") == (self.size == 0), one, "another place", "one genesis, first")
        demand(not self.closed, one, "an entry after close", "none")
        if isinstance(one, entry.Signed) and not isinstance(one, Genesis):
            demand(one.ledger == self.genesis.ledger, one, "the id of another ledger", "this one's")
            if not isinstance(one, PlanEntry) or one.signatures.officer is not None:
                self._signed(one, "officer", self.officer)
        _RULES[type(one)](self, one)
        if isinstance(one, entry.Statement):
            self.statements.append((one.seq, content))
        self.tree.append(leaf_hash(content))

    # What follows is one rule a type of entry.

    def _on_genesis(self, one: Genesis) -> None:
        node, officer = key.parse(one.node_key), key.parse(one.officer_key)
        demand(node.name == f"fedfsd/{one.region}/{one.ledger}", one, "another node name", "the ledger's")
        demand(officer.name == f"fedfsd/{one.region}/officer", one, "another officer name", "the region's")
        demand(node.public != officer.public, one, "one key for node and officer", "two keys")
        demand(one.previous != one.ledger, one, "a ledger that goes on from itself", "an earlier one")
        self._signed(one, "officer", officer)
        self._signed(one, "node", node)
        self._genesis, self.officer, self._node_keys = one, officer, [(1, node)]

    def _on_grant(self, one: entry.Grant) -> None:
        budget.check_epsilon(one)
        live = self.accounts.get(one.data_set)
        expected = None if live is None else live.grant.seq
        demand(one.predecessor == expected, one, f"predecessor {one.predecessor}", f"{expected}")
        demand(live is not None or not one.disjoint, one, "disjoint from nothing", "a predecessor")
        open_plans = any(not run.settled and run.data_set == one.data_set for run in self.runs.values())
        self.accounts[one.data_set] = (
            budget.opened(one) if live is None else live.succeed(one, open_plans=open_plans)
        )

    def _on_approval(self, one: entry.Approval) -> None:
        numbers = {permission.approval.number for permission in self.permissions.values()}
        demand(one.number not in numbers, one, "a number used before", "a new number")
        demand(one.valid_from <= one.valid_until, one, "an end before its start", "a period")
        self.permissions[one.seq] = Permission(one)

    def _on_plan(self, one: PlanEntry) -> None:
        read = terms.read(one.document, self.genesis.region)
        demand(canonical.digest(one.document) == one.plan, one, "another hash", "its document's")
        demand(one.plan not in self.runs, one, "a plan approved before", "a new plan")
        account = next((some for some in self.accounts.values() if some.grant.seq == one.grant), None)
        if account is None:
            raise EvidenceError(_place(one), got=f"grant {one.grant}", expected="a live grant")
        secret = one.key_commitment
        demand(secret is not None or read.mode == "rehearsal", one, "no key commitment", "one")
        demand(secret not in self._secrets, one, "a key used before", "a new key")
        budget.check_plan(one, read, account.grant)
        account.hold(one)
        self.runs[one.plan] = Run(one, read, account.grant.data_set)
        if secret is not None:
            self._secrets.add(secret)

    def _on_reserve(self, one: entry.Reserve) -> None:
        run = self.open_run(one.plan)
        plan, account = run.entry, self.accounts[run.data_set]
        demand(run.ended is None, one, "a round of a plan that has ended", "none after its incident")
        demand(one.round not in run.bookings, one, "a round booked before", "a new round")
        demand(1 <= one.round <= plan.rounds, one, f"round {one.round}", f"1 to {plan.rounds}")
        expected = (run.terms.round_event(one.round), plan.rho_of(one.round), account.grant.seq)
        demand((one.event, one.rho, one.grant) == expected, one, "another event", "the plan's")
        after = (account.spent + one.rho, account.held - one.rho)
        demand((one.spent, one.held) == after, one, "another balance", "the running one")
        if one.approval is not None:
            objection = self.objection(one.approval, run, one.date)
            if objection is not None:
                raise refusal(plan.recipient, [objection])
            self.permissions[one.approval].book(year_of(one.date), plan.release_bytes)
        elif account.grant.approval_required:
            raise refusal(plan.recipient, [])
        account.draw(one.rho)
        run.bookings[one.round] = Booking(one)

    def _on_release(self, one: Release) -> None:
        run = self.open_run(one.plan)
        booking = self._booking(one, run)
        plan, booked = run.entry, booking.entry
        demand(run.ended is None, one, "a release of a plan that has ended", "none after its incident")
        demand(booking.release is None, one, "a second release", "one a round")
        expected = (plan.release_bytes, run.terms.schema, plan.recipient, booked.approval)
        given = (one.bytes, one.schema_, one.destination, one.approval)
        demand(given == expected, one, "other bytes, schema or destination", "the plan's")
        totals = (one.year, one.approval_releases, one.approval_bytes)
        if booked.approval is None:
            demand(totals == (None, None, None), one, "totals", "none")
        else:
            year, permission = year_of(booked.date), self.permissions[booked.approval]
            after = permission.totals(year, one.bytes)
            demand(totals == (year, *after), one, "other totals", "the running ones")
            permission.released[year], permission.released_bytes[year] = after
        booking.release = one
        run.newest = max(run.newest, one.round)

    def _on_settle(self, one: entry.Settle) -> None:
        run = self.open_run(one.plan)
        expected = self.settlement(run)
        demand((one.reserved, one.released, one.freed) == expected, one, "other sums", "the plan's")
        self.accounts[run.data_set].free(
            rho=one.freed, rounds=run.entry.rounds - one.reserved, recipient=run.entry.recipient
        )
        run.settled = True

    def _on_abort(self, one: entry.Abort) -> None:
        run = self.open_run(one.plan)
        booking = self._booking(one, run)
        demand(booking.release is None, one, "a released round", "one that was not released")
        booked = booking.entry
        if booked.approval is not None:
            self.permissions[booked.approval].give_back(year_of(booked.date), run.entry.release_bytes)
        booking.aborted = True

    def _on_refuse(self, one: entry.Refuse) -> None:
        case = (one.plan, one.round, one.code)
        demand(case not in self.refusals, one, "a refusal recorded before", "a new one")
        self.refusals.add(case)

    def _on_incident(self, one: Incident) -> None:
        """Told, and nothing follows from it but where an update was not what its plan releases."""
        if one.plan is None or one.round is None:
            return
        run = self.open_run(one.plan)
        demand(one.round in run.bookings, one, "a round that is not booked", "a booked one")
        demand(run.ended is None, one, "a plan that has ended", "one such incident a plan")
        run.ended = one

    def _on_witness(self, one: entry.WitnessEntry) -> None:
        head, parsed = self.open_checkpoint(one.checkpoint)
        demand(head.size == one.size, one, "another size", "the checkpoint's")
        demand(parsed.is_cosigned, one, "no cosignature", "one by a witness")

    def _on_program(self, one: entry.ProgramEntry) -> None:
        run = self.open_run(one.plan)
        demand(one.program != run.program, one, "the same program again", "another one")
        run.program = one.program

    def _on_recover(self, one: entry.Recover) -> None:
        demand(one.epoch == self.epoch + 1, one, f"epoch {one.epoch}", f"{self.epoch + 1}")
        demand(one.lost_size >= self.size, one, f"lost size {one.lost_size}", f"at least {self.size}")
        if one.lost_size == self.size:
            kept = one.lost_root in (None, self.tree.root().hex())
            demand(kept, one, "another root of what was kept", "this ledger's: nothing is lost")
        demand(one.charges == self.worst(one.reach), one, "other charges", "the worst case")
        for charge in one.charges:
            account = next(some for some in self.accounts.values() if some.grant.seq == charge.grant)
            account.spent, account.held = account.spent + charge.rho, 0
        for run in self.runs.values():
            run.settled = True
        for permission in self.permissions.values():
            permission.void = True
        self.epochs.append((self.size, one.lost_size))
        self.epoch = one.epoch

    def _on_rotate(self, one: entry.KeyRotate) -> None:
        new = key.parse(one.key)
        self._signed(one, "new", new)
        old = self.node if one.role == "node" else self.officer
        demand(new.name == old.name, one, "another name", "the replaced key's")
        demand(new.public not in (self.node.public, self.officer.public), one, "a key in use", "a new key")
        if one.role == "officer":
            demand(one.signatures.old is None, one, "two signatures of one key", "one")
            self.officer = new
            return
        if one.signatures.old is not None:
            self._signed(one, "old", old)
        self._node_keys.append((self.size + 1, new))

    def _on_close(self, _: entry.Close) -> None:
        self.closed = True

    # Questions that the ledger asks as well.

    def open_run(self, plan: str) -> Run:
        """The approved plan, still open. BudgetError otherwise."""
        run = self.runs.get(plan)
        if run is None or run.settled:
            raise BudgetError(
                f"plan {plan[:8]}",
                got="not approved" if run is None else "settled",
                expected="an approved plan that is still open",
                hint="fedfsd region approve PLAN",
            )
        return run

    def settlement(self, run: Run) -> tuple[int, int, int]:
        """(rounds reserved, rounds released, nano-nats of the hold that would be free again)."""
        released = sum(booking.release is not None for booking in run.bookings.values())
        return len(run.bookings), released, run.entry.rho_left(run.bookings)

    def objection(self, approval: int, run: Run, date: str) -> str | None:
        """Why the approval of that number does not cover one more round of ``run``."""
        permission = self.permissions.get(approval)
        if permission is None:
            return "no such approval"
        return permission.objection(
            data_set=run.data_set,
            recipient=run.entry.recipient,
            purpose=run.entry.purpose,
            task=run.terms.task,
            model=run.terms.model,
            size=run.entry.release_bytes,
            date=date,
        )

    def worst(self, reach: str) -> tuple[entry.Charge, ...]:
        """What a recovery now would charge."""
        charges = (account.worst(reach) for account in self.accounts.values())
        return tuple(sorted(charges, key=lambda charge: charge.grant))

    def open_checkpoint(self, text: str) -> tuple[note.Checkpoint, note.Note]:
        """A checkpoint of this ledger, this epoch and a size it has had. EvidenceError otherwise."""
        size = note.Checkpoint.parse(note.Note.parse(text).text).size
        least = self.epochs[-1][0] + 1 if self.epochs else 1
        if not least <= size <= self.size:
            raise EvidenceError("checkpoint", got=f"size {size}", expected=f"{least} to {self.size}")
        head, parsed = note.open_checkpoint(text, self.node_at(size))
        if head.origin != self.origin(self.epoch) or head.root != self.tree.root(size):
            raise EvidenceError("checkpoint", got="another history", expected="one of this ledger")
        return head, parsed

    def _booking(self, one: Release | entry.Abort, run: Run) -> Booking:
        booking = run.bookings.get(one.round)
        if booking is None or booking.entry.seq != one.reserve or booking.aborted:
            raise BudgetError(
                f"round {one.round}", got="no open reservation", expected="a reservation before it"
            )
        return booking

    def _signed(self, one: entry.Signed, role: str, by: VerificationKey) -> None:
        demand(entry.is_signed(one, role, by), one, f"no good signature for {role}", f"one by {by.name}")


def demand(holds: bool, one: Entry, got: str, expected: str) -> None:
    """EvidenceError about one entry."""
    if not holds:
        raise EvidenceError(_place(one), got=got, expected=expected)


def _place(one: Entry) -> str:
    return f"entry {one.seq} ({one.type})"


_RULES: dict[type, Callable[[State, Any], None]] = {
    Genesis: State._on_genesis,
    entry.Grant: State._on_grant,
    entry.Approval: State._on_approval,
    PlanEntry: State._on_plan,
    entry.Reserve: State._on_reserve,
    Release: State._on_release,
    entry.Settle: State._on_settle,
    entry.Abort: State._on_abort,
    entry.Refuse: State._on_refuse,
    Incident: State._on_incident,
    entry.WitnessEntry: State._on_witness,
    entry.ProgramEntry: State._on_program,
    entry.Recover: State._on_recover,
    entry.KeyRotate: State._on_rotate,
    entry.Close: State._on_close,
}
