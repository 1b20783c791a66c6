"""The Merkle tree of RFC 9162, section 2.1, over SHA-256: roots, inclusion and consistency proofs.

Only hashes of complete subtrees are ever kept: node (level, index) covers the leaves from
index * 2^level on, 2^level of them. Everything else is computed from O(log n) of them.

>>> tree = Tree()
>>> for word in (b"a", b"b", b"c"):
...     tree.append(leaf_hash(word))
>>> proof = tree.inclusion(0, 3)
>>> verify_inclusion(leaf_hash(b"a"), 0, 3, proof, tree.root())
True
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

HASH_BYTES = 32
Hash = bytes
Proof = Sequence[Hash]


def leaf_hash(content: bytes) -> Hash:
    """Hash of one entry."""
    return hashlib.sha256(b"\x00" + content).digest()


def node_hash(left: Hash, right: Hash) -> Hash:
    """Hash of two neighbouring subtrees."""
    return hashlib.sha256(b"\x01" + left + right).digest()


class Tree:
    """A growing tree in memory, about 64 bytes a leaf; it answers for every size it has had."""

    def __init__(self) -> None:
        self._levels = [bytearray()]

    def __len__(self) -> int:
        return len(self._levels[0]) // HASH_BYTES

    def append(self, leaf: Hash) -> None:
        """Add a leaf by its hash; O(1) on average."""
        node, level, index = leaf, 0, len(self)
        while True:
            if level == len(self._levels):
                self._levels.append(bytearray())
            self._levels[level] += node
            if index % 2 == 0:
                return
            node = node_hash(self._node(level, index - 1), node)
            level, index = level + 1, index // 2

    def leaf(self, index: int) -> Hash:
        """The hash of leaf ``index``."""
        return self._node(0, index)

    def root(self, size: int | None = None) -> Hash:
        """The root over the first ``size`` leaves (all of them by default)."""
        size = len(self) if size is None else self._known(size)
        return self._range(0, size) if size else hashlib.sha256(b"").digest()

    def inclusion(self, index: int, size: int) -> list[Hash]:
        """The audit path of leaf ``index`` in the tree of ``size`` leaves, leaf to root."""
        if not 0 <= index < self._known(size):
            raise ValueError(f"leaf {index} of {size}")
        path, start, end = [], 0, size
        while end - start > 1:
            middle = start + _split(end - start)
            if index < middle:
                path.append(self._range(middle, end))
                end = middle
            else:
                path.append(self._range(start, middle))
                start = middle
        return path[::-1]

    def consistency(self, first: int, second: int) -> list[Hash]:
        """The proof that the tree of ``second`` leaves extends the one of ``first``."""
        if not 0 <= first <= self._known(second):
            raise ValueError(f"{first} leaves of {second}")
        if first in (0, second):
            return []
        path, start, end = [], 0, second
        while end != first:
            middle = start + _split(end - start)
            if first <= middle:
                path.append(self._range(middle, end))
                end = middle
            else:
                path.append(self._range(start, middle))
                start = middle
        if start:  # the old tree's last subtree is not the whole old tree, whose root is known
            path.append(self._range(start, end))
        return path[::-1]

    def _known(self, size: int) -> int:
        if not 0 <= size <= len(self):
            raise ValueError(f"size {size} of {len(self)}")
        return size

    def _node(self, level: int, index: int) -> Hash:
        offset = index * HASH_BYTES
        return bytes(self._levels[level][offset : offset + HASH_BYTES])

    def _range(self, start: int, end: int) -> Hash:
        """Root over the leaves from ``start`` (a multiple of a power of two >= end - start) to ``end``."""
        result: Hash | None = None
        for level, index in reversed(list(_complete(start, end))):
            node = self._node(level, index)
            result = node if result is None else node_hash(node, result)
        assert result is not None
        return result


def verify_inclusion(leaf: Hash, index: int, size: int, proof: Proof, root: Hash) -> bool:
    """Whether ``proof`` shows ``leaf`` at ``index`` below ``root`` (RFC 9162, section 2.1.3.2)."""
    if not 0 <= index < size or not _hashes(proof):
        return False
    fn, sn, result = index, size - 1, leaf
    for node in proof:
        if sn == 0:
            return False
        if fn % 2 or fn == sn:
            result = node_hash(node, result)
            while fn % 2 == 0 and fn:
                fn, sn = fn >> 1, sn >> 1
        else:
            result = node_hash(result, node)
        fn, sn = fn >> 1, sn >> 1
    return sn == 0 and result == root


def verify_consistency(first: int, second: int, proof: Proof, first_root: Hash, second_root: Hash) -> bool:
    """Whether ``proof`` shows that the second tree extends the first (RFC 9162, section 2.1.4.2)."""
    if not 0 <= first <= second or not _hashes(proof):
        return False
    if first == second:
        return not proof and first_root == second_root
    if first == 0:  # everything extends nothing
        return not proof and first_root == hashlib.sha256(b"").digest()
    path = list(proof)
    if first & (first - 1) == 0:
        path.insert(0, first_root)
    if not path:
        return False
    fn, sn = first - 1, second - 1
    while fn % 2:
        fn, sn = fn >> 1, sn >> 1
    old = new = path[0]
    for node in path[1:]:
        if sn == 0:
            return False
        if fn % 2 or fn == sn:
            old, new = node_hash(node, old), node_hash(node, new)
            while fn % 2 == 0 and fn:
                fn, sn = fn >> 1, sn >> 1
        else:
            new = node_hash(new, node)
        fn, sn = fn >> 1, sn >> 1
    return sn == 0 and old == first_root and new == second_root


def _split(size: int) -> int:
    """The largest power of two below ``size``."""
    return 1 << ((size - 1).bit_length() - 1)


def _complete(start: int, end: int) -> Iterator[tuple[int, int]]:
    """The complete subtrees that make up the leaves from ``start`` to ``end``, left to right."""
    while start < end:
        level = (end - start).bit_length() - 1
        yield level, start >> level
        start += 1 << level


def _hashes(proof: Proof) -> bool:
    return len(proof) <= 64 and all(len(node) == HASH_BYTES for node in proof)
