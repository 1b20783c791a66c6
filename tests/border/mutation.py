"""Mutations of recorded messages: broken as bytes, broken as fields, or well formed and wrong.

The last kind is what gets far: hashes swapped for those of other rounds and other regions, numbers at their
edges, proofs reordered, floats that are none, texts of which one letter differs.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from border.field import places, set_fields, split, tag, value_of, varint, whole
from google.protobuf.message import Message

_EDGES = (0, 1, 2, 3, 127, 128, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**53 - 1, 2**53, 2**63, 2**64 - 1)
_HUGE = (2**31 - 1, 2**31, 2**32, 2**40, 2**63, 2**64 - 1)
_FLOATS = (np.nan, np.inf, -np.inf, 1e10, -3e38, 1e-45, 0.0, 1e4, -1.0)


@dataclass(frozen=True)
class Sample:
    """One message of a valid session, as it crossed."""

    kind: type[Message]
    content: bytes

    @classmethod
    def of(cls, message: Message) -> Sample:
        """A message as it would cross."""
        return cls(type(message), message.SerializeToString())

    @property
    def message(self) -> Message:
        """The message itself."""
        return self.kind.FromString(self.content)


@dataclass(frozen=True)
class Mutant:
    """What became of a sample, and how."""

    sample: Sample
    operator: str
    content: bytes


class Mutation:
    """Mutants of ``samples``, whose other regions and rounds lend their values. Same seed, same mutants."""

    def __init__(self, samples: Sequence[Sample], seed: int) -> None:
        self.samples, self._random = list(samples), random.Random(seed)
        self._by_kind: dict[type[Message], list[Sample]] = {}
        self._values: dict[int, set[bytes]] = {}
        for sample in self.samples:
            self._by_kind.setdefault(sample.kind, []).append(sample)
            for holder, field, index in places(sample.message):
                value = value_of(holder, field, index)
                if isinstance(value, bytes):
                    self._values.setdefault(len(value), set()).add(value)
        self._alike = {length: sorted(values) for length, values in self._values.items()}
        self._shape = (
            self._flip,
            self._cut,
            self._tail,
            self._splice,
            self._lie,
            self._overlong,
            self._group,
        )
        self._field = (self._repeat, self._omit, self._shuffle, self._unknown, self._retype)
        self._deep = (
            self._swap,
            self._number,
            self._lend,
            self._list,
            self._letter,
            self._noise,
            self._floats,
        )

    def of(self, sample: Sample) -> Mutant:
        """One mutant: two in ten broken as bytes, two as fields, five well formed, one a replay."""
        draw = self._random.random()
        if draw < 0.1:
            return Mutant(sample, "replay", self._random.choice(self._by_kind[sample.kind]).content)
        operators = self._shape if draw < 0.3 else self._field if draw < 0.5 else self._deep
        for operator in self._random.sample(operators, len(operators)):
            content = operator(sample)
            if content is not None and content != sample.content:
                # Now and then two wrongs.
                if self._random.random() < 0.1 and operators is not self._deep:
                    content = self._flip(Sample(sample.kind, content)) or content
                return Mutant(sample, operator.__name__.strip("_"), content)
        return Mutant(sample, "tail", sample.content + b"\0")

    # Broken as bytes.

    def _flip(self, sample: Sample) -> bytes | None:
        content = bytearray(sample.content)
        for _ in range(self._random.choice((1, 1, 1, 2, 8)) if content else 0):
            content[self._random.randrange(len(content))] ^= 1 << self._random.randrange(8)
        return bytes(content)

    def _cut(self, sample: Sample) -> bytes | None:
        return sample.content[: self._random.randrange(len(sample.content))] if sample.content else None

    def _tail(self, sample: Sample) -> bytes | None:
        return sample.content + self._random.randbytes(self._random.choice((1, 2, 9, 100)))

    def _splice(self, sample: Sample) -> bytes | None:
        other = self._random.choice(self.samples).content
        at, there = self._random.randint(0, len(sample.content)), self._random.randint(0, len(other))
        return sample.content[:at] + other[there:]

    def _lie(self, sample: Sample) -> bytes | None:
        """The length of one field is another than it has."""
        fields = split(sample.content)
        ours = [number for number, (_, kind, _) in enumerate(fields) if kind == 2]
        if not ours:
            return None
        lied, length = self._random.choice(ours), 0
        length = len(fields[lied][2])
        told = self._random.choice((length + 1, max(length - 1, 0), length + 127, 2 * length, *_HUGE))
        return b"".join(
            tag(number, kind) + varint(told) + value if at == lied else whole(number, kind, value)
            for at, (number, kind, value) in enumerate(fields)
        )

    def _overlong(self, sample: Sample) -> bytes | None:
        """A number or a tag written with more bytes than it needs, or with more than there may be."""
        fields = split(sample.content)
        if not fields:
            return None
        number, kind, value = fields.pop(self._random.randrange(len(fields)))
        rest = b"".join(whole(*field) for field in fields)
        padding = b"\x80" * self._random.choice((1, 2, 8, 20)) + self._random.choice(
            (b"\0", b"\x01", b"\x7f")
        )
        head = varint(number << 3 | kind)
        padded = head[:-1] + bytes([head[-1] | 128]) + padding
        return rest + padded + whole(number, kind, value)[len(head) :]

    def _group(self, sample: Sample) -> bytes | None:
        depth = self._random.choice((1, 3, 99, 101, 3000))
        opened = tag(self._random.choice((1, 2, 15)), 3) * depth
        return sample.content + opened + self._random.choice((b"", tag(1, 4) * depth))

    # Broken as fields.

    def _repeat(self, sample: Sample) -> bytes | None:
        fields = split(sample.content)
        return (
            sample.content + whole(*self._random.choice(fields)) * self._random.choice((1, 2, 70, 1100))
            if fields
            else None
        )

    def _omit(self, sample: Sample) -> bytes | None:
        fields = split(sample.content)
        if fields:
            fields.pop(self._random.randrange(len(fields)))
        return b"".join(whole(*field) for field in fields)

    def _shuffle(self, sample: Sample) -> bytes | None:
        """Another order, and one field more from another message in front, which a parser overwrites."""
        fields = split(sample.content)
        self._random.shuffle(fields)
        other = split(self._random.choice(self._by_kind[sample.kind]).content)[:1]
        return b"".join(whole(*field) for field in (*other, *fields))

    def _unknown(self, sample: Sample) -> bytes | None:
        """A field that the definition does not have, at the top or within."""
        extra = self._random.choice(
            (
                whole(self._random.choice((9, 15, 99, 19_000, 2**29 - 1)), 2, b"/data/fleet.parquet"),
                whole(self._random.choice((10, 16, 1000)), 0, self._random.getrandbits(64)),
                tag(77, 1) + self._random.randbytes(8),
                tag(78, 5) + self._random.randbytes(4),
            )
        )
        return self._within(sample, lambda content: content + extra)

    def _retype(self, sample: Sample) -> bytes | None:
        """A field under its number with another wire type."""

        def changed(content: bytes) -> bytes:
            fields = split(content)
            if fields:
                at = self._random.randrange(len(fields))
                number, kind, _ = fields[at]
                fields[at] = (number, 0, 7) if kind else (number, 2, b"\x07" * 32)
            return b"".join(whole(*field) for field in fields)

        return self._within(sample, changed)

    def _within(self, sample: Sample, change: Callable[[bytes], bytes]) -> bytes | None:
        """``change`` applied to the message or to one of those within it."""
        fields = split(sample.content)
        inner = {field.number for field in sample.kind.DESCRIPTOR.fields if field.message_type}
        ours = [at for at, (number, kind, _) in enumerate(fields) if number in inner and kind == 2]
        if not ours or self._random.random() < 0.4:
            return change(sample.content)
        at = self._random.choice(ours)
        number, kind, value = fields[at]
        fields[at] = (number, kind, change(value))
        return b"".join(whole(*field) for field in fields)

    # Well formed and wrong.

    def _swap(self, sample: Sample) -> bytes | None:
        """A hash, a signature, any bytes for others of that length from the sessions."""
        return self._set(
            sample, lambda value: self._random.choice(self._alike.get(len(value), [value])), bytes
        )

    def _number(self, sample: Sample) -> bytes | None:
        near = (-1, 1, 2, -2)
        return self._set(
            sample,
            lambda value: self._random.choice((*_EDGES, *(max(value + step, 0) for step in near))),
            int,
        )

    def _lend(self, sample: Sample) -> bytes | None:
        """One field of another message of this kind."""
        one, other = sample.message, self._random.choice(self._by_kind[sample.kind]).message
        chosen = self._random.choice(one.DESCRIPTOR.fields) if one.DESCRIPTOR.fields else None
        if chosen is None:
            return None
        one.ClearField(chosen.name)
        theirs = type(one)()
        theirs.CopyFrom(other)
        for field in one.DESCRIPTOR.fields:
            if field.name != chosen.name:
                theirs.ClearField(field.name)
        one.MergeFrom(theirs)
        return one.SerializeToString()

    def _list(self, sample: Sample) -> bytes | None:
        """A list in another order, or with an element more or less."""
        one = sample.message
        lists = [
            (holder, field)
            for holder, field in set_fields(one)
            if field.is_repeated and len(getattr(holder, field.name))
        ]
        if not lists:
            return None
        holder, field = self._random.choice(lists)
        elements = list(getattr(holder, field.name))
        change = self._random.randrange(3)
        if change == 0:
            self._random.shuffle(elements)
        elif change == 1:
            elements.insert(self._random.randint(0, len(elements)), self._random.choice(elements))
        else:
            elements.pop(self._random.randrange(len(elements)))
        copies = [
            type(one).FromString(one.SerializeToString()) if isinstance(one, Message) else one
            for one in elements
        ]
        holder.ClearField(field.name)
        getattr(holder, field.name).extend(copies)
        return one.SerializeToString()

    def _letter(self, sample: Sample) -> bytes | None:
        """A letter or digit of a text for another: an entry, a checkpoint, a plan."""

        def changed(value: bytes) -> bytes:
            letters = [at for at, byte in enumerate(value[:4096]) if 48 <= byte <= 57 or 97 <= byte <= 122]
            if not letters or (b'"' not in value and b"\n" not in value):
                return value
            text = bytearray(value)
            at = self._random.choice(letters)
            text[at] = self._random.choice(b"0123456789" if text[at] <= 57 else b"abcdefxyz")
            return bytes(text)

        return self._set(sample, changed, bytes)

    def _noise(self, sample: Sample) -> bytes | None:
        return self._set(sample, lambda value: self._random.randbytes(len(value)), bytes)

    def _floats(self, sample: Sample) -> bytes | None:
        """A float among an update's or a model's that is none, or too large, or another."""

        def changed(value: bytes) -> bytes:
            if len(value) < 64 or len(value) % 4 or value[:1] in (b"{", b"f"):
                return value
            floats = np.frombuffer(value, "<f4").copy()
            many = self._random.choice((1, 1, len(floats)))
            at = self._random.randrange(len(floats) - many + 1)
            floats[at : at + many] = self._random.choice(_FLOATS)
            return floats.tobytes()

        return self._set(sample, changed, bytes)

    def _set(self, sample: Sample, change: Callable[[Any], Any], kind: type) -> bytes | None:
        """One value of that type changed; None where there is none, or the type cannot hold the change."""
        one = sample.message
        ours = [place for place in places(one) if type(value_of(*place)) is kind]
        if not ours:
            return None
        holder, field, index = self._random.choice(ours)
        value = change(value_of(holder, field, index))
        try:
            if index is None:
                setattr(holder, field.name, value)
            else:
                getattr(holder, field.name)[index] = value
        except ValueError:
            return None
        return one.SerializeToString()
