"""Evidence by the thousand for two verifiers: honest, odd and forged, made from a seed.

An honest region's ledger grows by random steps. Then its list of entries is taken apart, somebody who stole
every key changes something, signs all of it again, and packs it.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import stranger_values as values
from audit.forge import COORDINATOR, DATA, WITNESS, Forge
from audit.forge import plan_of as any_plan
from stranger_verifier import archive, local_member

from fedfsd import canonical
from fedfsd.errors import FedfsdError
from fedfsd.ledger import draft, entry, note
from fedfsd.ledger.entry import (
    Abort,
    Close,
    Incident,
    KeyRotate,
    Package,
    Program,
    ProgramEntry,
    Refuse,
    WitnessEntry,
)
from fedfsd.ledger.key import SigningKey
from fedfsd.ledger.state import State
from fedfsd.mechanism.accountant import epsilon_pld
from fedfsd.mechanism.event import Event
from fedfsd.plan.plan import Plan

Noise = float | tuple[float, ...]
NOISES: tuple[Noise, ...] = (2.0, 3.0, (2.0, 3.0), (4.0, 2.0, 4.0))
STRANGER = b"s" * 32
REGIONS = max(24, int(os.environ.get("FEDFSD_STRANGER", "0")) // 8)  # honest ledgers to start from


@dataclass(frozen=True)
class Evidence:
    """Files by name, as an auditor is given them."""

    bundles: dict[str, bytes]
    notes: dict[str, str] = field(default_factory=dict)
    receipts: bytes | None = None
    trust: bytes | None = None


@dataclass(frozen=True)
class Case:
    """``answer`` is what both have to say; None where it depends. Nothing forged may hold."""

    kind: str
    forged: bool
    evidence: Evidence
    answer: str | None = None


@cache
def epsilon(noise: Noise, rounds: int) -> float:
    each = noise if isinstance(noise, tuple) else (noise,) * rounds
    return epsilon_pld([Event(0.1, one, 5) for one in each], 1e-4)


def plan_of(noise: Noise, seed: int, stated: str = "true", **changes: Any) -> Plan:
    """A plan whose stated epsilon is true, none, high, or low (a lie)."""
    rounds = len(noise) if isinstance(noise, tuple) else 2
    add = {"true": 0.0, "high": 1.0, "low": -0.02}
    said = None if stated == "none" else epsilon(noise, rounds) + add[stated]
    return any_plan(rounds=rounds, noise=noise, seed=seed, epsilon=said, **changes)  # type: ignore[arg-type]


class Region(Forge):
    """A region that takes random steps, all of them honest: what its own ledger refuses is not written."""

    def __init__(self, rng: random.Random, name: str = "EU", **options: Any) -> None:
        super().__init__(name, **options)
        self.rng, self.plans, self.permits = rng, [], []  # type: ignore[var-annotated]
        self.secrets = {str(key.verification): key for key in (self.node, self.officer)}
        self.grant(epsilon=30.0, **self.terms())

    @property
    def state(self) -> State:
        """As an honest region would have it, continued where only entries were added."""
        seen = self.__dict__.setdefault("_seen", [])
        if len(seen) > len(self.entries) or any(a is not b for a, b in zip(seen, self.entries, strict=False)):
            seen.clear()
        if not seen:
            self._state = State()
        for one in self.entries[len(seen) :]:
            self._state.apply(one, entry.encode(one))
            seen.append(one)
        return self._state

    def terms(self) -> dict[str, Any]:
        signed = self.rng.random() < 0.3  # every plan is above a cap of nothing
        return {"approval_required": self.rng.random() < 0.2, **({"plan_cap": 0} if signed else {})}

    def walk(self, steps: int) -> Region:
        for _ in range(steps):
            kept, epoch, keys = list(self.entries), self.epoch, (self.node, self.officer)
            with suppress(FedfsdError, IndexError, KeyError, StopIteration, ValueError):
                self.rng.choice(STEPS)(self)
                assert self.state
                continue
            self.entries, self.epoch, (self.node, self.officer) = kept, epoch, keys
            self.heads = {at: text for at, text in self.heads.items() if at <= (epoch, len(kept))}
        return self

    def begin(self) -> None:
        plan = plan_of(
            self.rng.choice(NOISES), self.rng.randrange(10**6), self.rng.choice(["true", "none", "high"])
        )
        entry_of = draft.plan(
            self.state,
            plan,
            recipient=COORDINATOR.name,
            purpose="research",
            key_commitment=canonical.sha256(plan.hash.encode()),
            data_set=self.rng.choice(sorted(self.state.accounts)),
        )
        signed = entry.sign(entry_of.model_copy(update={"seq": len(self.entries)}), {"officer": self.officer})
        self.entries.append(signed)
        self.plans.append(plan)

    def open_round(self) -> tuple[Plan, int]:
        plan = self.rng.choice(self.plans)
        done = self.state.runs[plan.hash].bookings
        return plan, next(number for number in range(1, plan.num_rounds + 1) if number not in done)

    def reserve_one(self) -> None:
        plan, number = self.open_round()
        approval = self.rng.choice([None, *self.permits])
        self.reserve(plan, number, approval=approval, date=self.rng.choice(["2026-11-22", "2026-01-01"]))

    def round_one(self) -> None:
        plan, number = self.open_round()
        needed = self.state.accounts[DATA].grant.approval_required
        self.round(plan, number, approval=self.permits[-1] if needed else None)

    def finish_one(self) -> None:
        plan = self.rng.choice(self.plans)
        number = self.rng.choice(sorted(self.state.runs[plan.hash].bookings))
        if self.rng.random() < 0.7:
            self.release(plan, number)
        else:
            booked = self.state.runs[plan.hash].bookings[number].entry.seq
            self.add(Abort(plan=plan.hash, round=number, reserve=booked, code="failed"))

    def permit_one(self) -> None:
        number = f"2026/{self.rng.randrange(10**6)}"
        tasks = self.rng.choice(
            [None, None, ("forecasting",), ("camera", "forecasting"), ("*",), ("camera",)]
        )
        named = {"format": 4, "tasks": tasks} if tasks else {}
        self.permits.append(self.permit(number=number, max_releases=3, max_bytes=60, **named))

    def train(self) -> None:
        """What trains from here on."""
        package = Package(sha256=self.rng.choice(["1", "2"]) * 64, version="1.0")
        program = Program(code="c" * 64, version="0.0.0", packages={"torch": package})
        self.add(ProgramEntry(plan=self.rng.choice(self.plans).hash, program=program))

    def witness(self) -> None:
        size = len(self.entries)
        self.add(WitnessEntry(size=size, checkpoint=self.head(cosigned=True)))

    def rotate(self) -> None:
        role = self.rng.choice(["node", "officer"])
        old: SigningKey = getattr(self, role)
        new = SigningKey.from_seed(old.name, self.rng.randbytes(32))
        one = KeyRotate(seq=len(self.entries), ledger=self.ledger, role=role, key=str(new.verification))
        lost = role == "officer" or self.rng.random() < 0.3
        self.entries.append(
            entry.sign(one, {"officer": self.officer, "new": new, **({} if lost else {"old": old})})
        )
        self.secrets[str(new.verification)] = new
        setattr(self, role, new)

    def recover(self) -> None:
        if self.epoch >= 2:
            return
        size = len(self.entries)
        self.head()
        root = self.tree.root(size).hex() if self.rng.random() < 0.5 else None
        least = max((s for e, s in self.heads if e < self.epoch), default=1)
        begun = max([2, *(one.seq + 1 for one in self.entries if one.type == "recover"), least])
        kept = self.rng.randrange(begun, size + 1)
        del self.entries[kept:]
        state = self.state
        self.node, self.officer = (self.secrets[str(key)] for key in (state.node, state.officer))
        reach: Any = self.rng.choice(["rounds", "unknown"])
        self.add(draft.recover(state, lost_size=size, lost_root=root, reach=reach))
        self.epoch += 1
        self.permits.clear()

    def follow(self) -> None:
        label = self.rng.choice([DATA, DATA, "another"])
        old = self.state.accounts.get(label)
        apart = old is not None and self.rng.random() < 0.3
        self.grant(data_set=label, epsilon=40.0, disjoint=apart, **self.terms())


STEPS: tuple[Callable[[Region], Any], ...] = (
    *[Region.begin] * 3,
    *[Region.reserve_one] * 3,
    *[Region.round_one] * 5,
    *[Region.finish_one] * 3,
    lambda one: one.settle(one.rng.choice(one.plans)),
    Region.permit_one,
    Region.witness,
    Region.train,
    Region.head,
    Region.rotate,
    Region.recover,
    Region.follow,
    lambda one: one.add(Incident(plan=None, code="data", text="a sensor failed")),
    lambda one: one.add(Refuse(plan="0" * 64, round=one.rng.choice([None, 1]), code="policy")),
)


# A ledger taken apart.


@dataclass
class Parts:
    """Plain values of one ledger, and every secret key. ``lost`` are heads of which the entries are gone."""

    region: str
    ledger: str
    entries: list[dict[str, Any]]
    secrets: dict[str, SigningKey]
    sizes: list[tuple[int, int]]
    lost: dict[tuple[int, int], str]
    raw: dict[int, bytes] = field(default_factory=dict)  # lines that are not their entry's canonical form

    @classmethod
    def of(cls, region: Region) -> Parts:
        begins = [0, *(one.seq for one in region.entries if one.type == "recover")]
        ends = [*begins[1:], len(region.entries)]
        kept = [at for at in region.heads if begins[at[0]] < at[1] <= ends[at[0]]]
        lost = {at: text for at, text in region.heads.items() if at[1] > ends[at[0]]}
        entries = [json.loads(content) for content in region.contents]
        last = (region.epoch, len(entries))
        sizes = sorted({*kept, last})
        return cls(region.region, region.ledger, entries, region.secrets, sizes, lost)

    @property
    def name(self) -> str:
        return f"fedfsd/{self.region}/{self.ledger}"

    def lines(self) -> list[bytes]:
        return [self.raw.get(seq) or values.canonical(one) for seq, one in enumerate(self.entries)]

    def keys_at(self, size: int) -> dict[str, SigningKey]:
        """The keys in force after so many entries; a key that nobody has signs nothing."""
        found: dict[str, SigningKey] = {}
        for one in self.entries[:size]:
            if one.get("type") == "genesis":
                new = {"node": one.get("node_key"), "officer": one.get("officer_key")}
            elif one.get("type") == "key-rotate":
                new = {str(one.get("role")): one.get("key")}
            else:
                continue
            found |= {role: self.secrets[key] for role, key in new.items() if key in self.secrets}
        return found

    def resign(self) -> None:
        """Everything signed again by whoever has to."""
        for seq, one in enumerate(self.entries):
            signatures = one.get("signatures")
            if not isinstance(signatures, dict):
                continue
            keys = self.keys_at(seq if seq else 1)
            if one.get("type") == "key-rotate":
                keys["old"] = keys.get(str(one.get("role")), keys["officer"])
                keys["new"] = self.secrets.get(str(one.get("key")), keys["old"])
            body = {name: value for name, value in one.items() if name not in ("seq", "signatures")}
            message = b"fedfsd/entry/v1\n" + values.canonical(body)
            for role in signatures:
                if signatures[role] is not None and role in keys:
                    signatures[role] = keys[role].sign(message).hex()

    def relink(self) -> None:
        """Plans named by their documents again, wherever they are named."""
        names = {
            one["plan"]: canonical.sha256(values.canonical(one["document"]))
            for one in self.entries
            if one.get("type") == "plan" and "document" in one and isinstance(one.get("plan"), str)
        }
        for one in self.entries:
            if isinstance(one.get("plan"), str):
                one["plan"] = names.get(one["plan"], one["plan"])

    def renumber(self) -> None:
        """Entries numbered again after some came or went, and named by their new numbers."""
        moved = {one["seq"]: seq for seq, one in enumerate(self.entries) if isinstance(one.get("seq"), int)}
        for seq, one in enumerate(self.entries):
            one["seq"] = seq
            for name in ("grant", "reserve", "approval", "predecessor"):
                if isinstance(one.get(name), int):
                    one[name] = moved.get(one[name], one[name])
        self.sizes = [*self.sizes[:-1], (self.sizes[-1][0], len(self.entries))]

    def head(self, epoch: int, size: int, *, root: bytes = b"", key: SigningKey | None = None) -> str:
        root = root or values.Tree(self.lines()).root(size)
        origin = self.name + (f"/{epoch}" if epoch else "")
        key = key or self.keys_at(max(size, 1))["node"]
        return note.sign(f"{origin}\n{size}\n{values.base64.b64encode(root).decode()}\n", [key])

    def bundle(self, heads: dict[tuple[int, int], str] | None = None) -> bytes:
        lines = self.lines()
        made = {at: self.head(*at) for at in self.sizes if at[1] <= len(lines)} | self.lost | (heads or {})
        members = {
            f"checkpoints/{e:04d}-{s:010d}.note": text.encode() for (e, s), text in sorted(made.items())
        }
        members["entries.jsonl"] = b"".join(line + b"\n" for line in lines)
        files = {
            name: {"bytes": len(data), "sha256": canonical.sha256(data)} for name, data in members.items()
        }
        listing = {"format": 1, "kind": "fedfsd-bundle", "region": self.region, "ledger": self.ledger}
        first = values.canonical({**listing, "size": len(lines), "files": files})
        return archive({"bundle.json": first, **members})

    def receipts(self) -> list[dict[str, Any]]:
        return [
            {"region": self.region, "entry": values.leaf_hash(line).hex()}
            | {name: one.get(name) for name in ("plan", "round", "sha256", "bytes")}
            for one, line in zip(self.entries, self.lines(), strict=True)
            if one.get("type") == "release"
        ]

    def trust(self) -> list[str]:
        first = self.keys_at(1)
        return [f"node {first['node'].verification}", f"officer {first['officer'].verification}"]


def receipts_of(rows: list[dict[str, Any]], **changes: Any) -> bytes:
    rows = sorted(rows, key=lambda row: (row["region"], str(row["plan"]), str(row["round"])))
    plans = sorted({str(row["plan"]) for row in rows})
    body = {
        "format": 1,
        "kind": "fedfsd-receipts",
        "run": "test",
        "coordinator": str(COORDINATOR.verification),
    }
    body |= {"plans": plans, "receipts": rows, **changes}
    signature = COORDINATOR.sign(b"fedfsd/receipts/v1\n" + values.canonical(body)).hex()
    return values.canonical({**body, "signature": signature})


def pack(*all_parts: Parts, **changes: Any) -> Evidence:
    """The bundles of these ledgers, the receipts of all their releases, the keys of everybody."""
    rows = [row for parts in all_parts for row in parts.receipts()]
    keys = [f"coordinator {COORDINATOR.verification}", f"witness {WITNESS.cosigner}"]
    keys += [line for parts in all_parts for line in parts.trust()]
    made = Evidence(
        bundles={f"{parts.region}-{number}.zip": parts.bundle() for number, parts in enumerate(all_parts)},
        receipts=receipts_of(rows),
        trust="".join(f"{line}\n" for line in dict.fromkeys(keys)).encode(),
    )
    return replace(made, **changes)


# Kinds of cases.

Maker = Callable[[random.Random], Case]
KINDS: dict[str, Maker] = {}


def kind(make: Maker) -> Maker:
    KINDS[make.__name__] = make
    return make


@cache
def grown(name: str, number: int) -> Region:
    rng = random.Random(f"region {name} {number}")
    return Region(rng, name, seed=str(number)).walk(rng.randrange(3, 25))


def region(rng: random.Random, name: str = "EU") -> Region:
    """One of some honest regions, to be changed by whoever gets it."""
    return deepcopy(grown(name, rng.randrange(REGIONS)))


def parts(rng: random.Random, *wanted: str) -> Parts:
    """A ledger that has entries of all these types."""
    while True:
        found = Parts.of(region(rng))
        if set(wanted) <= {one["type"] for one in found.entries}:
            return found


@kind
def honest(rng: random.Random) -> Case:
    regions = [region(rng, name) for name in (("EU",), ("EU", "US"))[rng.random() < 0.3]]
    found = [Parts.of(one) for one in regions]
    answer = None if any(one.lost for one in found) else "holds"  # heads by a lost key cannot be judged
    return Case("honest", False, pack(*found), answer)


@kind
def edited_field(rng: random.Random) -> Case:
    """One value anywhere in one entry is another, and all is signed again."""
    one = parts(rng)
    target = rng.choice(one.entries)
    where, name = rng.choice(list(_places(target)))
    _change(rng, where, name)
    if rng.random() < 0.6:
        one.relink()
    with suppress(values.Contradicted, KeyError, TypeError):
        one.resign()
        return Case("edited_field", False, pack(one))
    return honest(rng)


def _places(value: Any) -> Any:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, inner in items:
        yield value, name
        yield from _places(inner)


def _change(rng: random.Random, where: Any, name: Any) -> None:
    old = where[name]
    anything = [
        None,
        True,
        False,
        0,
        1,
        2,
        -1,
        1.5,
        2**53 - 1,
        1e20,
        1e-300,
        "",
        "x",
        "é" * 200,
        "x" * 201,
        [],
        {},
    ]
    if isinstance(old, bool):
        near: list[Any] = [not old]
    elif isinstance(old, (int, float)):
        near = [old + 1, old - 1, old * 2, old / 2, old + 1e-9]
        near = [
            int(one) if isinstance(one, float) and one.is_integer() and abs(one) < 2**53 else one
            for one in near
        ]
    elif isinstance(old, str):
        near = [old + "0", old[:-1], old.upper(), old[::-1], old + "\u200b", old.replace("0", "1")]
    elif isinstance(old, list):
        near = [old[1:], old + old[:1], old[::-1]]
    else:
        near = [{**(old or {}), "more": 1}]
    if isinstance(where, dict) and rng.random() < 0.1:
        del where[name]
    else:
        where[name] = deepcopy(rng.choice(near if rng.random() < 0.7 else anything))


@kind
def moved_entries(rng: random.Random) -> Case:
    """Entries dropped, doubled, swapped or taken from another region, numbered and signed again."""
    one = parts(rng)
    for _ in range(rng.choice([1, 1, 2])):
        at, to = rng.randrange(1, len(one.entries)), rng.randrange(1, len(one.entries))
        how = rng.choice(["drop", "double", "swap", "foreign"])
        if how == "drop" and len(one.entries) > 2:
            del one.entries[at]
        elif how == "double":
            one.entries.insert(to, deepcopy(one.entries[at]))
        elif how == "swap":
            one.entries[at], one.entries[to] = one.entries[to], one.entries[at]
        else:
            one.entries.insert(to, {**rng.choice(parts(rng).entries)})
    one.sizes = [at for at in one.sizes if at[1] < len(one.entries)] or one.sizes[:1]
    one.sizes.append((one.sizes[-1][0], len(one.entries)))
    if rng.random() < 0.8:
        one.renumber()
    one.resign()
    return Case("moved_entries", False, pack(one))


@kind
def edited_bytes(rng: random.Random) -> Case:
    """One byte of a file flipped, put in, or taken out by somebody without a key."""
    made = pack(parts(rng))
    file = rng.choice(["bundle", "bundle", "bundle", "receipts", "trust"])
    old = {"bundle": made.bundles["EU-0.zip"], "receipts": made.receipts, "trust": made.trust}[file]
    assert old is not None
    at = rng.randrange(len(old))
    new = {
        "flip": old[:at] + bytes([old[at] ^ 1 << rng.randrange(8)]) + old[at + 1 :],
        "in": old[:at] + rng.randbytes(1) + old[at:],
        "out": old[:at] + old[at + 1 :],
        "cut": old[:at],
    }[rng.choice(["flip", "flip", "in", "out", "cut"])]
    if file == "bundle":
        made = replace(made, bundles={"EU-0.zip": new})
    elif file == "receipts":
        made = replace(made, receipts=new)
    else:
        made = replace(made, trust=new)
    return Case(f"edited_bytes of {file}", file != "trust" and new != old, made)


@kind
def edited_line(rng: random.Random) -> Case:
    """One line spelled otherwise, in a bundle that is packed well and signed again."""
    one = parts(rng)
    seq = rng.randrange(len(one.entries))
    old = values.canonical(one.entries[seq])
    other = json.dumps(one.entries[seq])
    spelled = {
        "spaces": other.encode(),
        "twice": old[:-1] + b',"seq":%d}' % seq,
        "float": old.replace(b'"seq":%d' % seq, b'"seq":%d.0' % seq),
        "escape": old.replace(b'"type"', b'"\\u0074ype"'),
        "tail": old + b" ",
        "bom": b"\xef\xbb\xbf" + old,
        "garbage": rng.randbytes(20).replace(b"\n", b""),
        "deep": b"[" * 70 + b"]" * 70,
        "empty": b"",
        "list": b"[]",
        "nan": old[:-1] + b',"x":NaN}',
        "long": old[:-1] + b',"x":%s}' % (b"9" * 5000),
        "newer": old[:-1]
        + b',"format":%s}' % rng.choice([b"4", b"7", b"3.0", b"0", b'"3"', b"9007199254740992"]),
    }
    how = rng.choice(sorted(spelled))
    one.raw[seq] = spelled[how] or b" "
    return Case(f"edited_line: {how}", True, pack(one, receipts=None))


@kind
def forged_head(rng: random.Random) -> Case:
    """A head of another history, of no entries, of too many, of an epoch that is not."""
    one = parts(rng)
    epoch, size = one.sizes[-1]
    other = rng.randbytes(32)
    inside = rng.choice(one.sizes)
    how = rng.choice(["root", "zero", "beyond", "epoch", "early"])
    begun = [entry["seq"] for entry in one.entries if entry["type"] == "recover"]
    text = {
        "root": lambda: one.head(*inside, root=other),
        "zero": lambda: one.head(0, 0, root=other, key=one.keys_at(1)["node"]),
        "beyond": lambda: one.head(epoch, size + rng.randrange(1, 9), root=other),
        "epoch": lambda: one.head(epoch + 1, size),
        "early": lambda: one.head(epoch, rng.randrange(1, begun[-1] + 1)) if begun else one.head(1, 1),
    }[how]
    with suppress(IndexError):
        made = text()
        where = rng.choice(["note", "bundle", "witness"])
        at = (values.epoch_of(made.split("\n")[0], one.name) or 0, int(made.split("\n")[1]))
        if where == "bundle":
            return Case(f"forged_head: {how} in bundle", True, _with_head(one, at, made), "contradicted")
        if where == "witness":
            _append(
                one, {"type": "witness", "size": at[1], "checkpoint": note.cosign(made, WITNESS, seconds=1)}
            )
            return Case(f"forged_head: {how} in witness entry", True, pack(one), "contradicted")
        return Case(f"forged_head: {how} beside", True, pack(one, notes={"held.note": made}), "contradicted")
    return honest(rng)


def _with_head(one: Parts, at: tuple[int, int], text: str) -> Evidence:
    return pack(one, bundles={"EU-0.zip": one.bundle({at: text})})


def _append(one: Parts, body: dict[str, Any]) -> None:
    one.entries.append({**body, "seq": len(one.entries)})
    one.sizes.append((one.sizes[-1][0], len(one.entries)))


@kind
def odd_head(rng: random.Random) -> Case:
    """Honest heads beside the bundle, and heads by keys of all sorts, cosigned well or not."""
    one = parts(rng)
    at = rng.choice(one.sizes)
    sizes = range(1, len(one.entries) + 1)
    key = rng.choice([*one.secrets.values(), SigningKey.from_seed(one.name, STRANGER)])
    text = one.head(at[0], rng.choice([at[1], rng.choice(sizes)]), key=key)
    other = SigningKey.from_seed(WITNESS.name, STRANGER)
    text = rng.choice([text, note.cosign(text, WITNESS, seconds=1), note.cosign(text, other, seconds=2)])
    lines = text.split("\n")
    text = rng.choice(
        [text, text, text, text + lines[-2] + "\n", text.replace("\n\n", "\n"), text[:-9] + "\n"]
    )
    if rng.random() < 0.3:
        bad = note.cosign(one.head(*at), WITNESS, seconds=1).rstrip("\n").rpartition("\n")[2]
        text = text + bad + "\n"  # of a time and size that may be another head's
    where = rng.choice(["note", "bundle", "witness"])
    if where == "bundle":
        with suppress(ValueError):
            place = (values.epoch_of(text.split("\n")[0], one.name) or 0, int(text.split("\n")[1]))
            return Case("odd_head in bundle", False, _with_head(one, place, text))
    if where == "witness":
        size = int(text.split("\n")[1])
        _append(one, {"type": "witness", "size": size, "checkpoint": text})
        return Case("odd_head in witness entry", False, pack(one))
    return Case("odd_head beside", False, pack(one, notes={"held.note": text}))


@kind
def lost_part(rng: random.Random) -> Case:
    """After a recovery: heads and receipts of what was lost, true and forged."""
    one = parts(rng, "recover")
    recover = next(entry for entry in one.entries if entry["type"] == "recover")
    epoch, key = recover["epoch"] - 1, one.keys_at(recover["seq"])["node"]
    roots = [rng.randbytes(32), rng.randbytes(32)]
    size = rng.randrange(recover["seq"], recover["lost_size"] + 2)
    heads = [one.head(epoch, size, root=root, key=key) for root in roots[: rng.choice([1, 1, 1, 2])]]
    changed = rng.choice([*[""] * 8, "lost_size", "lost_root", "epoch", "reach", "charges"])
    if changed:
        _change(rng, recover, changed)
        one.resign()
    notes = {f"{number}.note": text for number, text in enumerate(heads)} if rng.random() < 0.6 else {}
    rows = one.receipts()
    plans = [entry["plan"] for entry in one.entries if entry["type"] == "plan"] or ["0" * 64]
    if rng.random() < 0.5:
        row = {"region": "EU", "plan": rng.choice(plans), "round": rng.randrange(1, 4), "bytes": 20}
        row |= {"sha256": "1" * 64, "entry": "2" * 64}
        rows = [other for other in rows if (other["plan"], other["round"]) != (row["plan"], row["round"])] + [
            row
        ]
    forged = len(notes) == 2
    return Case("lost_part", forged, pack(one, notes=notes, receipts=receipts_of(rows)))


@kind
def two_bundles(rng: random.Random) -> Case:
    """Two bundles of one ledger: an older one, or a history that differs."""
    one = parts(rng)
    other = deepcopy(one)
    del other.entries[rng.randrange(2, len(other.entries) + 1) :]
    epochs = sum(entry["type"] == "recover" for entry in other.entries)
    other.sizes = [at for at in other.sizes if at[1] < len(other.entries) and at[0] <= epochs]
    other.sizes.append((epochs, len(other.entries)))
    other.lost = {at: text for at, text in other.lost.items() if at[0] < epochs}
    forged = rng.random() < 0.5
    if forged:
        _append(other, {"type": "incident", "plan": None, "code": "other", "text": "another history"})
    rows = receipts_of(one.receipts())
    made = pack(one, other, receipts=rng.choice([rows, None]))
    if one.sizes[-1][0] != other.sizes[-1][0] or one.sizes[-1] < other.sizes[-1]:
        forged = False  # what a recovery lost, or the newer one
    return Case("two_bundles, one forged" if forged else "two_bundles", forged, made)


@kind
def succession(rng: random.Random) -> Case:
    """A ledger after a closed one, with all or some of its loss."""
    old = region(rng)
    closed = rng.random() < 0.8
    if closed:
        old.add(Close(ledger=old.ledger, reason="moved"))
    account = old.state.accounts[DATA]
    loss = account.spent + account.held
    new = Region.__new__(Region)
    Forge.__init__(new, "EU", seed="next", previous=old.ledger)
    new.rng, new.plans, new.permits = rng, [], []
    new.secrets = {str(key.verification): key for key in (new.node, new.officer)}
    less = rng.random() < 0.3 and loss > 0
    alpha = account.grant.alpha + (rng.random() < 0.2)
    carried = loss - 1 if less else loss + rng.choice([0, 5])
    new.grant(epsilon=90.0, alpha=alpha, carried_rho=carried)
    first, second = Parts.of(old), Parts.of(new.walk(8))
    bad = not closed or (less and alpha == account.grant.alpha)
    if rng.random() < 0.8:
        return Case("succession", bad, pack(first, second), "contradicted" if bad else None)
    rows = receipts_of(first.receipts() + second.receipts())
    return Case("succession, one ledger", False, pack(rng.choice([first, second]), receipts=rows))


@kind
def forged_receipts(rng: random.Random) -> Case:
    """The coordinator signs receipts of what was not released so."""
    one = parts(rng, "release")
    rows = one.receipts()
    row = rng.choice(rows)
    how = rng.choice(["sha256", "entry", "bytes", "round", "plan"])
    row[how] = {"bytes": 21, "round": 9}.get(how, "7" * 64)
    recovered = any(entry["type"] == "recover" for entry in one.entries)
    answer = None if recovered and how in ("round", "plan") else "contradicted"
    return Case(f"forged_receipts: {how}", answer is not None, pack(one, receipts=receipts_of(rows)), answer)


@kind
def odd_receipts(rng: random.Random) -> Case:
    """Receipts of a region without bundle, in another order, of more plans, with other fields."""
    one = parts(rng, "release")
    rows = one.receipts()
    how = rng.choice(["region", "fewer", "none", "order", "twice", "plans", "more plans", "format", "run"])
    plans = sorted({row["plan"] for row in rows})
    if how == "region":
        rng.choice(rows)["region"] = "US"
    made = {
        "fewer": lambda: receipts_of(rows[1:]),
        "none": lambda: receipts_of([]),
        "order": lambda: receipts_of(rows, receipts=rows[::-1]),
        "twice": lambda: receipts_of([*rows, rows[0]]),
        "plans": lambda: receipts_of(rows, plans=plans[1:]),
        "more plans": lambda: receipts_of(rows, plans=sorted({*plans, "0" * 64})),
        "format": lambda: receipts_of(rows, format=rng.choice([0, 2, 9, "1", None, 1.5])),
        "run": lambda: receipts_of(rows, run=rng.choice(["", "x" * 201, None, "é", "\u200b"])),
    }.get(how, lambda: receipts_of(rows))()
    return Case(f"odd_receipts: {how}", False, pack(one, receipts=made))


@kind
def odd_trust(rng: random.Random) -> Case:
    """Keys left out, of somebody else, of a later rotation, in lines of all sorts."""
    one = parts(rng)
    made = pack(one)
    assert made.trust is not None
    lines = made.trust.decode().splitlines()
    for _ in range(rng.choice([1, 1, 2])):
        at = rng.randrange(len(lines))
        role, key = lines[at].split(" ", 1) if " " in lines[at] else ("node", "x")
        foreign = SigningKey.from_seed(key.split("+")[0].strip() or "x", rng.choice([STRANGER, b"t" * 32]))
        newest = one.keys_at(len(one.entries)).get(role)
        lines[at : at + 1] = rng.choice(
            [
                [],
                [f"{role} {foreign.cosigner if role == 'witness' else foreign.verification}"],
                [lines[at], f"{role} {foreign.cosigner if role == 'witness' else foreign.verification}"],
                [f"{role} {newest.verification if newest else key}"],
                [lines[at], f"{role} {newest.verification if newest else key}"],
                [lines[at]] * 2,
                [f"# {lines[at]}", "", lines[at] + "\r"],
                [
                    rng.choice(
                        [f"{role}  {key}", f" {role} {key}", f"{role} {key} ", f"{role}\t{key}", "x", key]
                    )
                ],
                [f"{rng.choice(['node', 'officer', 'coordinator', 'witness'])} {key}"],
            ]
        )
    text = rng.choice(["\n", "\n", "\r\n"]).join(lines) + rng.choice(["\n", "", "\r"])
    return Case("odd_trust", False, replace(made, trust=rng.choice([text.encode(), text.encode(), None])))


@kind
def odd_plan(rng: random.Random) -> Case:
    """Plans with a lie, a rehearsal, a delta that protects nobody, noise at the edges."""
    one = Region(rng, "EU")
    how = rng.choice(["low", "rehearsal", "delta", "tiny delta", "loss", "document"])
    if how == "rehearsal":
        plan = plan_of(2.0, 1, "none", mode="rehearsal")
    elif how == "delta":
        plan = plan_of(2.0, 1, rng.choice(["true", "none", "low"]), target_delta=0.5)
    elif how == "tiny delta":
        plan = plan_of(2.0, 1, rng.choice(["true", "none", "low"]), target_delta=1e-10)
    else:
        plan = plan_of(rng.choice(NOISES), 1, "low" if how == "low" else "true")
    one.plans.append(plan)
    with suppress(FedfsdError):
        one.approve(plan)
    found = Parts.of(one.walk(6))
    for entry_of in found.entries:
        if entry_of["type"] == "plan" and how in ("document", "loss"):
            where, name = rng.choice(list(_places(entry_of["document"])))
            _change(rng, where, name)
    found.relink()
    with suppress(values.Contradicted):
        found.resign()
        has_plan = any(entry_of.get("plan") == plan.hash for entry_of in found.entries)
        answer = "contradicted" if how == "low" and has_plan else None
        return Case(f"odd_plan: {how}", how == "low" and has_plan, pack(found), answer)
    return honest(rng)


@kind
def newer(rng: random.Random) -> Case:
    """An entry, or the plan in it, of a later version, and what that may have allowed after it."""
    one = parts(rng)
    seq = rng.randrange(len(one.entries))
    found = one.entries[seq]
    if found["type"] == "plan" and rng.random() < 0.5:
        found["document"]["format"] = rng.choice([5, 9, 2**53 - 1])
        one.relink()
    else:
        found["format"] = rng.choice([5, 9, 2**53 - 1])
        found["more"] = rng.choice([None, 1.5, "x"])
    if rng.random() < 0.3:
        where, name = rng.choice(list(_places(rng.choice(one.entries))))
        _change(rng, where, name)
    with suppress(values.Contradicted):
        one.resign()
        made = pack(one)
        if rng.random() < 0.3:
            at = rng.choice(one.sizes)
            made = replace(
                made, notes={"held.note": one.head(*at, root=rng.choice([b"", rng.randbytes(32)]))}
            )
        return Case("newer", True, made)
    return honest(rng)


@kind
def limits(rng: random.Random) -> Case:
    """Entries at the limits of depth, size and number of values, and just above."""
    one = parts(rng, "plan")
    found = _pick(rng, one, "plan")
    deep: Any = 1
    for _ in range(rng.choice([61, 62, 63, 64, 90])):
        deep = [deep]
    commas = values.canonical(found)
    room = 100_000 - sum(map(commas.count, (b"[", b"{", b","))) - 2
    how = rng.choice(["deep", "values", "long"])
    found["document"]["more"] = {
        "deep": deep,
        "values": "," * (room + rng.choice([0, 1, 2])),
        "long": "x" * (2**22 - len(commas) - rng.choice([0, 9, 10, 11])),
    }[how]
    one.relink()
    with suppress(values.Contradicted):
        one.resign()
        return Case(f"limits: {how}", False, pack(one))
    return honest(rng)


@kind
def edited_archive(rng: random.Random) -> Case:
    """Members and bundle.json changed by somebody who packs them well."""
    one = parts(rng)
    members: dict[str, bytes] = {}
    data, start = one.bundle(), 0
    for name in ["bundle.json", *json.loads(local_member(data, 0, "bundle.json")[0])["files"]]:
        members[name], start = local_member(data, start, name)
    listing = json.loads(members.pop("bundle.json"))
    name = rng.choice(sorted(members))
    how = rng.choice(["field", "drop", "rename", "note", "more", "newer", "order", "entries"])
    if how == "drop":
        del members[name]
    elif how == "rename":
        members[rng.choice(["x", "checkpoints/0000-0000000099.note", "é"])] = members.pop(name)
    elif how == "note":
        at = rng.randrange(len(members[name]))
        members[name] = members[name][:at] + rng.randbytes(1) + members[name][at + rng.choice([0, 1]) :]
    elif how == "more":
        members[rng.choice(["a", "z", "bundle.jsonl"])] = b"more"
    elif how == "entries":
        members["entries.jsonl"] += rng.choice([b"\n", b"{}\n", b" "])
    files = {name: {"bytes": len(data), "sha256": canonical.sha256(data)} for name, data in members.items()}
    if how == "order":
        files, members = dict(reversed(files.items())), dict(reversed(members.items()))
    listing["files"] = files
    if how == "field":
        where, place = rng.choice(list(_places(listing)))
        _change(rng, where, place)
    elif how == "newer":
        listing |= {"format": rng.choice([2, 9, 0, 1.5, None]), "more": 1}
    with suppress(values.Contradicted):
        first = rng.choice([values.canonical, lambda one: json.dumps(one).encode()])(listing)
        made = archive({"bundle.json": first, **members})
        kept = how == "drop" and name != "entries.jsonl"  # a region need not keep every checkpoint
        forged = made != data and not kept
        return Case(f"edited_archive: {how}", forged, pack(one, bundles={"EU-0.zip": made}))
    return honest(rng)


@kind
def fork_by_rotation(rng: random.Random) -> Case:
    """Two histories of one ledger, each signed by a key that the other does not name."""
    one = parts(rng)
    other, size = deepcopy(one), len(one.entries)
    for fork, seed in ((one, b"1" * 32), (other, b"2" * 32)):
        for _ in range(rng.choice([1, 2])):
            new = SigningKey.from_seed(fork.name, seed)
            body = {"type": "key-rotate", "ledger": fork.ledger, "role": "node", "key": str(new.verification)}
            if str(new.verification) not in fork.secrets:
                fork.secrets[body["key"]] = new
                _append(fork, {**body, "signatures": {"officer": "", "new": "", "old": ""}})
            _append(fork, {"type": "incident", "plan": None, "code": "other", "text": seed.decode()})
        fork.resign()
        fork.sizes = [at for at in fork.sizes if at[1] <= size and rng.random() < 0.5] + fork.sizes[-1:]
    return Case("fork_by_rotation", True, pack(one, other, receipts=None))


@kind
def misdeed(rng: random.Random) -> Case:
    """What an officer or a node might do for more budget, signed by everybody."""
    how = rng.choice(sorted(MISDEEDS))
    needs, change = MISDEEDS[how]
    one = parts(rng, *needs)
    change(rng, one)
    one.relink()
    one.resign()
    one.sizes[-1] = (one.sizes[-1][0], len(one.entries))
    return Case(f"misdeed: {how}", True, pack(one, receipts=None), "contradicted")


def _pick(rng: random.Random, one: Parts, type_name: str) -> dict[str, Any]:
    return rng.choice([found for found in one.entries if found["type"] == type_name])


def _less(name: str, type_name: str) -> Callable[[random.Random, Parts], None]:
    def change(rng: random.Random, one: Parts) -> None:
        found = _pick(rng, one, type_name)
        if isinstance(found[name], list):
            found[name] = [found[name][0] + 1, *found[name][1:]]
        else:
            found[name] += rng.choice([1, -1]) if found[name] else 1

    return change


def _again(type_name: str) -> Callable[[random.Random, Parts], None]:
    return lambda rng, one: _append(one, {k: v for k, v in _pick(rng, one, type_name).items() if k != "seq"})


def _other_key(rng: random.Random, one: Parts) -> None:
    """A rotation to a key that is not the signer's, or under another name."""
    found = _pick(rng, one, "key-rotate")
    key = rng.choice(
        [SigningKey.from_seed("fedfsd/US/officer", STRANGER), one.keys_at(found["seq"])["officer"]]
    )
    found["key"] = str(key.verification)
    one.secrets[found["key"]] = key


def _all_grants(one: Parts, **changes: Any) -> None:
    for found in one.entries:
        if found["type"] == "grant":
            found |= changes


def _unapproved(rng: random.Random, one: Parts) -> None:
    _all_grants(one, plan_cap=0)
    for found in one.entries:
        if found["type"] == "plan":
            found["signatures"]["officer"] = None


MISDEEDS: dict[str, tuple[tuple[str, ...], Callable[[random.Random, Parts], None]]] = {
    "spent": (("reserve",), _less("spent", "reserve")),
    "held": (("reserve",), _less("held", "reserve")),
    "rho of a round": (("reserve",), _less("rho", "reserve")),
    "rho of a plan": (("plan",), _less("rho", "plan")),
    "rho_round": (("plan",), _less("rho_round", "plan")),
    "bytes": (("release",), _less("bytes", "release")),
    "freed": (("settle",), _less("freed", "settle")),
    "reserved": (("settle",), _less("reserved", "settle")),
    "released": (("settle",), _less("released", "settle")),
    "epoch": (("recover",), _less("epoch", "recover")),
    "reserve twice": (("reserve",), _again("reserve")),
    "release twice": (("release",), _again("release")),
    "settle twice": (("settle",), _again("settle")),
    "plan twice": (("plan",), _again("plan")),
    "recover again": (("recover",), _again("recover")),
    "program twice": (("program",), _again("program")),
    "refuse twice": (("refuse",), _again("refuse")),
    "approval twice": (("approval",), _again("approval")),
    "no signature": (("plan",), _unapproved),
    "rotation": (("key-rotate",), _other_key),
    "grant": (("grant",), lambda rng, one: _pick(rng, one, "grant").update(rho_max=2**53 - 1)),
    "charges": (("recover",), lambda rng, one: _pick(rng, one, "recover").update(charges=[])),
    "destination": (
        ("release",),
        lambda rng, one: _pick(rng, one, "release").update(destination="elsewhere"),
    ),
    "horizon": (("plan",), lambda rng, one: _all_grants(one, max_plans=0)),
    "late approval": (
        ("approval", "reserve"),
        lambda rng, one: _pick(rng, one, "reserve").update(approval=len(one.entries)),
    ),
}


def case(seed: int) -> Case:
    """The case of this number; kinds take turns."""
    rng = random.Random(f"stranger {seed}")
    names = sorted(KINDS)
    return KINDS[names[seed % len(names)]](rng)
