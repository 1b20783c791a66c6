"""The canonical bytes of arrays: one string for one value, and back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fedfsd.errors import RefusedError
from fedfsd.gate import arrays as gate_arrays
from fedfsd.plan.plan import ArraySchema

FINITE = st.floats(width=32, allow_nan=False, allow_infinity=False)
SHAPES = st.lists(hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4), min_size=1, max_size=5)


@st.composite
def arrays_and_schema(draw):
    shapes = draw(SHAPES)
    schema = [ArraySchema(name=f"a{index}", shape=shape) for index, shape in enumerate(shapes)]
    return {
        entry.name: draw(hnp.arrays(np.float32, entry.shape, elements=FINITE)) for entry in schema
    }, schema


@settings(deadline=None)
@given(arrays_and_schema())
def test_arrays_come_back_from_their_bytes(pair):
    arrays, schema = pair
    gate_arrays.check(arrays, schema)
    content = gate_arrays.to_bytes(arrays, schema)
    assert len(content) == 4 * sum(array.size for array in arrays.values())
    back = gate_arrays.view(content, schema)
    gate_arrays.check(back, schema)
    for name, array in arrays.items():
        np.testing.assert_array_equal(back[name], array)
    assert gate_arrays.to_bytes(back, schema) == content


@settings(deadline=None)
@given(arrays_and_schema(), st.data())
def test_memory_layout_does_not_show(pair, data):
    arrays, schema = pair
    turned = {name: np.asfortranarray(array) for name, array in arrays.items()}
    assert gate_arrays.sha256(turned, schema) == gate_arrays.sha256(arrays, schema)


@settings(deadline=None)
@given(arrays_and_schema(), st.data())
def test_one_bit_gives_another_hash(pair, data):
    arrays, schema = pair
    filled = [name for name, array in arrays.items() if array.size]
    if not filled:
        return
    changed = {name: array.copy() for name, array in arrays.items()}
    flat = changed[data.draw(st.sampled_from(filled))].reshape(-1).view(np.uint32)
    flat[data.draw(st.integers(0, flat.size - 1))] ^= np.uint32(1 << data.draw(st.integers(0, 31)))
    assert gate_arrays.sha256(changed, schema) != gate_arrays.sha256(arrays, schema)


@settings(deadline=None)
@given(arrays_and_schema(), st.integers(-9, 9))
def test_bytes_of_another_length_are_refused(pair, extra):
    arrays, schema = pair
    content = gate_arrays.to_bytes(arrays, schema)
    wrong = content + bytes(extra) if extra >= 0 else content[:extra]
    if len(wrong) == len(content):
        return
    with pytest.raises(RefusedError):
        gate_arrays.view(wrong, schema)


def test_the_bytes_are_little_endian_floats_in_schema_order():
    schema = [ArraySchema(name="b", shape=(2,)), ArraySchema(name="a", shape=())]
    arrays = {"b": np.array([1.0, -2.0], np.float32), "a": np.array(0.5, np.float32)}
    assert gate_arrays.to_bytes(arrays, schema).hex() == "0000803f000000c00000003f"


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused_whatever_the_limit(value):
    schema = [ArraySchema(name="a", shape=(3,))]
    with pytest.raises(RefusedError):
        gate_arrays.check({"a": np.array([0, value, 1], np.float32)}, schema)
