"""The tree against published vectors, against the recursive definition, and against tampering."""

import base64
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedfsd.ledger.merkle import Tree, leaf_hash, verify_consistency, verify_inclusion

# Published by the transparency-dev and Certificate Transparency projects.
LEAVES = [
    bytes.fromhex(text)
    for text in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
INCLUSION = {
    (5, 8): [
        "vBoGQ7EuTS18d5GPROD095qDi2z57FtcKD4fTYhZnms=",
        "yoVOoSjtBQtBs1/8G4e46yveRh6eO1WW7Oa51ZdaCuA=",
        "037kGJdt2VdTwcc4Yrk5j6Kiz5tP8P3+izDNlSCWFLc=",
    ],
    (1, 5): [
        "bjQLnP+zepicpUTmu3gKLHiQHT+zNzh2hRGjBhevoB0=",
        "Xwg/ChozygdqlSeYMlgNs+DvRYS9/x9UyKNg9Q3jAx4=",
        "vBoGQ7EuTS18d5GPROD095qDi2z57FtcKD4fTYhZnms=",
    ],
}
CONSISTENCY = {
    (6, 8): [
        "DrxdNDf74tsVi58Sah0RjjCBgQMdCpSfje3t68VY72o=",
        "yoVOoSjtBQtBs1/8G4e46yveRh6eO1WW7Oa51ZdaCuA=",
        "037kGJdt2VdTwcc4Yrk5j6Kiz5tP8P3+izDNlSCWFLc=",
    ],
    (2, 5): [
        "Xwg/ChozygdqlSeYMlgNs+DvRYS9/x9UyKNg9Q3jAx4=",
        "vBoGQ7EuTS18d5GPROD095qDi2z57FtcKD4fTYhZnms=",
    ],
    (6, 7): [
        "DrxdNDf74tsVi58Sah0RjjCBgQMdCpSfje3t68VY72o=",
        "sIaT7C5yFZcTBkHoIR5+7cy0wmQTlj7ubB4u0W/7Gl8=",
        "037kGJdt2VdTwcc4Yrk5j6Kiz5tP8P3+izDNlSCWFLc=",
    ],
}


def grown(leaves: list[bytes]) -> Tree:
    tree = Tree()
    for leaf in leaves:
        tree.append(leaf_hash(leaf))
    return tree


def by_definition(leaves: list[bytes]) -> bytes:
    """RFC 9162, section 2.1.1, word by word."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return hashlib.sha256(b"\x00" + leaves[0]).digest()
    k = 1
    while 2 * k < len(leaves):
        k *= 2
    return hashlib.sha256(b"\x01" + by_definition(leaves[:k]) + by_definition(leaves[k:])).digest()


def test_published_roots():
    tree = grown(LEAVES)
    assert [tree.root(size).hex() for size in range(9)] == ROOTS


@pytest.mark.parametrize("case", INCLUSION)
def test_published_inclusion_proofs(case):
    assert grown(LEAVES).inclusion(*case) == [base64.b64decode(text) for text in INCLUSION[case]]


@pytest.mark.parametrize("case", CONSISTENCY)
def test_published_consistency_proofs(case):
    assert grown(LEAVES).consistency(*case) == [base64.b64decode(text) for text in CONSISTENCY[case]]


def test_every_proof_of_every_small_tree():
    leaves = [bytes([number]) for number in range(40)]
    tree = grown(leaves)
    roots = [tree.root(size) for size in range(41)]
    assert roots == [by_definition(leaves[:size]) for size in range(41)]
    for size in range(1, 41):
        for index in range(size):
            proof = tree.inclusion(index, size)
            assert len(proof) <= (size - 1).bit_length()
            assert verify_inclusion(leaf_hash(leaves[index]), index, size, proof, roots[size])
            assert not verify_inclusion(leaf_hash(b"other"), index, size, proof, roots[size])
        for first in range(size + 1):
            proof = tree.consistency(first, size)
            assert verify_consistency(first, size, proof, roots[first], roots[size])
            if first != size:
                assert not verify_consistency(first, size, proof, roots[size], roots[size])
                assert not verify_consistency(first, size, [*proof, roots[1]], roots[first], roots[size])


@given(st.integers(1, 300), st.data())
def test_a_changed_proof_is_refused(size, data):
    tree = grown([number.to_bytes(2, "big") for number in range(size)])
    first = data.draw(st.integers(1, size))
    index = data.draw(st.integers(0, size - 1))
    for proof, verify in (
        (
            tree.consistency(first, size),
            lambda p: verify_consistency(first, size, p, tree.root(first), tree.root(size)),
        ),
        (
            tree.inclusion(index, size),
            lambda p: verify_inclusion(tree.leaf(index), index, size, p, tree.root(size)),
        ),
    ):
        assert verify(proof)
        assert not verify([*proof, tree.root()])
        if proof:
            assert not verify(proof[:-1])
            where, bit = (
                data.draw(st.integers(0, len(proof) - 1)),
                data.draw(st.integers(0, 255)),
            )
            flipped = bytearray(proof[where])
            flipped[bit // 8] ^= 1 << bit % 8
            assert not verify([*proof[:where], bytes(flipped), *proof[where + 1 :]])


@given(st.lists(st.binary(max_size=40), max_size=6), st.integers(-3, 12), st.integers(-3, 12))
def test_nonsense_is_refused_and_never_raises(proof, first, second):
    root = bytes(32)
    assert verify_inclusion(root, first, second, proof, bytes(31)) is False
    verify_consistency(first, second, proof, root, root)
