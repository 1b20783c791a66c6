"""The mutation engine against the wire's own rules: typed refusals alone, and enough that gets through."""

from collections import Counter

from border.mutation import Mutation, Sample
from google.protobuf.message import DecodeError
from test_wire import HONEST

from fedfsd.border import border_pb2 as pb
from fedfsd.border import wire

COUNT = 3000


def samples() -> list[Sample]:
    """The honest messages, with the values that differ between rounds and regions."""
    found = [Sample.of(message) for message in HONEST if message.SerializeToString()]
    for number in range(3):
        mark = bytes([number])
        hashes = [pb.Round(plan=32 * mark, round=number, arrays_sha256=16 * (mark + b"a"), size=number)]
        found += [Sample.of(pb.Task(round=one)) for one in hashes]
        statement = pb.Statement(seq=number, content=b'{"seq":%d}' % number, proof=[32 * mark, 32 * b"p"])
        head = pb.Head(checkpoint=b"hub\n7\n", consistency=[32 * mark, 32 * b"c"], statements=[statement])
        found += [Sample.of(head), Sample.of(pb.Chunk(sha256=32 * mark, offset=number, content=bytes(400)))]
    return found


def verdict(kind: type, content: bytes) -> str:
    try:
        message = kind.FromString(content)
    except DecodeError:
        return "malformed"
    try:
        wire.strict(message)
    except wire.WireError:
        return "refused"
    return "taken"


def test_every_mutant_is_malformed_refused_or_a_message():
    mutation, seen = Mutation(samples(), seed=1), Counter()
    for number in range(COUNT):
        mutant = mutation.of(mutation.samples[number % len(mutation.samples)])
        seen[verdict(mutant.sample.kind, mutant.content)] += 1
    print(dict(seen))
    assert seen["malformed"] > COUNT / 20
    assert seen["refused"] > COUNT / 20
    assert seen["taken"] > COUNT / 3


def test_every_operator_is_at_work_and_changes_something():
    mutation = Mutation(samples(), seed=2)
    mutants = [mutation.of(sample) for sample in mutation.samples for _ in range(300)]
    operators = Counter(mutant.operator for mutant in mutants)
    expected = "replay flip cut tail splice lie overlong group repeat omit shuffle unknown retype swap number"
    assert set(operators) == {*expected.split(), "lend", "list", "letter", "noise", "floats"}
    assert all(mutant.content != mutant.sample.content for mutant in mutants if mutant.operator != "replay")


def test_the_same_seed_makes_the_same_mutants():
    made = [[Mutation(samples(), seed=3).of(samples()[4]).content for _ in range(2)] for _ in range(2)]
    assert made[0] == made[1]


def test_what_the_definition_does_not_have_never_gets_through():
    mutation = Mutation(samples(), seed=4)
    mutants = [mutation.of(sample) for sample in mutation.samples for _ in range(300)]
    ours = [mutant for mutant in mutants if mutant.operator == "unknown"]
    assert len(ours) > 100
    assert all(verdict(mutant.sample.kind, mutant.content) != "taken" for mutant in ours)
