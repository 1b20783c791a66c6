"""Signed notes, checkpoints and cosignatures as C2SP defines them (signed-note, tlog-checkpoint,
tlog-cosignature), with Ed25519. Everything read here may come from anybody.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from fedfsd.ledger.error import EvidenceError
from fedfsd.ledger.key import COSIGNER, SigningKey, VerificationKey, check_name, strict_base64
from fedfsd.ledger.merkle import HASH_BYTES

MAX_NOTE = 65_536  # bytes
MAX_SIGNATURES = 64
MAX_SIZE = 2**53 - 1
_DASH = "— "
_SIGNATURE = 64
_TIME = 8


@dataclass(frozen=True)
class Signature:
    """One signature line: whose it says it is, and its bytes after the key id."""

    name: str
    key_id: bytes
    content: bytes


@dataclass(frozen=True)
class Note:
    """A text that ends in a newline, and its signatures, none of them checked yet."""

    text: str
    signatures: tuple[Signature, ...]

    @classmethod
    def parse(cls, content: str | bytes) -> Note:
        """Read a note.

        Raises:
            EvidenceError: not a note, too long, or with too many signatures.
        """
        text, lines = _split(_decode(content))
        return cls(text, tuple(_signature(line) for line in lines))

    def __str__(self) -> str:
        return self.text + "\n" + "".join(map(_line, self.signatures))

    @property
    def is_cosigned(self) -> bool:
        """Whether a line looks like a cosignature: whose it is, and that it is good, needs a key."""
        return any(len(line.content) == _TIME + _SIGNATURE for line in self.signatures)

    def signed_by(self, key: VerificationKey) -> bool:
        """Whether ``key`` signed. EvidenceError where a line under its name does not verify."""
        mine = [line for line in self.signatures if line.name == key.name and line.key_id == key.id]
        if not all(_verify(line.content, self.text, key) for line in mine):
            raise EvidenceError(
                "note", got=f"a bad signature under the key {key.name}", expected="a good one"
            )
        return bool(mine)

    def seen_by(self, witness: VerificationKey) -> tuple[int, ...]:
        """POSIX seconds of each of the witness's cosignatures. EvidenceError as of ``signed_by``."""
        if witness.kind != COSIGNER or not self.signed_by(witness):
            return ()
        mine = (one for one in self.signatures if one.name == witness.name and one.key_id == witness.id)
        return tuple(int.from_bytes(one.content[:_TIME], "big") for one in mine)

    def signed_by_one_of(self, keys: Sequence[VerificationKey]) -> bool:
        """Whether one of ``keys`` signed. EvidenceError where a line under any of their names is bad."""
        found = [self.signed_by(one) for one in keys]
        return any(found)


@dataclass(frozen=True)
class Checkpoint:
    """A tree head: the first ``size`` entries of the log ``origin`` have this root."""

    origin: str
    size: int
    root: bytes

    @property
    def text(self) -> str:
        """The three lines that are signed."""
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n"

    @classmethod
    def parse(cls, text: str) -> Checkpoint:
        """The head in a note's text; extension lines are not allowed here. Else EvidenceError."""
        lines = text.split("\n")
        if len(lines) == 4 and lines[3] == "":
            origin, size, root = check_name(lines[0]), lines[1], strict_base64(lines[2])
            digits = size.isascii() and size.isdecimal() and len(size) <= 16 and str(int(size)) == size
            if digits and int(size) <= MAX_SIZE and root is not None and len(root) == HASH_BYTES:
                return cls(origin, int(size), root)
        raise EvidenceError("checkpoint", got="another text", expected="origin, size and root, a line each")


def sign(text: str, keys: Iterable[SigningKey]) -> str:
    """The signed note of ``text``, which ends in a newline."""
    lines = tuple(Signature(key.name, key.verification.id, key.sign(text.encode())) for key in keys)
    note = str(Note(text, lines))
    if Note.parse(note) != Note(text, lines):
        raise EvidenceError("note", got="a text that cannot be signed", expected="lines ending in a newline")
    return note


def cosign(note: str, key: SigningKey, *, seconds: int) -> str:
    """``note``, a checkpoint, with one more line: ``key`` saw no other history. POSIX ``seconds``."""
    parsed = Note.parse(note)
    Checkpoint.parse(parsed.text)
    time = seconds.to_bytes(_TIME, "big")
    signature = time + key.sign(_cosigned(seconds, parsed.text))
    return note + _line(Signature(key.name, key.cosigner.id, signature))


def open_checkpoint(content: str | bytes, node: VerificationKey) -> tuple[Checkpoint, Note]:
    """The checkpoint in a note that ``node`` signed. EvidenceError for anything else."""
    note = Note.parse(content)
    if not note.signed_by(node):
        raise EvidenceError(
            "checkpoint", got="no signature by the node's key", expected=f"one by {node.name}"
        )
    return Checkpoint.parse(note.text), note


def cosigners(note: Note, keys: Sequence[VerificationKey]) -> tuple[VerificationKey, ...]:
    """Which of ``keys`` cosigned. EvidenceError where a line under one of their names is bad."""
    return tuple(key for key in keys if key.kind == COSIGNER and note.signed_by(key))


def _verify(content: bytes, text: str, key: VerificationKey) -> bool:
    if key.kind != COSIGNER:
        return len(content) == _SIGNATURE and key.verify(content, text.encode())
    seconds = int.from_bytes(content[:_TIME], "big")
    return (
        len(content) == _TIME + _SIGNATURE
        and seconds < 2**63
        and key.verify(content[_TIME:], _cosigned(seconds, text))
    )


def _cosigned(seconds: int, text: str) -> bytes:
    return f"cosignature/v1\ntime {seconds}\n{text}".encode()


def _decode(content: str | bytes) -> str:
    try:
        raw = content.encode() if isinstance(content, str) else content
        if len(raw) <= MAX_NOTE:
            return raw.decode()
    except UnicodeError:  # a lone surrogate, or other bytes
        pass
    raise EvidenceError("note", got="no UTF-8 text or a long one", expected=f"up to {MAX_NOTE} bytes")


def _split(content: str) -> tuple[str, list[str]]:
    """The text, and the signature lines below the last empty line."""
    body, blank, signatures = content.rpartition("\n\n")
    lines = signatures.split("\n")
    strange = any(char < " " and char != "\n" for char in content)
    if strange or not blank or not body or lines.pop() != "" or not 1 <= len(lines) <= MAX_SIGNATURES:
        raise EvidenceError(
            "note",
            got="another text",
            expected=f"text, an empty line, 1 to {MAX_SIGNATURES} signature lines, no control characters",
        )
    return body + "\n", lines


def _signature(line: str) -> Signature:
    name, _, encoded = line.removeprefix(_DASH).partition(" ")
    content = strict_base64(encoded) if line.startswith(_DASH) else None
    if content is None or len(content) <= 4:
        raise EvidenceError("note", got="another line", expected="a signature line: — name base64")
    return Signature(check_name(name), content[:4], content[4:])


def _line(signature: Signature) -> str:
    return f"{_DASH}{signature.name} {base64.b64encode(signature.key_id + signature.content).decode()}\n"
