"""A second reader of the ledger's format, written from fedfsd/ledger/FORMAT.md alone: sections 4 to 6."""

import decimal
import hashlib
import math
import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from dp_accounting.pld import privacy_loss_distribution
from stranger_values import (
    MAX_INTEGER,
    Checkpoint,
    Key,
    Tree,
    canonical,
    decode,
    epoch_of,
    is_date,
    is_hex,
    is_integer,
    is_number,
    is_region,
    is_text,
    is_vkey,
    leaf_hash,
    must,
    parse,
    read_checkpoint,
    read_key,
)

Entry = dict[str, Any]
KNOWN_ENTRY, KNOWN_PLAN = 4, 4
FINDING = re.compile("[a-z]+(-[a-z]+)*")
MAX_ENTRY = 2**22

# 4. Entries: the fields of every type. A type of value is a predicate; "?" after it allows null.


def one_of(*values: str) -> Callable[[Any], bool]:
    return lambda v: isinstance(v, str) and v in values


def list_of(kind: str, least: int = 0, most: int = MAX_INTEGER) -> Callable[[Any], bool]:
    return lambda v: (
        isinstance(v, list) and least <= len(v) <= most and all(is_type(item, kind) for item in v)
    )


def object_of(fields: str) -> Callable[[Any], bool]:
    """An object of exactly these fields: "name type name type ..."."""
    words = fields.split()
    types = dict(zip(words[0::2], words[1::2], strict=True))

    def is_object(v: Any) -> bool:
        same = isinstance(v, dict) and v.keys() == types.keys()
        return same and all(is_type(v[name], kind) for name, kind in types.items())

    return is_object


def is_type(value: Any, kind: str) -> bool:
    return (value is None and kind.endswith("?")) or TYPES[kind.rstrip("?")](value)


TYPES: dict[str, Callable[[Any], bool]] = {
    "int": is_integer,
    "number": is_number,
    "text": is_text,
    "region": is_region,
    "vkey": is_vkey,
    "hex16": is_hex(32),
    "hex32": is_hex(64),
    "signature": is_hex(128),
    "date": is_date,
    "one": lambda v: is_integer(v) and v == 1,
    "two": lambda v: is_integer(v) and v == 2,
    "three": lambda v: is_integer(v) and v == 3,
    "four": lambda v: is_integer(v) and v == 4,
    "found": one_of("release"),
    "finding": lambda v: isinstance(v, str) and len(v) <= 64 and bool(FINDING.fullmatch(v)),
    "bool": lambda v: type(v) is bool,
    "string": lambda v: isinstance(v, str),
    "object": lambda v: isinstance(v, dict),
    "list": lambda v: isinstance(v, list),
    "unit": one_of("vehicle"),
    "adjacency": one_of("zero-out"),
    "mode": one_of("private", "rehearsal"),
    "identity": one_of("physical", "recording"),
    "cause": one_of("operator", "failed"),
    "refusal": one_of("budget", "approval", "arrays", "policy", "settled"),
    "trouble": one_of("key", "data", "software", "transfer", "other"),
    "story": lambda v: is_text(v, longest=2000),
    "reach": one_of("rounds", "unknown"),
    "role": one_of("node", "officer"),
    "models": list_of("text", 1, 100),
    "charges": list_of("charge"),
    "charge": object_of("grant int rho int"),
    "event": lambda v: is_event(v),
    "event2": lambda v: is_event_by_round(v),
    "ints": list_of("int"),
    "program": object_of("code hex32 version text packages packages"),
    "packages": lambda v: isinstance(v, dict) and len(v) <= 64 and all(map(is_package, v.items())),
    "by-officer": object_of("officer signature"),
    "by-officer-or-none": object_of("officer signature?"),
    "by-both": object_of("officer signature node signature"),
    "by-three": object_of("officer signature new signature old signature?"),
}

ALWAYS = "type string seq int "
PLAN = """ledger hex16 plan hex32 document object grant int rounds int rho int release_bytes int
    recipient text purpose text key_commitment hex32? code hex32 version text
    signatures by-officer-or-none """
APPROVAL = """ledger hex16 data_set text authority text number text recipient text purpose text
    models models valid_from date valid_until date max_releases int max_bytes int
    signatures by-officer"""
FIELDS = {
    "genesis": """format one ledger hex16 region region node_key vkey officer_key vkey unit unit
        adjacency adjacency simulated bool previous hex16? code hex32 version text signatures by-both""",
    "grant": """ledger hex16 data_set text data_commitment hex32 delta number alpha int rho_max int
        epsilon number explanation text max_plans int max_rounds int plan_cap int recipient_cap int
        approval_required bool predecessor int? disjoint bool carried_rho int simulated bool
        signatures by-officer""",
    "approval": APPROVAL,
    "approval 4": APPROVAL + " format four tasks models",
    "plan": PLAN + "event event rho_round int",
    "plan 2": PLAN + "event event2 rho_round ints format two",
    "reserve": """plan hex32 round int arrays hex32 event event rho int grant int spent int held int
        approval int? date date""",
    "release": """plan hex32 round int reserve int sha256 hex32 bytes int schema hex32 destination text
        approval int? year int? approval_releases int? approval_bytes int?""",
    "settle": "plan hex32 reserved int released int freed int",
    "abort": "plan hex32 round int reserve int code cause",
    "refuse": "plan hex32 round int? code refusal",
    "incident": "plan hex32? code trouble text story",
    "incident 4": "plan hex32 code found text story round int finding finding format four",
    "witness": "size int checkpoint string",
    "recover": """ledger hex16 epoch int lost_size int lost_root hex32? reach reach charges charges
        signatures by-officer""",
    "program": "format three plan hex32 program program",
    "key-rotate": "ledger hex16 role role key vkey signatures by-three",
    "close": "ledger hex16 reason text signatures by-officer",
}
IS_ENTRY = {kind: object_of(ALWAYS + fields) for kind, fields in FIELDS.items()}
IS_MECHANISM = object_of("kind string noise_multipliers list")
IS_GAUSSIAN = object_of(
    "sample_rate number noise_multiplier number max_grad_norm number steps int unit unit adjacency adjacency"
)


def is_package(item: tuple[str, Any]) -> bool:
    return is_text(item[0]) and object_of("sha256 hex32 version text")(item[1])


def is_event(v: Any) -> bool:
    if not IS_GAUSSIAN(v):
        return False
    positive = min(v["sample_rate"], v["noise_multiplier"], v["max_grad_norm"]) > 0
    return positive and v["sample_rate"] <= 1 and 1 <= v["steps"] <= 10**6


def is_event_by_round(v: Any) -> bool:
    """An event of version 2: it differs from a Gaussian by its kind and its list of noise multipliers."""
    if not isinstance(v, dict) or "noise_multiplier" in v or not is_mechanism(kind_of(v)):
        return False
    rest = {name: value for name, value in v.items() if name not in ("kind", "noise_multipliers")}
    return is_event({**rest, "noise_multiplier": 1})


def is_mechanism(v: Any) -> bool:
    if not IS_MECHANISM(v) or v["kind"] != "gaussian-by-round":
        return False
    noise = v["noise_multipliers"]
    good = 1 <= len(noise) <= 10**6 and all(is_number(sigma) and sigma > 0 for sigma in noise)
    return good and len(set(noise)) <= 16


def kind_of(event: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in event.items() if name in ("kind", "noise_multipliers")}


def newer_version(value: Any) -> str | None:
    """What of an entry has a version above those of the page (section 10)."""
    if not isinstance(value, dict):
        return None
    if is_integer(value.get("format")) and value["format"] > KNOWN_ENTRY:
        return f"entry of version {value['format']}"
    document = value.get("document") if value.get("type") == "plan" else None
    version = document.get("format") if isinstance(document, dict) else None
    return f"plan of version {version}" if is_integer(version) and version > KNOWN_PLAN else None


def check_entry(line: bytes, seq: int) -> Entry:
    """An entry that is well formed."""
    entry = decode(line, f"entry {seq}")
    kind = entry.get("type")
    later = {"plan": "plan 2", "approval": "approval 4", "incident": "incident 4"}
    form = later.get(kind, kind) if isinstance(kind, str) and "format" in entry else kind
    must(isinstance(kind, str) and form in FIELDS and " " not in kind, f"entry {seq}: unknown type")
    must(IS_ENTRY[str(form)](entry), f"entry {seq}: its fields are not those of a {kind}")
    return entry


# 5. Budget

ROUNDING = decimal.Context(prec=120, Emax=decimal.MAX_EMAX, Emin=decimal.MIN_EMIN)


@lru_cache(maxsize=4096)
def step_cost(rate: float, noise: float, alpha: int) -> int:
    """Nano-nats of one step; of noise below 1e-6 even one step costs more than can be written."""
    if noise < 1e-6:
        return MAX_INTEGER + 1
    with decimal.localcontext(ROUNDING):
        q, sigma = decimal.Decimal(rate), decimal.Decimal(noise)
        if q == 1:
            return max(1, math.ceil(10**9 * alpha / (2 * sigma * sigma)))
        total, growth, square = decimal.Decimal(0), decimal.Decimal(1), (1 / (sigma * sigma)).exp()
        for k in range(alpha + 1):  # growth = exp(k (k - 1) / (2 sigma^2))
            total += math.comb(alpha, k) * (1 - q) ** (alpha - k) * q**k * growth
            growth *= square**k
        return max(1, math.ceil(10**9 * total.ln() / (alpha - 1)))


def epsilon_of(rho: int, alpha: int, delta: float) -> float:
    return max(0.0, rho / 1e9 + math.log(1 - 1 / alpha) - math.log(delta * alpha) / (alpha - 1))


@dataclass
class Account:
    """The sums of one data set under its live grant."""

    seq: int
    grant: Entry
    spent: int
    held: int = 0
    plans: int = 0
    rounds: int = 0
    recipients: Counter[str] = field(default_factory=Counter)

    def check(self) -> None:
        grant = self.grant
        must(self.spent + self.held <= grant["rho_max"], "rule 1: more than rho_max")
        must(self.plans <= grant["max_plans"], "rule 1: more plans than the horizon")
        must(self.rounds <= grant["max_rounds"], "rule 1: more rounds than the horizon")


@dataclass
class Run:
    """A plan with what happened to it."""

    entry: Entry
    account: Account
    is_open: bool = True
    program: Any = None
    reserved: dict[int, Entry] = field(default_factory=dict)
    released: int = 0

    def noise(self, number: int) -> float:
        event = self.entry["event"]
        return float(event["noise_multipliers"][number - 1] if "kind" in event else event["noise_multiplier"])

    def cost(self, number: int) -> int:
        rho = self.entry["rho_round"]
        return rho[number - 1] if isinstance(rho, list) else rho  # type: ignore[no-any-return]

    def noise_and_steps(self) -> Counter[float]:
        """Steps of the whole plan by noise multiplier."""
        event, rounds = self.entry["event"], self.entry["rounds"]
        every = map(float, event["noise_multipliers"]) if "kind" in event else ()
        counts = Counter(every) or {self.noise(1): rounds}
        return Counter({noise: number * (event["steps"] // rounds) for noise, number in counts.items()})


@dataclass
class Epoch:
    """Its heads have sizes above ``begins`` up to ``reach``; the list kept the first ``kept`` entries."""

    begins: int
    kept: int | None = None
    reach: int | None = None
    lost_root: str | None = None
    lost_runs: frozenset[str] | None = frozenset()  # plans a lost release may be of; None: of any


class Book:
    """One ledger's entries, checked in order. Each type of entry is a method of its name."""

    def __init__(self, lines: list[bytes]) -> None:
        self.lines = lines
        self.tree = Tree(lines)
        self.known = len(lines)  # entries from here on are not interpreted
        self.newer: str | None = None
        self.accounts: dict[str, Account] = {}
        self.firsts: list[tuple[str, Entry]] = []  # first grants of a data set
        self.approvals: dict[int, Entry] = {}  # those not voided
        self.numbers: set[str] = set()
        self.runs: dict[str, Run] = {}
        self.commitments: set[str] = set()
        self.finished: set[int] = set()  # seq of reservations with a release or an abort
        self.used: dict[tuple[str, int, str], list[int]] = {}  # number and bytes, by what, approval and year
        self.releases: dict[tuple[str, int], tuple[str, str, int]] = {}
        self.refusals: set[tuple[Any, ...]] = set()
        self.witnessed: list[Checkpoint] = []
        self.epochs = [Epoch(0)]
        self.nodes: list[tuple[int, Key]] = []  # (first size it signs, key)
        self.officers: list[Key] = []
        self.closed = False
        for seq, line in enumerate(lines):
            self.add(seq, line)
        last = self.epochs[-1]
        last.kept = last.reach = self.known

    def add(self, seq: int, line: bytes) -> None:
        must(len(line) <= MAX_ENTRY, f"entry {seq}: longer than 4 MiB")
        newer = newer_version(parse(line, f"entry {seq}"))
        if newer and self.newer is None:
            self.newer, self.known = f"entry {seq}: {newer}", seq
        if newer:
            return
        entry = check_entry(line, seq)
        if self.newer is not None:
            return
        must((seq == 0) == (entry["type"] == "genesis"), f"entry {seq}: genesis stands first, and only there")
        must(entry["seq"] == seq, f"entry {seq}: its seq is {entry['seq']}")
        must(not self.closed, f"entry {seq}: after close")
        must(seq == 0 or entry.get("ledger", self.id) == self.id, f"entry {seq}: of another ledger")
        getattr(self, entry["type"].replace("-", "_"))(seq, entry)

    @property
    def officer(self) -> Key:
        return self.officers[-1]

    @property
    def node(self) -> Key:
        return self.nodes[-1][1]

    @property
    def node_keys(self) -> list[Key]:
        return [key for _, key in self.nodes]

    def node_at(self, size: int) -> Key:
        return self.nodes[bisect_right(self.nodes, size, key=lambda node: node[0]) - 1][1]

    def signed(self, entry: Entry, **keys: Key) -> None:
        body = {name: value for name, value in entry.items() if name not in ("seq", "signatures")}
        message = b"fedfsd/entry/v1\n" + canonical(body)
        for role, signature in entry["signatures"].items():
            good = signature is None or keys[role].signed(bytes.fromhex(signature), message)
            must(good, f"entry {entry['seq']}: the signature of {role}")

    def genesis(self, seq: int, entry: Entry) -> None:
        self.id, self.region = entry["ledger"], entry["region"]
        self.previous: str | None = entry["previous"]
        self.node_name = f"fedfsd/{self.region}/{self.id}"
        node, officer = read_key(entry["node_key"]), read_key(entry["officer_key"])
        must(node.name == self.node_name, "the node key's name")
        must(officer.name == f"fedfsd/{self.region}/officer", "the officer key's name")
        must(node.public != officer.public, "one key for node and officer")
        must(self.previous != self.id, "a ledger that is its own previous")
        self.signed(entry, officer=officer, node=node)
        self.nodes, self.officers = [(0, node)], [officer]

    def grant(self, seq: int, entry: Entry) -> None:
        self.signed(entry, officer=self.officer)
        old, label, alpha = self.accounts.get(entry["data_set"]), entry["data_set"], entry["alpha"]
        must(1e-9 <= entry["delta"] < 1 and 2 <= alpha <= 64 and entry["epsilon"] > 0, "a grant out of range")
        promised = epsilon_of(entry["rho_max"], alpha, entry["delta"])
        must(entry["epsilon"] >= promised - 1e-9, "a grant that allows more than its epsilon")
        must(entry["predecessor"] == (old.seq if old else None), "a grant's predecessor is the live grant")
        account = Account(seq, entry, entry["carried_rho"])
        if old is None:
            must(not entry["disjoint"], "disjoint from nothing")
            self.firsts.append((label, entry))
        elif entry["disjoint"]:
            open_runs = [run for run in self.runs.values() if run.is_open and run.account is old]
            must(not open_runs, "disjoint while a plan is open")
        else:
            must(alpha == old.grant["alpha"], "a successor of another order")
            old.seq, old.grant, old.spent = seq, entry, old.spent + entry["carried_rho"]
            account = old
        account.check()
        self.accounts[label] = account

    def approval(self, seq: int, entry: Entry) -> None:
        self.signed(entry, officer=self.officer)
        must(entry["number"] not in self.numbers, "an approval's number twice")
        must(entry["valid_from"] <= entry["valid_until"], "an approval that ends before it begins")
        self.numbers.add(entry["number"])
        self.approvals[seq] = entry

    def plan(self, seq: int, entry: Entry) -> None:
        self.signed(entry, officer=self.officer)
        document, name, commitment = entry["document"], entry["plan"], entry["key_commitment"]
        must(hashlib.sha256(canonical(document)).hexdigest() == name, "a plan's hash")
        must(name not in self.runs, "a plan twice")
        check_document(document, self.region, entry)
        must(commitment is not None or document["mode"] == "rehearsal", "a private plan without run key")
        must(commitment is None or commitment not in self.commitments, "a run key twice")
        self.commitments.add(commitment)
        account = next((a for a in self.accounts.values() if a.seq == entry["grant"]), None)
        must(account is not None, "a plan of no live grant")
        assert account is not None
        run, grant, rounds, event = Run(entry, account), account.grant, entry["rounds"], entry["event"]
        noises = event["noise_multipliers"] if "kind" in event else [event["noise_multiplier"]]
        steps = event["steps"] // rounds
        costs = [steps * step_cost(float(event["sample_rate"]), float(s), grant["alpha"]) for s in noises]
        must(entry["rho_round"] == (costs if "kind" in event else costs[0]), "a round's loss")
        must(entry["rho"] == (sum(costs) if "kind" in event else rounds * costs[0]), "a plan's loss")
        account.held += entry["rho"]
        account.plans += 1
        account.rounds += rounds
        account.recipients[entry["recipient"]] += entry["rho"]
        account.check()
        above = entry["rho"] > grant["plan_cap"]
        above = above or account.recipients[entry["recipient"]] > grant["recipient_cap"]
        must(not above or entry["signatures"]["officer"] is not None, "rule 2: above a cap without signature")
        self.runs[name] = run

    def open_run(self, entry: Entry) -> Run:
        run = self.runs.get(entry["plan"])
        must(run is not None and run.is_open, f"entry {entry['seq']}: its plan is not open")
        assert run is not None
        return run

    def reserve(self, seq: int, entry: Entry) -> None:
        run, number = self.open_run(entry), entry["round"]
        rounds, account, event = run.entry["rounds"], run.account, run.entry["event"]
        must(1 <= number <= rounds and number not in run.reserved, "a round out of range, or reserved twice")
        one = {name: event[name] for name in ("sample_rate", "max_grad_norm", "unit", "adjacency")}
        one |= {"noise_multiplier": run.noise(number), "steps": event["steps"] // rounds}
        must(entry["event"] == one, "a reservation of another event than the plan's")
        must(entry["rho"] == run.cost(number), "a reservation of another loss than the plan's")
        must(entry["grant"] == account.seq, "a reservation under another grant than the live one")
        account.held -= entry["rho"]
        account.spent += entry["rho"]
        must((entry["spent"], entry["held"]) == (account.spent, account.held), "a reservation's sums")
        account.check()
        run.reserved[number] = entry
        if entry["approval"] is None:
            must(not account.grant["approval_required"], "rule 5: no approval")
        else:
            self.check_approval(entry, run)

    def check_approval(self, entry: Entry, run: Run) -> None:
        """Rule 5."""
        approval, plan = self.approvals.get(entry["approval"]), run.entry
        must(approval is not None, "rule 5: no approval in force")
        assert approval is not None
        label = run.account.grant["data_set"]
        same = (approval["data_set"], approval["recipient"], approval["purpose"])
        must(same == (label, plan["recipient"], plan["purpose"]), "rule 5: an approval of something else")
        models = approval["models"]
        must("*" in models or plan["document"]["model"]["name"] in models, "rule 5: a model not approved")
        tasks, task = approval.get("tasks", ["*"]), plan["document"].get("task", {"name": "forecasting"})
        name = task.get("name") if isinstance(task, dict) else None
        must("*" in tasks or name in tasks, "rule 5: a task not approved")
        must(approval["valid_from"] <= entry["date"] <= approval["valid_until"], "rule 5: outside its dates")
        count, size = self.use("reserve", entry, 1)
        must(count <= approval["max_releases"] and size <= approval["max_bytes"], "rule 5: above its limits")

    def use(self, what: str, reserve: Entry, change: int) -> list[int]:
        """Reservations, or releases, under the approval of this reservation in its year: number and bytes."""
        used = self.used.setdefault((what, reserve["approval"], reserve["date"][:4]), [0, 0])
        used[0] += change
        used[1] += change * self.runs[reserve["plan"]].entry["release_bytes"]
        return used

    def finish(self, entry: Entry) -> tuple[Run, Entry]:
        run = self.open_run(entry)
        reserve = run.reserved.get(entry["round"])
        must(reserve is not None and reserve["seq"] == entry["reserve"], "no such reservation")
        must(entry["reserve"] not in self.finished, "a reservation released or aborted twice")
        self.finished.add(entry["reserve"])
        assert reserve is not None
        return run, reserve

    def release(self, seq: int, entry: Entry) -> None:
        run, reserve = self.finish(entry)
        plan, approval = run.entry, reserve["approval"]
        schema = hashlib.sha256(canonical(plan["document"]["model"]["arrays"])).hexdigest()
        must(
            entry["bytes"] == plan["release_bytes"] and entry["schema"] == schema, "a release of another size"
        )
        must(entry["destination"] == plan["recipient"], "a release to somebody else")
        year, count, size = None, None, None
        if approval is not None:
            year = int(reserve["date"][:4])
            count, size = self.use("release", reserve, 1)
        stated = [entry[f] for f in ("approval", "year", "approval_releases", "approval_bytes")]
        must(stated == [approval, year, count, size], "a release's counts under its approval")
        run.released += 1
        line = leaf_hash(self.lines[seq]).hex()
        self.releases[entry["plan"], entry["round"]] = (line, entry["sha256"], entry["bytes"])

    def abort(self, seq: int, entry: Entry) -> None:
        _, reserve = self.finish(entry)
        if reserve["approval"] is not None:
            self.use("reserve", reserve, -1)

    def settle(self, seq: int, entry: Entry) -> None:
        run = self.open_run(entry)
        freed = run.entry["rho"] - sum(map(run.cost, run.reserved))
        stated = (entry["reserved"], entry["released"], entry["freed"])
        must(stated == (len(run.reserved), run.released, freed), "a settlement's counts")
        run.is_open = False
        run.account.held -= freed
        run.account.rounds -= run.entry["rounds"] - len(run.reserved)
        run.account.recipients[run.entry["recipient"]] -= freed

    def refuse(self, seq: int, entry: Entry) -> None:
        key = (entry["plan"], entry["round"], entry["code"])
        must(key not in self.refusals, "a refusal twice")
        self.refusals.add(key)

    def incident(self, seq: int, entry: Entry) -> None:
        if "format" in entry:
            must(entry["round"] in self.open_run(entry).reserved, "an incident of a round not booked")
            must(False, "an update that was not what its plan releases")

    def program(self, seq: int, entry: Entry) -> None:
        run = self.open_run(entry)
        must(run.program != entry["program"], "the program that is on record already")
        run.program = entry["program"]

    def witness(self, seq: int, entry: Entry) -> None:
        try:
            checkpoint = read_checkpoint(entry["checkpoint"].encode("utf-8"))
        except UnicodeEncodeError:
            must(False, "a witness entry's note")
        must(entry["size"] == checkpoint.size <= seq, "a witness entry's size")
        epoch = epoch_of(checkpoint.origin, self.node_name)
        must(epoch == len(self.epochs) - 1, "a witness entry of another ledger or epoch")
        must(any(len(blob) == 76 for _, blob in checkpoint.lines), "a witness entry without cosignature")
        self.witnessed.append(checkpoint)

    def recover(self, seq: int, entry: Entry) -> None:
        self.signed(entry, officer=self.officer)
        must(entry["epoch"] == len(self.epochs), "a recovery's epoch")
        must(entry["lost_size"] >= seq, "a recovery that lost less than nothing")
        here = self.tree.root(seq).hex()
        must(
            entry["lost_size"] > seq or entry["lost_root"] in (None, here),
            "a recovery that lost nothing: its root",
        )
        accounts, charges = sorted(self.accounts.values(), key=lambda a: a.seq), []
        for account in accounts:
            all_left = account.grant["rho_max"] - account.spent
            rho = account.held if entry["reach"] == "rounds" else all_left
            charges.append({"grant": account.seq, "rho": rho})
            account.spent, account.held = account.spent + rho, 0
            account.check()
        must(entry["charges"] == charges, "a recovery's charges")
        ended = self.epochs[-1]
        ended.kept, ended.reach, ended.lost_root = seq, entry["lost_size"], entry["lost_root"]
        if ended.reach > seq:
            were_open = frozenset(name for name, run in self.runs.items() if run.is_open)
            ended.lost_runs = were_open if entry["reach"] == "rounds" else None
        for run in self.runs.values():
            run.is_open = False
        self.approvals.clear()
        self.epochs.append(Epoch(seq))

    def key_rotate(self, seq: int, entry: Entry) -> None:
        key, is_node = read_key(entry["key"]), entry["role"] == "node"
        old = self.node if is_node else self.officer
        must(is_node or entry["signatures"]["old"] is None, "an officer's rotation with an old node key")
        must(key.name == old.name, "a rotation to another name")
        must(key.public not in (self.node.public, self.officer.public), "a rotation to a key in force")
        self.signed(entry, officer=self.officer, new=key, old=old)
        if is_node:
            self.nodes.append((seq + 1, key))
        else:
            self.officers.append(key)

    def close(self, seq: int, entry: Entry) -> None:
        self.signed(entry, officer=self.officer)
        self.closed = True


# 6. A plan's document: required places, in an object of any fields

PLACES = "mode mode unit unit adjacency adjacency num_rounds int model object regions object"
MODEL_PLACES = "name string arrays list"
ARRAY_PLACES = "dtype string shape ints"
REGION_PLACES = """sample_rate number max_grad_norm number local_steps int roster int identity identity
    windows_per_vehicle int target_delta number epsilon number?"""


def must_have(value: Any, places: str, what: str) -> None:
    must(isinstance(value, dict), what)
    there = {name: value[name] for name in places.split()[0::2] if name in value}
    must(object_of(places)(there), f"{what}: a place that is missing or of another type")


def check_document(document: dict[str, Any], region: str, entry: Entry) -> None:
    """The places that the page lists, and that the entry repeats them."""
    version = document.get("format", 1)
    must(is_integer(version) and 1 <= version <= KNOWN_PLAN, "a plan's format")
    must_have(document, PLACES, "a plan")
    model, ours, rounds = document["model"], document["regions"].get(region), document["num_rounds"]
    must_have(model, MODEL_PLACES, "a plan's model")
    must_have(ours, REGION_PLACES, "a plan's region")
    must(ours["epsilon"] is None or document["mode"] == "private", "a rehearsal's epsilon")
    must(0 < ours["target_delta"] < 1, "a plan's target_delta")
    must(1 <= rounds <= 10**6 and 1 <= ours["local_steps"] <= 10**6, "a plan's rounds or steps")
    must(min(ours["roster"], ours["windows_per_vehicle"]) >= 1, "a plan's roster or windows")
    mechanism, noise = ours.get("mechanism"), ours.get("noise_multiplier")
    own = ours.get("rounds")
    if own is not None:
        must(
            version >= 3 and isinstance(own, list) and all(is_integer(one) for one in own),
            "a region's rounds",
        )
        must(
            own == sorted(set(own)) and own[0] >= 1 and own[-1] <= rounds,
            "a region's rounds",
        )
        rounds = len(own)
    noises = {"noise_multiplier": noise} if mechanism is None else mechanism
    if mechanism is not None:
        must(version >= 2 and is_mechanism(mechanism) and noise is None, "a plan's mechanism")
        must(len(mechanism["noise_multipliers"]) == rounds, "noise for another number of rounds")
    event = {name: ours[name] for name in ("sample_rate", "max_grad_norm")}
    event |= {name: document[name] for name in ("unit", "adjacency")} | noises
    event["steps"] = ours["local_steps"] * rounds
    must(entry["event"] == event, "an event that is not its document's")
    must(entry["rounds"] == rounds, "rounds that are not the document's")
    must(entry["release_bytes"] == 4 * _elements(model["arrays"]), "a size that is not the document's")


def _elements(arrays: list[Any]) -> int:
    for array in arrays:
        must_have(array, ARRAY_PLACES, "an array")
        must(array["dtype"] == "float32" and len(array["shape"]) <= 32, "an array's dtype or shape")
    return sum(math.prod(array["shape"]) for array in arrays)


@dataclass(frozen=True)
class Claim:
    """What the epsilon of a plan depends on, ``parts`` being (noise multiplier, steps)."""

    rate: float
    parts: tuple[tuple[float, int], ...]
    delta: float

    def loss(self) -> int:
        return sum(steps * step_cost(self.rate, noise, 2) for noise, steps in self.parts)


def claim_of(run: Run, region: str) -> Claim:
    delta = run.entry["document"]["regions"][region]["target_delta"]
    parts = tuple(sorted(run.noise_and_steps().items()))
    return Claim(float(run.entry["event"]["sample_rate"]), parts, float(delta))


@lru_cache(maxsize=1024)
def least_epsilon(claim: Claim) -> float:
    """e* of section 6: losses on a grid that is fine beside their spread, whatever the number of steps."""
    spread = math.sqrt(claim.loss() / 1e9)
    steps = sum(number for _, number in claim.parts)
    grid = min(1e-4, max(1e-8, 0.05 * math.sqrt(spread / steps)))
    total = None
    for noise, number in claim.parts:
        if claim.rate == 1:  # so many steps are one step of less noise
            noise, number = noise / math.sqrt(number), 1
        one = privacy_loss_distribution.from_gaussian_mechanism(
            standard_deviation=noise,
            value_discretization_interval=grid,
            sampling_prob=claim.rate,
        ).self_compose(number)
        total = one if total is None else total.compose(one)
    assert total is not None
    return float(total.get_epsilon_for_delta(claim.delta))
