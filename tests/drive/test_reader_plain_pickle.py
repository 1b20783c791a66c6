"""The pickle machine: plain values as Python's own unpickler gives them, and nothing that calls."""

import codecs
import collections
import contextlib
import copyreg
import fractions
import io
import os
import pathlib
import pickle
import struct
import subprocess

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedfsd.drive.reader import plain_pickle
from fedfsd.errors import DataError

PATH = pathlib.Path("scene.pkl")


def load(data: bytes):
    return plain_pickle.load(data, PATH)


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(st.text() | st.integers() | st.none(), inner)
        | st.tuples(inner, inner)
        | st.sets(st.text())
    ),
    max_leaves=20,
)


@given(plain, st.sampled_from([4, 5]))
def test_plain_values_come_back(value, protocol):
    assert load(pickle.dumps(value, protocol=protocol)) == value


@pytest.mark.parametrize("code", ["<f8", ">f8", "<f4", "<i8", "|u1", "|b1", "<U3", "|S2"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_come_back(code, order):
    array = np.array([[1, 0, 1], [0, 1, 1]]).astype(code).copy(order)
    for spelling in (b"numpy._core.multiarray", b"numpy.core.multiarray"):
        data = respell(pickle.dumps({"a": array, "again": [array]}, protocol=4), spelling)
        found = load(data)
        assert found["a"].dtype == array.dtype
        assert np.array_equal(found["a"], array)
        assert found["again"][0] is found["a"]


def respell(data: bytes, module: bytes) -> bytes:
    """The pickle with another spelling of numpy's module, as older numpy wrote it."""
    for known in (b"numpy._core.multiarray", b"numpy.core.multiarray"):
        data = data.replace(b"\x8c" + bytes([len(known)]) + known, b"\x8c" + bytes([len(module)]) + module)
    return data


def test_a_defaultdict_of_int_becomes_a_dict():
    counts = collections.defaultdict(int, {"car": 3})
    found = load(pickle.dumps(counts, protocol=4))
    assert found == {"car": 3}
    assert type(found) is dict


class Call:
    """Pickles to a call of anything."""

    def __init__(self, function, *arguments, state=None):
        self.parts = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self):
        return self.parts


class Plain:
    """An instance of a class of ours."""

    def __init__(self):
        self.a = 1


def by_name(module: str, name: str, *arguments: str, protocol: int = 4) -> bytes:
    """A pickle that calls module.name(arguments) without needing the object here."""
    if protocol < 4:
        head = b"\x80\x02c" + f"{module}\n{name}\n".encode()
    else:
        head = b"\x80\x04" + text(module) + text(name) + b"\x93"
    return head + b"(" + b"".join(text(argument) for argument in arguments) + b"tR."


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


class Persistent(pickle.Pickler):
    def persistent_id(self, obj):
        return "key" if obj == "secret" else None


def persistent() -> bytes:
    out = io.BytesIO()
    Persistent(out, protocol=4).dump({"a": "secret"})
    return out.getvalue()


MARKER = "made-by-a-pickle"
MALICIOUS = {
    "os.system": pickle.dumps(Call(os.system, f"touch {MARKER}"), protocol=4),
    "os.system, text": pickle.dumps(Call(os.system, f"touch {MARKER}"), protocol=0),
    "os.system, binary 2": pickle.dumps(Call(os.system, f"touch {MARKER}"), protocol=2),
    "builtins.eval": pickle.dumps(Call(eval, f"open('{MARKER}', 'w')"), protocol=4),
    "builtins.exec": pickle.dumps(Call(exec, f"open('{MARKER}', 'w')"), protocol=4),
    "builtins.open": pickle.dumps(Call(open, MARKER, "w"), protocol=4),
    "builtins.getattr": pickle.dumps(Call(getattr, "a", "upper"), protocol=4),
    "builtins.__import__": pickle.dumps(Call(__import__, "os"), protocol=4),
    "builtins.bytearray": pickle.dumps(Call(bytearray, 10**9), protocol=4),
    "builtins.int called": pickle.dumps(Call(int, "7"), protocol=4),
    "subprocess": pickle.dumps(Call(subprocess.Popen, ["touch", MARKER]), protocol=4),
    "numpy.load": pickle.dumps(Call(np.load, "a.npy"), protocol=4),
    "numpy.fromfile": by_name("numpy", "fromfile", "/etc/hostname"),
    "numpy.ndarray called": pickle.dumps(Call(np.ndarray, (3,)), protocol=4),
    "numpy dotted": by_name("numpy", "f2py.os.system", f"touch {MARKER}"),
    "numpy runstring": by_name("numpy.testing._private.utils", "runstring", "x", "{}"),
    "dotted through a known name": by_name("numpy", "ndarray.__class__", "a"),
    "dotted through int": by_name("builtins", "int.__subclasses__"),
    "name with a trailing dot": by_name("builtins", "int.", "7"),
    "known name in another module": by_name("os", "int", "7"),
    "module in the name": by_name("", "builtins.int", "7"),
    "nested": pickle.dumps({"a": [(1, {"b": Call(os.system, f"touch {MARKER}")})]}, protocol=4),
    "class": pickle.dumps(fractions.Fraction(1, 2), protocol=4),
    "path": pickle.dumps(pathlib.PurePosixPath("a"), protocol=4),
    "ordered dict": pickle.dumps(collections.OrderedDict(a=1), protocol=4),
    "defaultdict of list": pickle.dumps(collections.defaultdict(list), protocol=4),
    "copyreg reconstructor": pickle.dumps(Plain(), protocol=1),
    "copyreg newobj": by_name("copyreg", "__newobj__", "a"),
    "newobj": pickle.dumps(Plain(), protocol=2),
    "copyreg extension": b"\x80\x02\x82\x01.",
    "persistent id": persistent(),
    "persistent id, text": b"Pkey\n.",
    "inst": b"(S'touch x'\nios\nsystem\n.",
    "obj": b"(cos\nsystem\nS'touch x'\no.",
    "codecs": pickle.dumps(Call(codecs.encode, "a", "utf-8"), protocol=2),
    "object array": pickle.dumps(np.array([1, "a"], dtype=object), protocol=4),
    "structured array": pickle.dumps(np.zeros(2, dtype=[("a", "f8")]), protocol=4),
    "complex array": pickle.dumps(np.zeros(2, dtype=complex), protocol=4),
    "numpy scalar": pickle.dumps(np.float64(1.5), protocol=4),
    "out of band": b"\x80\x05\x97.",
    "state for a dict": b"\x80\x04}}b.",
    "tuple as key": pickle.dumps({(1, 2): 3}, protocol=4),
    "tuple in a set": pickle.dumps({(1, 2)}, protocol=4),
}


@pytest.mark.parametrize("name", MALICIOUS)
def test_what_could_call_is_refused(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"a pickle with|damaged") as caught:
        load(MALICIOUS[name])
    assert "scene.pkl" in caught.value.place
    assert not list(tmp_path.iterdir())


def test_an_extension_that_is_registered_and_cached_is_refused_too():
    copyreg.add_extension(os.system.__module__, "system", 77)
    try:
        data = pickle.dumps(os.system, protocol=2)
        assert b"\x82" in data
        assert pickle.loads(data) is os.system, "it is in the cache of Python's unpickler now"
        with pytest.raises(DataError, match="opcode EXT1"):
            load(data)
    finally:
        copyreg.remove_extension(os.system.__module__, "system", 77)


def array_pickle(shape: tuple, raw: bytes) -> bytes:
    """An array whose stated shape and bytes are free."""
    return (
        b"\x80\x04"
        + text("numpy.core.multiarray")
        + text("_reconstruct")
        + b"\x93"
        + text("numpy")
        + text("ndarray")
        + b"\x93K\x00\x85C\x01b\x87R"  # _reconstruct(ndarray, (0,), b"b")
        + b"(K\x01"
        + b"("
        + b"".join(b"\x8a\x08" + struct.pack("<q", size) for size in shape)
        + b"t"
        + text("numpy")
        + text("dtype")
        + b"\x93"
        + text("f8")
        + b"\x89\x88\x87R"
        + b"\x89"
        + b"B"
        + struct.pack("<I", len(raw))
        + raw
        + b"tb."
    )


def test_an_array_takes_no_memory_that_is_not_in_the_file():
    assert load(array_pickle((3,), bytes(24))).tolist() == [0, 0, 0]
    for shape in ((10**12,), (10**9, 10**9), (-1,), (4,), (2**62, 4), (1,) * 40):
        with pytest.raises(DataError):
            load(array_pickle(shape, bytes(24)))


def test_an_array_that_was_never_filled_is_not_uninitialised_memory():
    data = array_pickle((3,), bytes(24)).replace(b"K\x00\x85C\x01b\x87R", b"M\xe8\x03\x85C\x01b\x87R")
    with pytest.raises(DataError, match="a call of _reconstruct"):
        load(data)


@pytest.mark.slow
@pytest.mark.parametrize(
    "data",
    [
        b"\x80\x04r\xff\xff\xff\xff",  # memo slot 4 billion: Python's unpickler would fill 64 GB
        b"\x80\x04Nr\xff\xff\xff\x7f0.",
        b"\x80\x04\x8e" + struct.pack("<Q", 2**60),  # bytes of 2^60
        b"\x80\x05\x96" + struct.pack("<Q", 2**40) + b".",  # bytearray of 2^40
        b"\x80\x04)" + b"\x85" * 300_000 + b"}\x94" + b"0.",
        b"\x80\x04}" + b")" + b"\x85" * 300_000 + b"Ns.",  # a key nested a million deep
    ],
)
def test_bombs_are_small_errors(data):
    with pytest.raises(DataError):
        load(data)


def test_very_many_opcodes_are_refused(monkeypatch):
    monkeypatch.setattr(plain_pickle, "MAX_OPCODES", 1000)
    assert len(load(b"\x80\x04](" + b"]" * 900 + b"e.")) == 900
    with pytest.raises(DataError, match="over 1000 opcodes"):
        load(b"\x80\x04](" + b"]" * 1100 + b"e.")


HONEST = pickle.dumps({"a": np.zeros(2), "b": [1, "x", {"c": (2.0, None)}]}, protocol=4)


@given(st.data())
def test_any_damage_is_a_data_error_or_a_plain_value(data):
    where = data.draw(st.integers(0, len(HONEST) - 1))
    byte = data.draw(st.binary(min_size=0, max_size=3))
    damaged = HONEST[:where] + byte + HONEST[where + data.draw(st.integers(0, 3)) :]
    with contextlib.suppress(DataError):  # anything else fails the test
        load(damaged)


@given(st.binary(max_size=60))
def test_noise_is_a_data_error_or_a_plain_value(noise):
    with contextlib.suppress(DataError):
        load(b"\x80\x04" + noise + b".")
