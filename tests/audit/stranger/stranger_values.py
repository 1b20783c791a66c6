"""A second reader of the ledger's format, written from fedfsd/ledger/FORMAT.md alone: sections 1 to 3.

Nothing here imports fedfsd. The numbers in comments are the sections of that page.
"""

import base64
import hashlib
import json
import re
import unicodedata
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

MAX_INTEGER = 2**53 - 1
MAX_NOTE = 65_536


class Contradicted(Exception):
    """Evidence breaks a rule of the page."""


class Undecided(Exception):
    """A whole file is not judged."""


def must(condition: bool, rule: str) -> None:
    """Raise Contradicted with ``rule`` unless the condition is true."""
    if not condition:
        raise Contradicted(rule)


# 1. Values


def parse(data: bytes, what: str) -> Any:
    """The value of a JSON text at most 64 deep; an int exactly where the text has an integer of the page."""
    depth = 0
    for bracket in re.findall(rb"[][{}]", re.sub(rb'"(?:[^"\\]|\\.)*"', b"", data)):
        depth += 1 if bracket in b"[{" else -1
        must(depth <= 64, f"{what}: nested more than 64 deep")
    try:
        return json.loads(data.decode("utf-8"), parse_int=_integer, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise Contradicted(f"{what}: no JSON: {error}") from None


def _integer(digits: str) -> int | float:
    small = digits[0] != "-" and len(digits) <= 16 and int(digits) <= MAX_INTEGER
    return int(digits) if small else float(digits)


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def canonical(value: Any) -> bytes:
    """RFC 8785."""
    try:
        return _encode(value).encode("utf-8")
    except UnicodeEncodeError:
        raise Contradicted("a lone surrogate has no canonical form") from None


def _encode(value: Any) -> str:
    if isinstance(value, dict):
        names = sorted(value, key=lambda name: name.encode("utf-16-be", "surrogatepass"))
        return "{" + ",".join(f"{_encode(name)}:{_encode(value[name])}" for name in names) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_encode, value)) + "]"
    return _spell(value) if isinstance(value, float) else json.dumps(value, ensure_ascii=False)


def _spell(x: float) -> str:
    """ECMAScript's Number::toString."""
    must(abs(x) < float("inf"), "a number that is not finite")
    if x == 0:
        return "0"
    sign, digit_list, exponent = Decimal(repr(x)).normalize().as_tuple()
    digits, minus = "".join(map(str, digit_list)), "-" if sign else ""
    k, n = len(digits), len(digit_list) + int(exponent)
    if k <= n <= 21:
        return minus + digits + "0" * (n - k)
    if 0 < n <= 21:
        return f"{minus}{digits[:n]}.{digits[n:]}"
    if -6 < n <= 0:
        return f"{minus}0.{'0' * -n}{digits}"
    return f"{minus}{digits[0]}{'.' + digits[1:] if k > 1 else ''}e{n - 1:+d}"


def decode(data: bytes, what: str) -> dict[str, Any]:
    """A JSON object in canonical form."""
    value = parse(data, what)
    must(isinstance(value, dict) and canonical(value) == data, f"{what}: not a canonical JSON object")
    return value  # type: ignore[no-any-return]


def is_integer(value: Any) -> bool:
    return type(value) is int


def is_number(value: Any) -> bool:
    return type(value) in (int, float)


def is_hex(digits: int) -> Any:
    return lambda value: isinstance(value, str) and bool(re.fullmatch(rf"[0-9a-f]{{{digits}}}", value))


def is_text(value: Any, longest: int = 200) -> bool:
    bad = ("Cc", "Cf", "Cs", "Zl", "Zp")
    return isinstance(value, str) and 1 <= len(value) <= longest and not _has_category(value, bad)


def _has_category(text: str, categories: tuple[str, ...]) -> bool:
    return any(unicodedata.category(c) in categories for c in text)


def is_date(value: Any) -> bool:
    if not (isinstance(value, str) and re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", value)):
        return False
    try:
        date(*map(int, value.split("-")))
    except ValueError:
        return False
    return True


def is_region(value: Any) -> bool:
    return isinstance(value, str) and bool(re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]{0,31}", value))


def unbase64(text: str) -> bytes:
    try:
        data = base64.b64decode(text.encode("ascii"), validate=True)
    except ValueError:
        raise Contradicted("no strict base64") from None
    must(base64.b64encode(data).decode() == text, "no strict base64")
    return data


# 2. Tree


def leaf_hash(entry: bytes) -> bytes:
    return hashlib.sha256(b"\x00" + entry).digest()


class Tree:
    """All full subtrees of a list of entries; ``levels[i][j]`` covers leaves j * 2^i to (j + 1) * 2^i - 1."""

    def __init__(self, entries: list[bytes]) -> None:
        self.levels = [[leaf_hash(entry) for entry in entries]]
        while len(below := self.levels[-1]) > 1:
            pairs = zip(below[0::2], below[1::2], strict=False)
            self.levels.append([_node_hash(left, right) for left, right in pairs])

    def root(self, size: int) -> bytes:
        """The root of the first ``size`` entries, of which there is at least one."""
        root, start = b"", size
        for level, hashes in enumerate(self.levels):
            if size >> level & 1:
                start -= 1 << level
                left = hashes[start >> level]
                root = _node_hash(left, root) if root else left
        return root


def _node_hash(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()


# 3. Keys, notes, checkpoints

SIGNER, WITNESS = 1, 4


@dataclass(frozen=True)
class Key:
    name: str
    kind: int
    public: bytes

    @property
    def id(self) -> bytes:
        return hashlib.sha256(self.name.encode() + b"\n" + bytes([self.kind]) + self.public).digest()[:4]

    def signed(self, signature: bytes, message: bytes) -> bool:
        try:
            Ed25519PublicKey.from_public_bytes(self.public).verify(signature, message)
        except (InvalidSignature, ValueError):
            return False
        return True

    def signed_note(self, blob: bytes, text: str) -> bool:
        """Whether what follows the key id in a note's line is a signature, or cosignature, of the text."""
        if self.kind == SIGNER:
            return len(blob) == 64 and self.signed(blob, text.encode())
        seconds = int.from_bytes(blob[:8], "big")
        message = f"cosignature/v1\ntime {seconds}\n{text}".encode()
        return len(blob) == 72 and seconds < 2**63 and self.signed(blob[8:], message)


def is_name(name: str) -> bool:
    clean = not _has_category(name, ("Cc", "Cf", "Cs", "Co", "Cn")) and not any(map(str.isspace, name))
    return 1 <= len(name) <= 200 and "+" not in name and clean


def read_key(vkey: str, kind: int = SIGNER) -> Key:
    parts = vkey.split("+", 2)
    must(len(vkey) <= 400 and len(parts) == 3 and is_name(parts[0]), "no verification key")
    body = unbase64(parts[2])
    must(len(body) == 33 and body[0] == kind, f"no verification key of type {kind}")
    key = Key(parts[0], kind, body[1:])
    must(key.id.hex() == parts[1], "a verification key with another key's id")
    return key


def is_vkey(value: Any) -> bool:
    try:
        return isinstance(value, str) and bool(read_key(value))
    except Contradicted:
        return False


@dataclass(frozen=True)
class Checkpoint:
    """A note of three lines; ``lines`` has the name and the bytes of every signature line."""

    text: str
    origin: str
    size: int
    root: bytes
    lines: tuple[tuple[str, bytes], ...]

    def good_and_bad(self, keys: list[Key]) -> tuple[bool, bool]:
        """Whether a line of one of these keys verifies, and whether one fails."""
        results = [
            key.signed_note(blob[4:], self.text)
            for key in keys
            for name, blob in self.lines
            if name == key.name and blob[:4] == key.id
        ]
        return any(results), not all(results)

    def is_signed(self, keys: list[Key]) -> bool:
        return self.good_and_bad(keys) == (True, False)


def read_checkpoint(data: bytes) -> Checkpoint:
    must(len(data) <= MAX_NOTE, "a note above 65,536 bytes")
    try:
        note = data.decode("utf-8")
    except UnicodeDecodeError:
        raise Contradicted("a note that is no UTF-8") from None
    must(not re.search(r"[\x00-\x09\x0b-\x1f]", note), "a note with a control character")
    text, empty, below = note.rpartition("\n\n")
    must(bool(empty) and below.endswith("\n"), "a note without signature lines")
    lines = tuple(map(_signature_line, below[:-1].split("\n")))
    must(len(lines) <= 64, "a note of more than 64 signature lines")
    body = re.fullmatch(r"([^\n]+)\n(0|[1-9][0-9]{0,15})\n([^\n]+)", text)
    must(body is not None, "a note that is no checkpoint")
    assert body is not None
    origin, size, root = body[1], int(body[2]), unbase64(body[3])
    must(size <= MAX_INTEGER and len(root) == 32, "a checkpoint's size or root")
    return Checkpoint(text + "\n", origin, size, root, lines)


def _signature_line(line: str) -> tuple[str, bytes]:
    parts = line.split(" ")
    must(len(parts) == 3 and parts[0] == "—" and is_name(parts[1]), "no signature line")
    blob = unbase64(parts[2])
    must(len(blob) >= 5, "a signature line without a signature")
    return parts[1], blob


def epoch_of(origin: str, node: str) -> int | None:
    """The epoch that an origin names of the ledger with this node name; None for any other origin."""
    match = re.fullmatch(re.escape(node) + r"(?:/([1-9][0-9]{0,15}))?", origin)
    return None if match is None else int(match[1] or 0)
