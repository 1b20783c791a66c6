"""A second reader of the ledger's format, written from fedfsd/ledger/FORMAT.md alone: sections 7 to 12.

python stranger_verifier.py FILE ...   with names *.note, receipts.json, trust.keys, and bundles
"""

import hashlib
import struct
import sys
import zlib
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stranger_ledger import (
    MAX_ENTRY,
    Book,
    Claim,
    Run,
    claim_of,
    least_epsilon,
    newer_version,
    object_of,
)
from stranger_values import (
    SIGNER,
    WITNESS,
    Checkpoint,
    Contradicted,
    Key,
    Undecided,
    canonical,
    decode,
    epoch_of,
    is_hex,
    is_integer,
    must,
    parse,
    read_checkpoint,
    read_key,
)

HOLDS, CANNOT_DECIDE, CONTRADICTED = "holds", "cannot decide", "contradicted"
KNOWN_BUNDLE, KNOWN_RECEIPTS = 1, 2
MAX_BUNDLE, MAX_ENTRIES, MAX_TOKENS = 2**30, 10**6, 100_000
MAX_KEPT, MAX_KEPT_TOKENS = 2**26, 2_000_000
MAX_TRUST, MAX_RECEIPTS = 2**20, 2**26
SCARCE = ("genesis", "grant", "approval", "plan", "recover", "key-rotate", "close")


class NoAnswer(Exception):
    """A file that cannot be read, or a trust file that breaks its grammar."""


@dataclass
class Answer:
    """``findings`` has (region or file, section, verdict, why) of whatever is not as it should be."""

    findings: list[tuple[str, str, str, str]] = field(default_factory=list)
    regions: dict[str, str] = field(default_factory=dict)
    verdict: str = HOLDS

    def add(self, where: str, section: str, verdict: str, why: str) -> None:
        self.findings.append((where, section, verdict, why))
        self.regions[where] = worst(self.regions.get(where, HOLDS), verdict)
        self.verdict = worst(self.verdict, verdict)


def worst(*verdicts: str) -> str:
    return max(verdicts, key=(HOLDS, CANNOT_DECIDE, CONTRADICTED).index)


def verify(
    bundles: dict[str, bytes], notes: dict[str, bytes], receipts: bytes | None, trust: bytes | None
) -> Answer:
    """The answer to this evidence. Raises NoAnswer. What is given is the content of files by their names."""
    answer, keys = Answer(), [] if trust is None else read_trust(trust)
    shelf: list[Bundle] = []
    unjudged = False
    for name, data in bundles.items():
        try:
            shelf.append(read_bundle(data))
            unjudged |= shelf[-1].book.newer is not None
        except Undecided as why:
            answer.add(name, "11.7", CANNOT_DECIDE, str(why))
            unjudged = True
        except Contradicted as why:
            answer.add(name, "4", CONTRADICTED, str(why))
    for bundle in shelf:
        answer.regions.setdefault(bundle.book.region, HOLDS)
        for section, check in (("7", check_own_heads), ("11.1", check_keys), ("6", check_epsilons)):
            run(answer, bundle.book.region, section, lambda c=check, b=bundle: c(b, keys))  # type: ignore[misc]
        if bundle.book.newer:
            answer.add(bundle.book.region, "10", CANNOT_DECIDE, bundle.book.newer)
    if trust is None or not shelf:
        answer.add("all", "11", CANNOT_DECIDE, "no trust file" if trust is None else "no bundle was judged")
    if answer.verdict != CONTRADICTED:
        check_heads(answer, shelf, notes)
        check_earlier(answer, shelf)
        if receipts is not None:
            run(answer, "receipts", "8", lambda: check_receipts(receipts, shelf, keys, unjudged))
    return answer


def run(answer: Answer, where: str, section: str, check: Any) -> None:
    """Add what a check raises, or the reasons it returns why it cannot decide."""
    try:
        for reason in check():
            answer.add(where, section, CANNOT_DECIDE, reason)
    except Undecided as why:
        answer.add(where, section, CANNOT_DECIDE, str(why))
    except Contradicted as why:
        answer.add(where, section, CONTRADICTED, str(why))


# 8. Bundle


@dataclass
class Bundle:
    book: Book
    checkpoints: list[Checkpoint]
    heads: list["Head"] = field(default_factory=list)

    @property
    def ledger(self) -> tuple[str, str]:
        return self.book.region, self.book.id

    @property
    def last(self) -> tuple[int, int]:
        """Epoch and size of the last checkpoint."""
        return epoch_of(self.checkpoints[-1].origin, self.book.node_name) or 0, self.checkpoints[-1].size


IS_LISTING = object_of("format one kind string region region ledger hex16 size int files object")
IS_FILE = object_of("bytes int sha256 hex32")


def read_bundle(data: bytes) -> Bundle:
    """The bundle, every rule checked that needs no other file. Raises Undecided and Contradicted."""
    if len(data) > MAX_BUNDLE:
        raise Undecided("a bundle above 2^30 bytes")
    first, start = local_member(data, 0, "bundle.json")
    must(1 <= len(first) <= 12_000_000, "bundle.json's size")
    known_version("bundle", parse(first, "bundle.json"), KNOWN_BUNDLE)
    listing = decode(first, "bundle.json")
    must(IS_LISTING(listing) and listing["kind"] == "fedfsd-bundle", "bundle.json's fields")
    members = {"bundle.json": first}
    for name, stated in listing["files"].items():  # canonical order is the archive's order
        must(IS_FILE(stated), f"bundle.json: {name}")
        members[name], start = local_member(data, start, name)
        same = (len(members[name]), hashlib.sha256(members[name]).hexdigest())
        must(same == (stated["bytes"], stated["sha256"]), f"{name}: not what bundle.json says")
    must(data == archive(members), "an archive that is not as section 8 has it")
    names = list(members)[1:]
    must(names[-1:] == ["entries.jsonl"], "a bundle without entries")
    must(2 <= len(names) <= 60_001, "number of checkpoints")
    body = members["entries.jsonl"]
    must(body.endswith(b"\n"), "entries.jsonl does not end in a newline")
    lines = body[:-1].split(b"\n")
    check_limits(lines)
    book = Book(lines)
    stated = (listing["region"], listing["ledger"], listing["size"])
    must(stated == (book.region, book.id, len(lines)), "bundle.json is of another ledger or size")
    checkpoints = [read_checkpoint(members[name]) for name in names[:-1]]
    for name, checkpoint in zip(names, checkpoints, strict=False):
        epoch = epoch_of(checkpoint.origin, book.node_name)
        must(epoch is not None, f"{name}: of another ledger")
        must(
            name == f"checkpoints/{epoch:04d}-{checkpoint.size:010d}.note", f"{name}: a note of another name"
        )
    bundle = Bundle(book, checkpoints)
    must(bundle.last[1] == len(lines), "the last checkpoint is not of all entries")
    must(book.newer is not None or bundle.last[0] == len(book.epochs) - 1, "the last checkpoint's epoch")
    return bundle


def known_version(what: str, value: Any, known: int) -> None:
    if isinstance(value, dict) and is_integer(value.get("format")) and value["format"] > known:
        raise Undecided(f"{what} of version {value['format']}")


def check_limits(lines: list[bytes]) -> None:
    """Limits of section 12 beyond which a bundle is not judged; and a genesis of a later version."""
    if len(lines) > MAX_ENTRIES:
        raise Undecided("a bundle of more than 1,000,000 entries")
    size = tokens = 0
    for seq, line in enumerate(lines):
        must(len(line) <= MAX_ENTRY, f"entry {seq}: above 4 MiB")
        here = line.count(b"[") + line.count(b"{") + line.count(b",")
        if here > MAX_TOKENS:
            raise Undecided(f"entry {seq}: more than 100,000 values")
        value = parse(line, f"entry {seq}")
        if seq == 0 and newer_version(value):
            raise Undecided(f"a genesis: {newer_version(value)}")
        if isinstance(value, dict) and value.get("type") in SCARCE:
            size, tokens = size + len(line), tokens + here
    if size > MAX_KEPT or tokens > MAX_KEPT_TOKENS:
        raise Undecided("entries above the limits together")


LOCAL, CENTRAL, END = "<4sHHHHHIIIHH", "<4sHHHHHHIIIHHHHHII", "<4sHHHHIIH"
MIDNIGHT, DAY_ONE = 0, 1 << 5 | 1  # 1980-01-01 00:00


def local_member(data: bytes, start: int, name: str) -> tuple[bytes, int]:
    """The content of the member that begins here, by its local header, and where the next one begins."""
    header, begin = data[start : start + 30], start + 30 + len(name.encode("utf-8", "replace"))
    must(len(header) == 30 and header[:4] == b"PK\x03\x04", f"no archive's member {name}")
    must(data[start + 30 : begin] == name.encode("utf-8", "replace"), f"no member {name} in its place")
    size = struct.unpack("<I", header[18:22])[0]
    must(begin + size <= len(data), f"member {name} is cut off")
    return data[begin : begin + size], begin + size


def archive(members: dict[str, bytes]) -> bytes:
    """The only archive of these members."""
    files, directory, offset = [], [], 0
    for name, data in members.items():
        raw = name.encode("utf-8", "replace")
        same = (20, 0, 0, MIDNIGHT, DAY_ONE, zlib.crc32(data), len(data), len(data), len(raw), 0)
        files += [struct.pack(LOCAL, b"PK\x03\x04", *same), raw, data]
        made_by = 3 << 8 | 20
        rest = (0, 0, 0, 0o100600 << 16, offset)
        directory += [struct.pack(CENTRAL, b"PK\x01\x02", made_by, *same, *rest), raw]
        offset += 30 + len(raw) + len(data)
    central = b"".join(directory)
    count = len(members)
    return b"".join(
        [*files, central, struct.pack(END, b"PK\x05\x06", 0, 0, count, count, len(central), offset, 0)]
    )


# 7. Heads


@dataclass(frozen=True)
class Head:
    epoch: int
    size: int
    root: bytes


def head_of(book: Book, checkpoint: Checkpoint) -> Head | None:
    epoch = epoch_of(checkpoint.origin, book.node_name)
    return None if epoch is None else Head(epoch, checkpoint.size, checkpoint.root)


def is_judged(book: Book, head: Head) -> bool:
    """False where an entry of a later version may have changed what the head has to agree with."""
    last = len(book.epochs) - 1
    return book.newer is None or head.epoch < last or (head.epoch == last and head.size <= book.known)


def must_agree(book: Book, head: Head) -> None:
    must(head.epoch < len(book.epochs), f"a head of epoch {head.epoch}")
    epoch = book.epochs[head.epoch]
    assert epoch.kept is not None
    assert epoch.reach is not None
    must(epoch.begins < head.size <= epoch.reach, f"a head of size {head.size} in epoch {head.epoch}")
    if head.size <= epoch.kept:
        must(head.root == book.tree.root(head.size), f"a head of size {head.size} over other entries")
    elif head.size == epoch.reach and epoch.lost_root is not None:
        must(head.root.hex() == epoch.lost_root, "a head with another root than the recovery's")


def check_own_heads(bundle: Bundle, keys: list[Key]) -> list[str]:
    """The bundle's checkpoints and witness entries: well signed, in agreement with the entries."""
    book, reasons = bundle.book, []
    witnesses = [key for key in keys if key.kind == WITNESS]
    for checkpoint in bundle.checkpoints + book.witnessed:
        head = head_of(book, checkpoint)
        assert head is not None
        must(not checkpoint.good_and_bad(witnesses)[1], "a witness's line that fails")
        if not is_judged(book, head):
            bundle.heads += [head] if checkpoint.is_signed(book.node_keys) else []
            continue
        must(head.epoch < len(book.epochs), f"a checkpoint of epoch {head.epoch}")
        if head.size <= (book.epochs[head.epoch].kept or 0):
            must(checkpoint.is_signed([book.node_at(head.size)]), "a checkpoint the node did not sign")
        else:
            good, bad = checkpoint.good_and_bad(book.node_keys)
            must(not bad, "a checkpoint of a lost part with a signature that fails")
            if not good:
                reasons.append("a checkpoint of a lost part, signed by no key of the list")
                continue
        must_agree(book, head)
        bundle.heads.append(head)
    return reasons


def check_heads(answer: Answer, shelf: list[Bundle], notes: dict[str, bytes]) -> None:
    """Heads of ``.note`` files, and of the bundles of one ledger against each other."""
    ledgers: dict[tuple[str, str], list[Bundle]] = defaultdict(list)
    for bundle in shelf:
        ledgers[bundle.ledger].append(bundle)
    kept: dict[tuple[str, str], list[Head]] = defaultdict(list)
    for name, data in notes.items():
        run(answer, name, "11.3", lambda data=data: read_note(data, ledgers, kept))  # type: ignore[misc]
    for (region, ledger), bundles in ledgers.items():
        newest = max(bundle.last for bundle in bundles)
        for bundle in bundles:
            others = [h for other in bundles if other is not bundle for h in other.heads] + kept[
                region, ledger
            ]
            if bundle.last < newest:
                others = [head for head in others if (head.epoch, head.size) <= bundle.last]
            run(answer, region, "7", lambda b=bundle, o=others: against(b, o))  # type: ignore[misc]


def read_note(data: bytes, ledgers: dict[Any, list[Bundle]], kept: dict[Any, list[Head]]) -> list[str]:
    try:
        checkpoint = read_checkpoint(data)
    except Contradicted as why:
        return [f"no checkpoint: {why}"]
    for ledger, bundles in ledgers.items():
        head = head_of(bundles[0].book, checkpoint)
        if head is not None:
            if not any(checkpoint.is_signed(bundle.book.node_keys) for bundle in bundles):
                return ["signed by no node key of its ledger"]
            kept[ledger].append(head)
            return []
    return ["a checkpoint of a ledger of which no bundle is given"]


def against(bundle: Bundle, others: list[Head]) -> list[str]:
    for head in others:
        if is_judged(bundle.book, head):
            must_agree(bundle.book, head)
    roots: dict[tuple[int, int], bytes] = {}
    for head in bundle.heads + others:
        root = roots.setdefault((head.epoch, head.size), head.root)
        must(root == head.root, f"two heads of size {head.size} in epoch {head.epoch}")
    return []


# 8 and 11.1. Keys


def read_trust(data: bytes) -> list[Key]:
    """The keys of a trust file by role: a node's and officer's and coordinator's differ by their names."""
    if len(data) > MAX_TRUST:
        raise NoAnswer("a trust file above 2^20 bytes")
    try:
        lines = [line.removesuffix("\r") for line in data.decode("utf-8").split("\n")]
    except UnicodeDecodeError:
        raise NoAnswer("a trust file that is no UTF-8") from None
    return [_trusted(line) for line in lines if line and not line.startswith("#")]


ROLES = {"node": SIGNER, "officer": SIGNER, "coordinator": SIGNER, "witness": WITNESS}


@dataclass(frozen=True)
class Trusted(Key):
    role: str = ""


def _trusted(line: str) -> Trusted:
    role, _, vkey = line.partition(" ")
    try:
        must(role in ROLES, f"no role {role!r}")
        key = read_key(vkey, ROLES[role])
    except Contradicted as why:
        raise NoAnswer(f"trust file: {why}") from None
    return Trusted(key.name, key.kind, key.public, role)


def publics(keys: list[Key], role: str, name: str) -> set[bytes]:
    return {key.public for key in keys if isinstance(key, Trusted) and (key.role, key.name) == (role, name)}


def check_keys(bundle: Bundle, keys: list[Key]) -> list[str]:
    if not keys:
        return ["no key in the trust file"]
    book, reasons = bundle.book, []
    officers = publics(keys, "officer", book.officers[0].name)
    nodes = publics(keys, "node", book.node_name)
    first = book.officers[0].public in officers
    if not officers:
        reasons.append("no key of the officer's name")
    elif not first:
        later = officers & {key.public for key in book.officers}
        must(bool(later) or book.newer is not None, "none of the officer's keys is trusted")
        reasons.append("the officer's first key is not in the trust file")
    if not nodes and not first:
        reasons.append("no key of the node's name")
    if nodes and not nodes & {key.public for key in book.node_keys}:
        must(book.newer is not None, "none of the node's keys is trusted")
        reasons.append("the node's key may be of a later version")
    return reasons


# 6 and 11.5, 11.6. Plans


def check_epsilons(bundle: Bundle, keys: list[Key]) -> list[str]:
    reasons: list[str] = []
    claims: set[Claim] = set()
    for plan in bundle.book.runs.values():
        document = plan.entry["document"]
        ours = document["regions"][bundle.book.region]
        if document["mode"] == "rehearsal":
            reasons.append("a rehearsal")
            continue
        if ours["target_delta"] * ours["roster"] >= 1:
            reasons.append("target_delta x roster is 1 or more")
        if ours["epsilon"] is not None:
            claim = claim_of(plan, bundle.book.region)
            claims.add(claim)
            reasons += check_epsilon(claim, plan, ours, len(claims))
    return reasons


def check_epsilon(claim: Claim, plan: Run, ours: dict[str, Any], number: int) -> list[str]:
    noises = [noise for noise, _ in claim.parts]
    if claim.delta < 1e-9 or min(noises) < 0.01 or max(noises) > 1e6 or claim.loss() > 10**11:
        return ["an epsilon out of the range in which it is computed"]
    if number > 100:
        return ["more than 100 different plans that state an epsilon"]
    if ours["target_delta"] * ours["roster"] < 1:
        must(
            ours["epsilon"] >= least_epsilon(claim) - 0.01, f"plan {plan.entry['plan']}: epsilon understated"
        )
    return []


# 11.4. Earlier ledgers


def check_earlier(answer: Answer, shelf: list[Bundle]) -> None:
    for bundle in shelf:
        run(answer, bundle.book.region, "11.4", lambda b=bundle: check_previous(b, shelf))  # type: ignore[misc]
    named: dict[tuple[str, str | None], str] = {}
    for bundle in shelf:
        book = bundle.book
        other = named.setdefault((book.region, book.previous), book.id)
        if other != book.id:
            answer.add(book.region, "11.4", CONTRADICTED, "two ledgers with one previous")


def check_previous(bundle: Bundle, shelf: list[Bundle]) -> list[str]:
    book, reasons = bundle.book, []
    if book.previous is None:
        return []
    before = {b.book.id: b.book.previous for b in shelf if b.book.region == book.region}
    at, seen = book.previous, {book.id}
    while at in before and before[at] is not None:
        must(at not in seen, "a chain of ledgers that leads back to itself")
        seen.add(at)
        at = before[at]  # type: ignore[assignment]
    must(at not in seen, "a chain of ledgers that leads back to itself")
    earlier = [b for b in shelf if b.ledger == (book.region, book.previous)]
    if not earlier:
        return ["the earlier ledger is not given"]
    longest = max(earlier, key=lambda b: b.last).book
    if longest.newer:
        return ["the earlier ledger has entries of a later version"]
    must(longest.closed, "the earlier ledger is not closed")
    for label, grant in book.firsts:
        account = longest.accounts.get(label)
        if account is None:
            continue
        if account.grant["alpha"] != grant["alpha"]:
            reasons.append("the earlier ledger's loss is at another order")
        else:
            must(grant["carried_rho"] >= account.spent + account.held, "less loss carried than there was")
    return reasons


# 8 and 11.2. Receipts

IS_RECEIPT = object_of("region region plan hex32 round int entry hex32 sha256 hex32 bytes int")
RECEIPTS = "kind string run text coordinator vkey plans list receipts list signature signature "
IS_RECEIPTS = object_of(RECEIPTS + "format one")
IS_RECEIPTS_2 = object_of(RECEIPTS + "format two incidents list")
IS_INCIDENT = object_of("region region plan hex32 round int finding finding")


def check_receipts(data: bytes, shelf: list[Bundle], keys: list[Key], unjudged: bool) -> list[str]:
    must(len(data) <= MAX_RECEIPTS, "receipts above 2^26 bytes")
    known_version("receipts", parse(data, "receipts"), KNOWN_RECEIPTS)
    value = decode(data, "receipts")
    must(IS_RECEIPTS(value) or IS_RECEIPTS_2(value), "receipts' fields")
    must(value["kind"] == "fedfsd-receipts", "receipts' kind")
    plans, receipts, incidents = value["plans"], value["receipts"], value.get("incidents", [])
    must(all(map(IS_INCIDENT, incidents)) and ("incidents" in value) == bool(incidents), "incidents' fields")
    ended = [(one["region"], one["plan"]) for one in incidents]
    must(ended == sorted(set(ended)) and {plan for _, plan in ended} <= set(plans), "the incidents' order")
    must(all(map(is_hex(64), plans)) and plans == sorted(set(plans)), "receipts' plans")
    must(all(map(IS_RECEIPT, receipts)), "a receipt's fields")
    order = [(r["region"], r["plan"], r["round"]) for r in receipts]
    must(order == sorted(set(order)) and {r["plan"] for r in receipts} <= set(plans), "the receipts' order")
    key = read_key(value["coordinator"])
    body = {name: v for name, v in value.items() if name != "signature"}
    signature = bytes.fromhex(value["signature"])
    must(key.signed(signature, b"fedfsd/receipts/v1\n" + canonical(body)), "the receipts' signature")
    trusted, reasons = publics(keys, "coordinator", key.name), []
    must(not trusted or key.public in trusted, "the receipts are signed by another key than the trusted one")
    if not trusted:
        reasons.append("no key of the coordinator's name")
    books: dict[str, list[Book]] = defaultdict(list)
    for bundle in shelf:
        books[bundle.book.region].append(bundle.book)
    must(not {region for region, _ in ended} & set(books), "an update that was not taken")
    for receipt in receipts:
        reasons += check_receipt(receipt, books[receipt["region"]], unjudged)
    return reasons


def check_receipt(receipt: dict[str, Any], books: list[Book], unjudged: bool) -> list[str]:
    at = receipt["plan"], receipt["round"]
    if not books:
        return [f"no bundle of region {receipt['region']}"]
    found = [book.releases[at] for book in books if at in book.releases]
    if found:
        must((receipt["entry"], receipt["sha256"], receipt["bytes"]) in found, "a receipt of other bytes")
        return []
    ids, previous = {book.id for book in books}, {book.previous for book in books}
    for book in books:
        lost = any(epoch.lost_runs is None or at[0] in epoch.lost_runs for epoch in book.epochs)
        earlier = book.previous is not None and book.previous not in ids
        later = book.closed and book.id not in previous
        if lost or earlier or later:
            return ["a receipt of a release that may be elsewhere"]
    must(unjudged, "a receipt without its release")
    return ["a receipt of a release that may be in what is not judged"]


def main(paths: list[str]) -> int:
    files = {path: Path(path).read_bytes() for path in paths}
    notes = {path: data for path, data in files.items() if path.endswith(".note")}
    receipts = [data for path, data in files.items() if path.endswith("receipts.json")]
    trust = [data for path, data in files.items() if path.endswith("trust.keys")]
    others = (".note", "receipts.json", "trust.keys")
    bundles = {path: data for path, data in files.items() if not path.endswith(others)}
    answer = verify(bundles, notes, next(iter(receipts), None), next(iter(trust), None))
    for finding in answer.findings:
        print(": ".join(finding))
    for region, verdict in answer.regions.items():
        print(f"{region}: {verdict}")
    print(answer.verdict)
    return (HOLDS, CONTRADICTED, CANNOT_DECIDE).index(answer.verdict)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
