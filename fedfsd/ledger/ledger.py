"""One region's ledger: it books rounds before data is read, releases bytes once, and forgets nothing.

The rules stand in ``state``; here is only the order in which things reach the disks. A reservation is on
both disks before ``reserve`` returns; the bytes of a release are in the outbox, and its entry on both
disks, before ``release`` returns. So a crash can over-count what was spent, never under-count it, and a
round that was released is sent again as the same bytes without a new charge.
"""

from __future__ import annotations

import datetime
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fedfsd import canonical
from fedfsd.errors import BudgetError, FedfsdError, FormatError, NotReadyError
from fedfsd.ledger import booking, bundle, draft, entry, head, note, strict
from fedfsd.ledger.budget import Balance
from fedfsd.ledger.disk import Mapped, sync_folder, write_whole
from fedfsd.ledger.entry import Entry, IncidentCode, Program, RefuseCode
from fedfsd.ledger.error import EvidenceError
from fedfsd.ledger.key import SigningKey, VerificationKey
from fedfsd.ledger.state import Booking, Run, State
from fedfsd.ledger.store import Store
from fedfsd.plan.plan import Plan

NODE_KEY = "node.key"
NEXT_KEY = "node.key.next"
OUTBOX = "outbox"
MAX_STRANGE_REFUSALS = 1000


@dataclass(frozen=True)
class Booked:
    """A reservation: one round of one plan on one set of inbound arrays."""

    plan_hash: str
    round: int
    arrays_sha256: str


@dataclass(frozen=True)
class Released:
    """What left: the release's number and hash in the ledger, and the update's hash and bytes."""

    entry: int
    entry_hash: str
    sha256: str
    content: bytes | memoryview


class Ledger:
    """The ledger in ``folder``; several processes and threads may have it open at once."""

    def __init__(
        self,
        folder: Path,
        *,
        mirror: Path,
        heads: Iterable[str] = (),
        today: Callable[[], datetime.date] = lambda: datetime.datetime.now(datetime.UTC).date(),
    ) -> None:
        """Open a ledger that ``create`` made, if it is the newest copy.

        Args:
            folder: holds the ledger, the node's key and the outbox.
            mirror: its second copy, on another disk.
            heads: the newest checkpoints that witnesses hold of it, as many as answer.
            today: the date that approvals are compared with, in UTC; nothing else looks at it.

        Raises:
            NotReadyError: damaged, behind the mirror or a witness, or another history than theirs.
            FormatError: a newer release wrote in it; nothing is changed.
        """
        self.folder, self._today = folder, today
        self._lock = threading.RLock()
        self._store = Store(folder, mirror)
        self._state = State()
        self._catch_up()
        self._node = self._take_key()
        for text in heads:
            head.check(self._state, text)

    @classmethod
    def create(cls, folder: Path, *, mirror: Path, genesis: entry.Genesis, node: SigningKey) -> Ledger:
        """A new ledger from a signed genesis. NotReadyError where there is one already."""
        content = entry.encode(genesis)
        State().apply(genesis, content)
        (folder / OUTBOX).mkdir(parents=True, exist_ok=True)
        if not (folder / NODE_KEY).exists():
            node.write(folder / NODE_KEY)
        Store.create(folder, mirror, [content])
        return cls(folder, mirror=mirror)

    def close(self) -> None:
        """Let go of the files."""
        self._store.close()

    # What the officer signs.

    @property
    def state(self) -> State:
        """What the ledger says now; to be looked at, not changed."""
        with self._lock:
            self._catch_up()
            return self._state

    def add(self, signed: entry.Signed) -> int:
        """Append a drafted and signed entry: grant, approval, plan, recover, key-rotate, close.

        Raises:
            BudgetError: a plan that does not fit, or a grant below what is booked.
            EvidenceError: not signed as it must be, or it cannot stand here.
        """
        with self._writing():
            return self._append(signed)

    def approve_plan(
        self,
        plan: Plan,
        *,
        recipient: str,
        purpose: str,
        key_commitment: str | None,
        data_set: str | None = None,
        officer: SigningKey | None = None,
    ) -> int:
        """Hold the loss of a whole plan; approving it again does nothing.

        Raises:
            BudgetError: more than the grant has left (with what would fit), above a cap, or settled.
            PlanError: a plan without privacy, or without this region.
        """
        with self._writing() as state:
            known = state.runs.get(plan.hash)
            if known is not None and known.settled:
                raise BudgetError(
                    f"plan {plan.name}",
                    got="a plan that is settled",
                    expected="a plan of its own for a new run",
                )
            if known is not None:
                return known.entry.seq
            made = draft.plan(
                state,
                plan,
                recipient=recipient,
                purpose=purpose,
                key_commitment=key_commitment,
                data_set=data_set,
            )
            made = entry.sign(made, {"officer": officer}) if officer else made
            refused: FedfsdError | None = None
            try:
                return self._append(made)
            except BudgetError as error:
                refused = error
                self._note_refusal(plan.hash, None, "budget")
        raise refused

    def accept_program(self, plan_hash: str, program: Program) -> None:
        """From now on ``program`` trains the rounds of an open plan; accepting it again does nothing.

        Raises:
            BudgetError: not approved, or settled.
        """
        with self._writing() as state:
            self._record(state.open_run(plan_hash), program)

    def rotate(self, signed: entry.KeyRotate, new: SigningKey) -> None:
        """Replace the node's key by ``new``, as the officer signed it."""
        with self._lock:
            # Beside the old key until the ledger names it: a crash must not leave a ledger without its key.
            (self.folder / NEXT_KEY).unlink(missing_ok=True)
            new.write(self.folder / NEXT_KEY)
            self.add(signed)
            self._node = self._take_key()

    # What the gate calls, round by round.

    def reserve(
        self, plan_hash: str, round: int, arrays_sha256: str, *, program: Program | None = None
    ) -> Booked:
        """Book a round before any data is read, or find it booked on the same arrays.

        ``program`` is what will train it, and goes on record where the plan has none yet.

        Raises:
            BudgetError: plan not approved or settled; round outside it, behind a later release,
                aborted, or booked on other arrays.
            RefusedError: no approval covers the transfer, or another program than the plan's.
        """
        booked = Booked(plan_hash, round, arrays_sha256)
        with self._writing() as state:
            if self._is_newest(booked):  # sent again as it is, also when the plan is settled
                return booked
            run = state.open_run(plan_hash)
            refused = booking.objection(state, run, round, arrays_sha256, self._date(), program)
            if refused is not None:
                self._note_refusal(plan_hash, round, refused[0])
            else:
                self._record(run, program)
                if round not in run.bookings:
                    self._append(booking.reservation(state, run, round, arrays_sha256, self._date()))
        if refused is not None:
            raise refused[1]
        return booked

    def released(self, booked: Booked) -> Released | None:
        """What this reservation released already, to be sent again as it is.

        Raises:
            NotReadyError: the outbox no longer holds those bytes.
        """
        with self._lock:
            self._catch_up()
            found = self._find(booked)
            return None if found is None or found.release is None else self._sent(found.release, booked)

    def release(self, content: bytes | memoryview, booked: Booked) -> Released:
        """Keep ``content`` in the outbox, then book its release; only then may it be sent.

        Raises:
            BudgetError: no reservation, aborted, settled, or other bytes released before.
            RefusedError: of another size than planned, or the approval expired meanwhile.
        """
        sha256 = canonical.sha256(content)
        with self._writing() as state:
            run, found = state.open_run(booked.plan_hash), self._find(booked)
            if found is None or found.aborted:
                raise BudgetError(
                    f"round {booked.round}",
                    got="a release without a reservation",
                    expected="a reservation before it",
                )
            if found.release is not None and found.release.sha256 == sha256:
                return self._sent(found.release, booked)
            if found.release is not None:
                raise BudgetError(
                    f"round {booked.round}", got="a second release", expected="one release a round"
                )
            expired = booking.expired(state, run, found, self._date())
            if expired is not None:
                raise expired
            made = booking.release(state, run, found, sha256, len(content))
            path = self._outbox(booked)
            write_whole(path, content)
            kept = memoryview(Mapped(path))
            seq = self._append(made)
        # Only the newest release can still be asked for: the coordinator has stored the others.
        for old in path.parent.glob(f"{booked.plan_hash}.*"):
            if old != path:
                old.unlink(missing_ok=True)
        return Released(seq, self._state.tree.leaf(seq).hex(), sha256, kept)

    def settle(self, plan_hash: str) -> None:
        """End a plan and free what its rounds never reserved; settling again does nothing."""
        with self._writing() as state:
            run = state.runs.get(plan_hash)
            if run is None or not run.settled:
                reserved, released, freed = state.settlement(state.open_run(plan_hash))
                self._append(entry.Settle(plan=plan_hash, reserved=reserved, released=released, freed=freed))

    def abort(self, booked: Booked, code: Literal["operator", "failed"]) -> None:
        """Give a reservation up: it stays charged and is never released. BudgetError once it was."""
        with self._writing():
            found = self._find(booked)
            if found is None or found.release is not None:
                raise BudgetError(
                    f"round {booked.round}", got="no reservation, or a released one", expected="an open one"
                )
            if not found.aborted:
                seq = found.entry.seq
                self._append(entry.Abort(plan=booked.plan_hash, round=booked.round, reserve=seq, code=code))

    def refuse(self, plan_hash: str, round: int | None, code: RefuseCode) -> None:
        """Write down that a request was refused, once for each plan, round and code."""
        with self._writing():
            self._note_refusal(plan_hash, round, code)

    def incident(self, code: IncidentCode, text: str, *, plan_hash: str | None = None) -> None:
        """Write down what an auditor should know. ConfigError for a text that is too long or not plain."""
        with strict.typed("incident"):
            made = entry.Incident(code=code, text=text, plan=plan_hash)
        with self._writing():
            self._append(made)

    def end(self, booked: Booked, *, finding: str, text: str) -> None:
        """An update of a booked round is not what its plan releases: no round of the plan follows.

        Writing it down again does nothing. BudgetError: not approved, or settled.
        """
        with self._writing() as state:
            if state.open_run(booked.plan_hash).ended is None:
                self._append(
                    entry.Incident(
                        format=4,
                        plan=booked.plan_hash,
                        code="release",
                        text=text,
                        round=booked.round,
                        finding=finding,
                    )
                )

    # What others see.

    @property
    def mirror_behind(self) -> int:
        """How many entries the mirror has no room for."""
        with self._lock:
            self._catch_up()
            self._store.mirror.refresh()
            return max(0, self._state.size - self._store.mirror.count)

    def balances(self) -> tuple[Balance, ...]:
        """Where every data set with a grant stands."""
        return tuple(account.balance for account in self.state.accounts.values())

    def content(self, seq: int) -> bytes:
        """The bytes of one entry. NotReadyError where there is none of that number."""
        with self._lock:
            found = next(self._store.entries(seq), None)
        if found is None:
            raise NotReadyError("ledger", got=f"no entry {seq}", expected="one of its entries")
        return found

    def checkpoint(self) -> str:
        """The signed head of all entries so far, kept for the bundle.

        Raises:
            NotReadyError: the node's key is not the one in force.
        """
        with self._writing() as state:
            if self._node.verification != state.node:
                raise NotReadyError(
                    NODE_KEY, got="a key that is not in force", expected="the key of the last rotation"
                )
            kept = {(epoch, size): text for epoch, size, text in self._store.checkpoints()}
            made = note.Checkpoint(state.origin(state.epoch), state.size, state.tree.root())
            text = kept.get((state.epoch, state.size)) or note.sign(made.text, [self._node])
            self._store.keep(state.epoch, state.size, text)
            return text

    def witness(self, text: str, witnesses: Sequence[VerificationKey]) -> None:
        """Keep a checkpoint of this ledger that some of ``witnesses`` cosigned, and book that.

        Raises:
            EvidenceError: another history, not signed by this node, or by no witness.
        """
        with self._writing() as state:
            made, parsed = state.open_checkpoint(text)
            if not note.cosigners(parsed, witnesses):
                raise EvidenceError("checkpoint", got="no cosignature", expected="one by a known witness")
            self._store.keep(state.epoch, made.size, text)
            self._append(entry.WitnessEntry(size=made.size, checkpoint=text))

    def bundle(self, path: Path) -> None:
        """Write what an auditor gets: all entries and checkpoints, the last over everything."""
        self.checkpoint()
        with self._lock:
            checkpoints, entries = self._store.checkpoints(), list(self._store.entries())
        covered = max(size for _, size, _ in checkpoints)
        genesis = self.state.genesis
        bundle.write(
            path,
            region=genesis.region,
            ledger=genesis.ledger,
            entries=entries[:covered],
            checkpoints=checkpoints,
        )

    # How it is done.

    @contextmanager
    def _writing(self) -> Iterator[State]:
        """The state, with the only right to add to it; what was added is on both disks afterwards."""
        with self._lock:
            known = self._state.size
            try:
                with self._store.transaction():
                    self._catch_up()
                    self._store.demand_newest(self._state.size)
                    known = self._state.size
                    yield self._state
            except BaseException:
                if self._state.size != known:  # it holds what may never have reached the disk
                    self._state = State()
                raise

    def _catch_up(self) -> None:
        for content in self._store.entries(self._state.size):
            try:
                self._state.apply(entry.parse(content, place=f"entry {self._state.size}"), content)
            except FormatError:
                raise
            except FedfsdError as error:
                raise NotReadyError(
                    "ledger", got=f"a ledger that contradicts itself ({error})", expected="an unchanged one"
                ) from None

    def _append(self, one: Entry) -> int:
        late = self._late(one)
        if late is not None:
            return late
        seq = self._state.size
        placed = one.model_copy(update={"seq": seq})
        content = entry.encode(placed)
        self._state.apply(placed, content)
        self._store.add(seq, content)
        self._store.mirror.late.clear()
        return seq

    def _record(self, run: Run, program: Program | None) -> None:
        if program not in (None, run.program):
            self._append(entry.ProgramEntry(plan=run.entry.plan, program=program))

    def _late(self, one: Entry) -> int | None:
        """The number of the same entry, where whoever wrote it was told that the mirror has no room."""
        for content in self._store.mirror.late:
            seq = entry.parse(content, place="entry").seq
            if entry.encode(one.model_copy(update={"seq": seq})) == content:
                return seq
        return None

    def _note_refusal(self, plan_hash: str, round: int | None, code: RefuseCode) -> None:
        # Once each, of rounds that exist, and no flood of plans: a peer must not fill the disk.
        refusals, run = self._state.refusals, self._state.runs.get(plan_hash)
        if run is None and len(refusals) >= MAX_STRANGE_REFUSALS:
            return
        known = round is not None and run is not None and 1 <= round <= run.entry.rounds
        case = (plan_hash, round if known else None, code)
        if case not in refusals:
            self._append(entry.Refuse(plan=case[0], round=case[1], code=code))

    def _take_key(self) -> SigningKey:
        path, following = self.folder / NODE_KEY, self.folder / NEXT_KEY
        if following.exists() and SigningKey.read(following).verification == self._state.node:
            following.replace(path)
            sync_folder(self.folder)
        return SigningKey.read(path)

    def _find(self, booked: Booked) -> Booking | None:
        run = self._state.runs.get(booked.plan_hash)
        found = run.bookings.get(booked.round) if run else None
        return found if found is not None and found.entry.arrays == booked.arrays_sha256 else None

    def _is_newest(self, booked: Booked) -> bool:
        found = self._find(booked)
        released = found is not None and found.release is not None
        return released and self._state.runs[booked.plan_hash].newest == booked.round

    def _sent(self, release: entry.Release, booked: Booked) -> Released:
        path = self._outbox(booked)
        content = path.read_bytes() if path.exists() else b""
        if canonical.sha256(content) != release.sha256:
            raise NotReadyError(
                f"{OUTBOX}/{path.name}",
                got="not the bytes that were released",
                expected="the released bytes",
                hint="this round cannot be sent again: start a new run",
            )
        entry_hash = self._state.tree.leaf(release.seq).hex()
        return Released(release.seq, entry_hash, release.sha256, content)

    def _outbox(self, booked: Booked) -> Path:
        return self.folder / OUTBOX / f"{booked.plan_hash}.{booked.round}"

    def _date(self) -> str:
        return self._today().isoformat()
