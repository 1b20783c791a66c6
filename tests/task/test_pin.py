"""A model of another package runs only when it is the reviewed one, and not a line of it otherwise."""

from __future__ import annotations

import importlib.util
import inspect
import os
import pkgutil
import py_compile
import sys
from importlib import resources
from pathlib import Path
from types import ModuleType

import pytest

from fedfsd import canonical
from fedfsd.config.load import load
from fedfsd.errors import ConfigError, RefusedError
from fedfsd.gate.policy import ModelPin, Policy
from fedfsd.task import package
from fedfsd.task import registry as tasks
from fedfsd.task.forecasting.model import registry
from fedfsd.task.forecasting.window import WindowSpec
from fedfsd.task.pin import installed

pytest_plugins = ["cli.typing_user"]

SOURCE = """
from pathlib import Path
from pydantic import BaseModel
from torch import nn

Path(__file__).with_name("ran").touch()

class Options(BaseModel):
    slope: float = 1.0

class Planted(nn.Module):
    def __init__(self, options, spec):
        super().__init__()
        self.line = nn.Linear(2, spec.future * 2)

ENTRY = (Options, Planted)
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    """An installed package whose model writes a file as soon as it is imported."""
    package = tmp_path / "planted"
    package.mkdir()
    (package / "__init__.py").write_text(
        "from pathlib import Path\nPath(__file__).with_name('ran').touch()\n"
    )
    (package / "model.py").write_text(SOURCE)
    info = tmp_path / "planted_models-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: planted-models\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[fedfsd.models]\nplanted = planted.model:ENTRY\n")
    (info / "RECORD").write_text("planted/__init__.py,,\nplanted/model.py,,\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield package
    for name in ("planted", "planted.model"):
        sys.modules.pop(name, None)


def reviewed(place: Path, **changes: str | None) -> ModelPin:
    sha256 = canonical.sha256((place / "model.py").read_bytes())
    found = {"name": "planted", "distribution": "planted-models", "version": "1.0", "sha256": sha256}
    return ModelPin(**{**found, **changes})


def build(pin: ModelPin):
    return registry.build("planted", {}, WindowSpec(), seed=1, reviewed=pin)


def test_the_reviewed_file_is_run_and_no_other(place):
    (place / "__pycache__").mkdir()  # compiled files, which no hash was made of, are not looked at
    pin = reviewed(place)
    assert type(build(pin)).__name__ == "Planted"
    assert (place / "ran").exists()
    assert "planted" not in sys.modules  # the package's own __init__ was not run


@pytest.mark.parametrize(
    "changes",
    [
        {"distribution": "other-models"},
        {"version": "1.0.1"},
        {"sha256": "0" * 64},
    ],
)
def test_another_than_the_reviewed_one_is_refused_before_it_runs(place, changes):
    with pytest.raises(RefusedError):
        build(reviewed(place, **changes))
    assert not (place / "ran").exists()


def test_a_file_changed_after_the_review_is_refused_before_it_runs(place):
    pin = reviewed(place)
    (place / "model.py").write_text(SOURCE + "\n")
    with pytest.raises(RefusedError):
        build(pin)
    assert not (place / "ran").exists()


def test_a_model_that_the_distribution_does_not_list_is_refused(place):
    (place.parent / "planted_models-1.0.dist-info" / "RECORD").write_text("planted/__init__.py,,\n")
    with pytest.raises(RefusedError):
        build(reviewed(place))
    assert not (place / "ran").exists()


# A whole package.

INIT = """
import sys
from pathlib import Path
(Path(__file__).parents[1] / "ran").touch()
from planted import part          # absolute, of itself
from .inner.deep import DEPTH     # relative, two folders down
"""
CLEAN = SOURCE.replace("Path(__file__).with_name", "Path(__file__).parents[1].joinpath")
WHOLE = {
    "__init__.py": INIT,
    "part.py": "SLOPE = 1\n",
    "inner/__init__.py": "",
    "inner/deep.py": "from .. import part\nDEPTH = part.SLOPE\n",
    "model.py": CLEAN.replace("ENTRY =", "from . import part\nfrom .inner import deep\nENTRY ="),
    "weights.bin": "1 2 3",
}


@pytest.fixture
def whole(place):
    """The same package with several modules and a data file."""
    put(place, WHOLE)
    record(place, *(f"planted/{name}" for name in WHOLE))
    yield place
    if running := package._RUNNING.pop("planted", None):
        running.forget()
    for name in [name for name in sys.modules if name.partition(".")[0] in ("planted", "single")]:
        del sys.modules[name]


def put(place: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(text)


def record(place: Path, *files: str) -> None:
    (place.parent / "planted_models-1.0.dist-info" / "RECORD").write_text(
        "".join(f"{one},,\n" for one in files)
    )


def pinned(place: Path) -> ModelPin:
    """The pin that the command prints."""
    (found,) = [one for _, entry, one in installed() if entry.name == "planted"]
    assert isinstance(found, package.Package)
    pin = reviewed(place).model_dump() | {"sha256": None, "package_sha256": found.sha256}
    return ModelPin(**pin)


def test_a_whole_package_runs_from_the_bytes_that_were_hashed(whole):
    pin = pinned(whole)
    assert not (whole.parent / "ran").exists()
    first = build(pin)
    assert type(first).__name__ == "Planted"
    assert sys.modules["planted.inner.deep"].DEPTH == 1
    assert sys.modules["planted"].__file__ == str(whole / "__init__.py")
    assert "class Planted" in inspect.getsource(type(first))
    assert resources.files("planted").joinpath("weights.bin").read_text() == "1 2 3"
    assert type(build(pin)) is type(first)


def test_the_hash_is_over_all_files_and_written_down(whole):
    found = {f"planted/{name}": canonical.sha256(text.encode()) for name, text in WHOLE.items()}
    (whole / "__pycache__").mkdir()
    (whole / "__pycache__" / "part.cpython-311.pyc").write_text("of no account")
    assert pinned(whole).package_sha256 == canonical.digest(found)


@pytest.mark.parametrize(
    "files",
    [
        {"part.py": "SLOPE = 2\n"},
        {"inner/deep.py": "DEPTH = 1\n"},
        {"weights.bin": "1 2 4"},
        {"more.py": ""},
        {"inner/more.txt": ""},
        {"__pycache__/more.py": ""},
    ],
)
def test_a_changed_or_an_added_file_is_refused_before_anything_runs(whole, files):
    pin = pinned(whole)
    put(whole, files)
    with pytest.raises(RefusedError, match="another hash"):
        build(pin)
    assert not (whole.parent / "ran").exists()


@pytest.mark.parametrize(
    "name",
    ["fast.so", "fast.cpython-311-x86_64-linux-gnu.so", "lib.so.1", "part.pyc", "fast.PYD", "inner/a.dll"],
)
def test_a_compiled_file_is_refused_by_name(whole, name):
    pin = pinned(whole)
    put(whole, {name: ""})
    with pytest.raises(RefusedError, match=Path(name).name):
        build(pin)
    assert not (whole.parent / "ran").exists()


@pytest.mark.parametrize("where", ["out.py", "out", "data.bin", "inner/out.py"])
def test_a_link_is_refused(whole, where, tmp_path):
    pin = pinned(whole)
    target = tmp_path / "elsewhere"
    target.mkdir() if where == "out" else target.write_text("SLOPE = 2\n")
    (whole / where).symlink_to(target)
    with pytest.raises(RefusedError, match="link"):
        build(pin)
    assert not (whole.parent / "ran").exists()


def test_a_package_folder_that_is_a_link_is_refused(whole, tmp_path):
    pin = pinned(whole)
    whole.rename(tmp_path / "elsewhere")
    whole.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RefusedError, match="link"):
        build(pin)


def test_a_pipe_is_refused_and_not_waited_for(whole):
    pin = pinned(whole)
    os.mkfifo(whole / "part2.py")
    with pytest.raises(RefusedError, match="part2"):
        build(pin)


@pytest.mark.parametrize("name", ["planted.pth", "beside.py", "_impl/__init__.py", "fast.abi3.so"])
def test_code_beside_the_package_in_its_distribution_is_refused(whole, name):
    pin = pinned(whole)
    put(whole.parent, {name: ""})
    record(whole, *(f"planted/{one}" for one in WHOLE), name, "../../bin/planted")
    with pytest.raises(RefusedError, match="beside"):
        build(pin)
    assert not (whole.parent / "ran").exists()


def test_a_file_that_changes_after_the_hash_is_not_what_runs(whole):
    put(
        whole,
        {"__init__.py": "from pathlib import Path\nPath(__file__).with_name('part.py').write_text('1/0')\n"},
    )
    build(pinned(whole))
    assert (whole / "part.py").read_text() == "1/0"
    assert sys.modules["planted.part"].SLOPE == 1


def test_a_module_that_appears_after_the_hash_is_not_found(whole):
    build(pinned(whole))
    put(whole, {"later.py": ""})
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("planted.later")
    assert not list(pkgutil.iter_modules(sys.modules["planted"].__path__))


def test_compiled_caches_on_disk_are_never_run(whole):
    pin = pinned(whole)
    evil = whole.parent / "evil.py"
    evil.write_text("SLOPE = 3\n")
    for name in ("part.py", "model.py"):
        py_compile.compile(
            str(evil),
            cfile=importlib.util.cache_from_source(str(whole / name)),
            invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
        )
    assert type(build(pin)).__name__ == "Planted"
    assert sys.modules["planted.part"].SLOPE == 1


def test_another_package_of_that_name_first_on_the_path_is_not_run(whole, tmp_path, monkeypatch):
    pin = pinned(whole)
    put(
        tmp_path / "first",
        {"planted/__init__.py": "1/0", "planted/part.py": "1/0", "planted/model.py": "1/0"},
    )
    monkeypatch.syspath_prepend(tmp_path / "first")  # as a .pth file would
    assert type(build(pin)).__name__ == "Planted"


def test_a_finder_before_ours_is_not_asked(whole, monkeypatch):
    class Evil:
        @staticmethod
        def find_spec(name, path, target=None):
            assert name.partition(".")[0] != "planted"

    pin = pinned(whole)
    monkeypatch.setattr(sys, "meta_path", [Evil, *sys.meta_path])
    build(pin)


@pytest.mark.parametrize("name", ["planted", "planted.part", "planted.not_there"])
def test_a_package_imported_before_from_elsewhere_is_refused(whole, name):
    pin = pinned(whole)
    sys.modules[name] = ModuleType(name)
    with pytest.raises(RefusedError, match="imported before"):
        build(pin)
    assert not (whole.parent / "ran").exists()


def test_a_package_imported_in_the_usual_way_is_refused_afterwards(whole):
    pin = pinned(whole)
    importlib.import_module("planted.part")
    with pytest.raises(RefusedError, match="imported before"):
        build(pin)


def test_a_module_put_in_place_of_a_reviewed_one_is_refused(whole):
    pin = pinned(whole)
    build(pin)
    sys.modules["planted.part"] = ModuleType("planted.part")
    with pytest.raises(RefusedError, match="imported before"):
        build(pin)


def test_a_package_reviewed_anew_replaces_the_earlier_one(whole):
    first = build(pinned(whole))
    put(whole, {"part.py": "SLOPE = 2\n"})
    second = build(pinned(whole))
    assert type(second) is not type(first)
    assert sys.modules["planted.inner.deep"].DEPTH == 2


def test_modules_named_like_installed_ones_shadow_nothing(whole):
    put(
        whole,
        {"json.py": "1/0", "numpy.py": "1/0", "part.py": "import json, numpy\nSLOPE = len(json.dumps(1))\n"},
    )
    build(pinned(whole))
    assert sys.modules["planted.part"].json.__name__ == "json"


@pytest.mark.parametrize("name", ["antigravity", "fedfsd", "numpy"])
def test_a_package_named_like_another_one_is_refused(whole, name):
    info = whole.parent / "planted_models-1.0.dist-info"
    put(whole.parent / name, WHOLE)
    (info / "entry_points.txt").write_text(f"[fedfsd.models]\nplanted = {name}.model:ENTRY\n")
    record(whole, *(f"{name}/{one}" for one in WHOLE))
    with pytest.raises(RefusedError, match=r"another package|imported before"):
        build(pinned(whole) if name == "numpy" else reviewed(whole, sha256=None, package_sha256="0" * 64))
    assert not (whole.parent / "ran").exists()


@pytest.mark.parametrize("files", [(), ("planted/model.py",), ("__editable__.planted.pth",)])
def test_an_editable_install_or_a_namespace_package_is_refused(whole, files):
    pin = pinned(whole)
    record(whole, *files)
    with pytest.raises(RefusedError, match="distribution's files"):
        build(pin)


def test_a_distribution_of_one_module_is_a_package_too(whole):
    info = whole.parent / "planted_models-1.0.dist-info"
    (info / "entry_points.txt").write_text("[fedfsd.models]\nplanted = single:ENTRY\n")
    put(whole.parent, {"single.py": CLEAN})
    record(whole, "single.py", "__pycache__/single.cpython-311.pyc")
    pin = pinned(whole)
    assert pin.package_sha256 == canonical.digest({"single.py": canonical.sha256(CLEAN.encode())})
    put(whole.parent, {"single.py": CLEAN + "\n"})
    with pytest.raises(RefusedError):
        build(pin)
    put(whole.parent, {"single.py": CLEAN})
    assert type(build(pin)).__name__ == "Planted"


def test_of_several_packages_with_one_name_the_reviewed_one_runs(whole):
    pin = pinned(whole)
    info = whole.parent / "zz_other-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: zz-other\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[fedfsd.models]\nplanted = other:ENTRY\n")
    assert type(build(pin)).__name__ == "Planted"


@pytest.mark.parametrize("hashes", [{}, {"sha256": "0" * 64, "package_sha256": "0" * 64}])
def test_a_pin_has_exactly_one_hash(hashes):
    pin = {"name": "planted", "distribution": "planted-models", "version": "1.0", **hashes}
    with pytest.raises(ConfigError):
        load(Policy, {"models": [pin]})


def test_a_pinned_task_is_checked_in_the_same_way(whole):
    info = whole.parent / "planted_models-1.0.dist-info"
    (info / "entry_points.txt").write_text("[fedfsd.tasks]\nplanted = planted.part:make\n")
    put(whole, {"part.py": "SLOPE = 1\n\ndef make(options):\n    return ['made', options]\n"})
    pin = pinned(whole)
    put(whole, {"more.py": ""})
    with pytest.raises(RefusedError):
        tasks.of("planted", {"a": 1}, reviewed=pin)
    (whole / "more.py").unlink()
    assert tasks.of("planted", {"a": 1}, reviewed=pin) == ["made", {"a": 1}]


def test_the_command_prints_what_a_policy_takes(whole, fedfsd, folder):
    said = fedfsd("config", "pins")
    policy = folder / "policy.toml"
    policy.write_text(said.out)
    assert load(Policy, policy).models == (pinned(whole),)
    (whole / "fast.so").touch()
    said = fedfsd("config", "pins")
    assert "fast.so" in said.out
    policy.write_text(said.out)
    assert load(Policy, policy).models == ()
