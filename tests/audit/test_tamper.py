"""Somebody between region and auditor changes what is handed in: nothing passes, and nothing breaks."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from forge import Forge, check, outcomes, plan_of, receipts, trust
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from setting import examples

from fedfsd.audit.evidence import load
from fedfsd.audit.verify import verify
from fedfsd.errors import FedfsdError
from fedfsd.ledger import bundle
from fedfsd.ledger.entry import WitnessEntry

EVERY = int(os.environ.get("FEDFSD_FLIPS", "7"))
"""Of so many bytes one is changed, a bit of it: 1 takes every byte, and half a minute longer."""


@dataclass(frozen=True)
class World:
    """What an auditor of one honest region has in hand."""

    folder: Path
    ledger: str
    bundle: Path
    receipts: Path
    trust: Path

    def exit_code(self) -> int:
        """What the command would exit with; a traceback is none."""
        try:
            return verify(load([self.bundle], receipts=self.receipts, trust=self.trust)).exit_code
        except FedfsdError as error:
            return error.exit_code

    def remade(self, lines: list[bytes], checkpoints: list[tuple[int, int, str]]) -> int:
        """The exit code after somebody who knows the archive's format packed other content."""
        bundle.write(
            self.bundle, region="EU", ledger=self.ledger, entries=lines, checkpoints=sorted(checkpoints)
        )
        return self.exit_code()


@pytest.fixture(scope="module")
def honest(tmp_path_factory) -> World:
    """Two releases, one checkpoint in between that a witness cosigned."""
    folder, forge = tmp_path_factory.mktemp("honest"), Forge()
    plan = plan_of()
    forge.grant(approval_required=True)
    permit = forge.permit()
    forge.approve(plan)
    forge.round(plan, 1, approval=permit)
    text = forge.head(cosigned=True)
    forge.add(WitnessEntry(size=len(forge.entries), checkpoint=text))
    forge.round(plan, 2, approval=permit)
    forge.settle(plan)
    path = forge.bundle(folder)
    made = World(folder, forge.entries[0].ledger, path, receipts(folder, forge), trust(folder, forge))
    assert made.exit_code() == 0
    return made


@pytest.fixture
def world(honest, tmp_path) -> World:
    """A copy to be spoiled."""
    files = [honest.bundle, honest.receipts, honest.trust]
    for path in files:
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return World(tmp_path, honest.ledger, *(tmp_path / path.name for path in files))


def flips(content: bytes, step: int = 1) -> Iterator[tuple[int, bytes]]:
    """``content`` with one bit changed, another bit at every place."""
    for place in range(0, len(content), step):
        changed = content[place] ^ 1 << place // step % 8
        yield place, content[:place] + bytes([changed]) + content[place + 1 :]


def cuts(content: bytes) -> Iterator[tuple[int, bytes]]:
    """``content`` ending early, beginning late, without a part, with a part twice."""
    for place in range(0, len(content), 37):
        for number, one in enumerate(
            (
                content[:place],
                content[place + 1 :],
                content[:place] + content[place + 9 :],
                content[: place + 9] + content[place:],
                content[:place] + b"\0" + content[place:],
            )
        ):
            yield 10 * place + number, one


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bundle", "receipts"])
def test_every_changed_byte_is_found(world, name):
    path: Path = getattr(world, name)
    for place, changed in flips(path.read_bytes(), EVERY):
        path.write_bytes(changed)
        assert world.exit_code() in (10, 11), place


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bundle", "receipts"])
def test_every_cut_is_found(world, name):
    path: Path = getattr(world, name)
    content = path.read_bytes()
    for place, changed in cuts(content):
        path.write_bytes(changed)
        assert changed == content or world.exit_code() in (10, 11), place


def test_every_changed_key_is_found(world):
    """Of the trust file comments may be changed, lines moved; keys may not."""
    lines = world.trust.read_text().splitlines()
    for number, line in enumerate(lines[1:], 1):
        for place, changed in flips(line.encode(), 5):
            world.trust.write_bytes("\n".join(lines[:number]).encode() + b"\n" + changed + b"\n")
            assert world.exit_code() in (3, 10, 11), (number, place)
    for number, line in enumerate(lines[1:], 1):
        world.trust.write_text("\n".join([*lines, line]))
        assert world.exit_code() == 0  # a key that stands there twice counts once
        world.trust.write_text("\n".join(lines[:number] + lines[number + 1 :]))
        # Without a witness, or with an officer that vouches for the node, the rest still holds.
        assert world.exit_code() == (0 if line.startswith(("witness", "node")) else 11), line


def change_lines(change: Callable[[list[bytes]], Iterator[list[bytes]]]) -> Callable[[World], None]:
    def run(world: World) -> None:
        archive = bundle.read(world.bundle)
        lines, checkpoints = list(archive.entries()), list(archive.checkpoints)
        for changed in change(lines):
            assert changed != lines
            assert world.remade(changed, checkpoints) == 10

    return run


@change_lines
def test_a_line_less(lines):
    for place in range(len(lines)):
        yield lines[:place] + lines[place + 1 :]


@change_lines
def test_a_line_twice(lines):
    for place in range(len(lines)):
        yield lines[: place + 1] + lines[place:]


@change_lines
def test_two_lines_exchanged(lines):
    for place in range(1, len(lines)):
        yield [*lines[: place - 1], lines[place], lines[place - 1], *lines[place + 1 :]]


@change_lines
def test_fewer_lines(lines):
    for place in range(len(lines)):
        yield lines[:place]


@change_lines
def test_a_byte_of_a_line(lines):
    for number, line in enumerate(lines):
        for _, changed in flips(line, 97):
            if b"\n" not in changed:
                yield [*lines[:number], changed, *lines[number + 1 :]]


def test_a_byte_of_a_checkpoint(world):
    """But for the cosignature: whoever spoils the name in it has taken it away, as anybody may."""
    archive = bundle.read(world.bundle)
    lines, (first, last) = list(archive.entries()), archive.checkpoints
    cosignature = first[2].splitlines(keepends=True)[-1].encode()
    for one, other, kept in ((first, last, cosignature), (last, first, b"")):
        for place, changed in flips(one[2].encode().removesuffix(kept), 9):
            with suppress(UnicodeDecodeError):
                note = (changed + kept).decode()
                assert world.remade(lines, [other, (*one[:2], note)]) == 10, place


def test_a_checkpoint_under_another_name(world):
    archive = bundle.read(world.bundle)
    lines = list(archive.entries())
    (first, last) = archive.checkpoints
    assert world.remade(lines, [first]) == 10  # none over the last entries
    for epoch, size in ((0, 3), (1, last[1]), (0, last[1] + 1)):
        assert world.remade(lines, [first, last, (epoch, size, last[2])]) == 10


def test_another_regions_entries(world, tmp_path):
    other = Forge("US")
    other.story()
    archive = bundle.read(other.bundle(tmp_path))
    assert world.remade(list(archive.entries()), list(archive.checkpoints)) == 10


@pytest.mark.slow
@settings(
    max_examples=examples(150), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_any_mutation_of_any_file(world, honest, data):
    """Pieces cut, doubled, moved or replaced: the answer is a number, and never 0."""
    name = data.draw(st.sampled_from(["bundle", "receipts"]))
    content = getattr(honest, name).read_bytes()
    changed = bytearray(content)
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(changed)))
        length = data.draw(st.integers(0, 64))
        piece = data.draw(
            st.one_of(
                st.binary(max_size=16),
                st.sampled_from(
                    [b'"seq":0', b"NaN", b"[" * 500, b'{"a":1,"a":1}', b"1e999", b"\\ud800", b"-0"]
                ),
                st.integers(0, len(content)).map(lambda at: content[at : at + 64]),
            )
        )
        changed[start : start + length] = piece
    getattr(world, "receipts" if name == "bundle" else "bundle").write_bytes(
        getattr(honest, "receipts" if name == "bundle" else "bundle").read_bytes()
    )
    getattr(world, name).write_bytes(bytes(changed))
    assert bytes(changed) == content or world.exit_code() in (10, 11)


def test_the_honest_world_is_one(tmp_path):
    """What is spoiled above holds before."""
    forge = Forge()
    forge.story()
    assert outcomes(check(tmp_path, forge)) == {}
