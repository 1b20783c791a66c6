"""An installed package that is hashed as a whole, and run from exactly the bytes that were hashed.

The hash is over every file below the package's folder but ``__pycache__/*.pyc``: a JSON object (RFC 8785) of
each file's path, as ``package/module.py``, to its SHA-256. Imports of the package, by itself or by others,
are answered from memory. Its code can still read its data files from disk, where nothing checks them again.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.abc import ExecutionLoader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.metadata import EntryPoint
from importlib.readers import FileReader
from importlib.util import decode_source
from pathlib import Path, PurePosixPath
from types import CodeType, ModuleType, SimpleNamespace
from typing import Any

from fedfsd import canonical
from fedfsd.errors import RefusedError

_COMPILED = {".so", ".pyd", ".dll", ".dylib", ".pyc", ".pyo"}
_CODE = {".py", ".pth", *_COMPILED}


@dataclass(frozen=True)
class Package:
    """The files of one top-level package or module, each read once."""

    name: str
    parent: Path
    """The folder that the package's folder, or its one file, lies in."""
    files: Mapping[str, str]
    """SHA-256 by path below ``parent``."""
    sources: Mapping[str, bytes]
    """The Python files among them: what is run."""

    @property
    def sha256(self) -> str:
        """The hash that a policy names."""
        return canonical.digest(dict(self.files))


def read(entry: EntryPoint) -> Package:
    """Read and hash the top-level package behind ``entry``; nothing of it is imported.

    Raises:
        RefusedError: it cannot be hashed and run as a whole. It is no wheel's (an editable install, a
            namespace package), it has compiled files or links, or its distribution has code beside it.
    """
    name = entry.module.partition(".")[0]
    listed = {file.as_posix(): file for file in (entry.dist and entry.dist.files) or ()}
    folder, single = listed.get(f"{name}/__init__.py"), listed.get(f"{name}.py")
    start = folder or single
    if start is None:
        raise _refused(
            name,
            got=f"neither {name}/__init__.py nor {name}.py among the distribution's files",
            hint="install it from a wheel, not editable; a namespace package cannot be pinned",
        )
    if name in sys.stdlib_module_names or name == "fedfsd":
        raise _refused(name, got="the name of another package", hint="name it otherwise")
    _demand_alone(name, PurePosixPath(start), listed)
    top = Path(str(start.locate()))
    parent = top.parent.parent if folder else top.parent
    files: dict[str, str] = {}
    sources: dict[str, bytes] = {}
    for path in _walk(parent / name, name) if folder else _checked([top], name):
        key = path.relative_to(parent).as_posix()
        if path.suffix == ".py":
            sources[key] = path.read_bytes()
            files[key] = canonical.sha256(sources[key])
        else:
            with path.open("rb") as stream:
                files[key] = hashlib.file_digest(stream, "sha256").hexdigest()
    return Package(name, parent, files, sources)


def module(package: Package, name: str) -> ModuleType:
    """Import the module ``name`` of ``package`` from the bytes in memory, once a process.

    Raises:
        RefusedError: a module of the package was imported before, from elsewhere.
    """
    running = _RUNNING.setdefault(package.name, _Importer(package))
    if running.package.files != package.files:  # reviewed anew: the earlier bytes are not imported again
        running.forget()
        running = _RUNNING[package.name] = _Importer(package)
    for other, found in _modules(package.name):
        if getattr(getattr(found, "__spec__", None), "loader", None) is not running:
            raise _refused(
                package.name,
                got=f"{other} imported before, from elsewhere",
                hint="start a process that has not imported the package",
            )
    running.come_first()
    return import_module(name)


class _Importer(MetaPathFinder, ExecutionLoader):
    """Finds and loads the modules of one package in memory, and lets no other finder do it."""

    def __init__(self, package: Package) -> None:
        self.package = package

    def come_first(self) -> None:
        """Be asked before every other finder."""
        sys.meta_path[:] = [self, *(finder for finder in sys.meta_path if finder is not self)]

    def forget(self) -> None:
        """Take the package's modules out of the process's list."""
        sys.meta_path[:] = [finder for finder in sys.meta_path if finder is not self]
        for name, found in _modules(self.package.name):
            if getattr(getattr(found, "__spec__", None), "loader", None) is self:
                del sys.modules[name]

    def find_spec(self, fullname: str, *_: object) -> ModuleSpec | None:
        """Only for the package's own names; ModuleNotFoundError for those it does not have."""
        if fullname.partition(".")[0] != self.package.name:
            return None
        key = self._key(fullname)
        # No search path: whoever looks for modules of the package on disk finds none.
        spec = ModuleSpec(fullname, self, origin=str(self.package.parent / key))
        spec.has_location = True
        if self.is_package(fullname):
            spec.submodule_search_locations = []
        return spec

    def get_filename(self, fullname: str) -> str:
        return str(self.package.parent / self._key(fullname))

    def get_source(self, fullname: str) -> str:
        return decode_source(self.package.sources[self._key(fullname)])

    def get_code(self, fullname: str) -> CodeType:
        return self.source_to_code(self.package.sources[self._key(fullname)], self.get_filename(fullname))

    def is_package(self, fullname: str) -> bool:
        return self._key(fullname).endswith("/__init__.py")

    def get_data(self, path: str) -> bytes:
        """A data file, as ``pkgutil.get_data`` asks for it: from disk, like every other data file."""
        return Path(path).read_bytes()

    def get_resource_reader(self, fullname: str) -> Any:
        """Data files, as ``importlib.resources`` asks for them."""
        place: Any = SimpleNamespace(path=self.get_filename(fullname))
        return FileReader(place)

    def _key(self, fullname: str) -> str:
        """The file of the module ``fullname``; a folder comes before a file, as everywhere in Python."""
        stem = fullname.replace(".", "/")
        for key in (f"{stem}/__init__.py", f"{stem}.py"):
            if key in self.package.sources:
                return key
        raise ModuleNotFoundError(
            f"{fullname} is not among the reviewed files of {self.package.name}", name=fullname
        )


_RUNNING: dict[str, _Importer] = {}


def _modules(name: str) -> list[tuple[str, Any]]:
    """The imported modules of a package, with their names."""
    return [(one, found) for one, found in sys.modules.items() if one.partition(".")[0] == name]


def _demand_alone(name: str, start: PurePosixPath, listed: Mapping[str, object]) -> None:
    """A distribution's second package, or its .pth file, would be run without a hash."""
    for path in map(PurePosixPath, listed):
        first = path.parts[0]
        mine = path == start or (first == name and start.name == "__init__.py")
        if mine or first == ".." or first.endswith(".dist-info") or "__pycache__" in path.parts:
            continue
        if _is(path.name, _CODE):
            raise _refused(name, got=f"code beside it in its distribution: {path}")


def _walk(folder: Path, name: str) -> Iterator[Path]:
    """Every file below ``folder`` that counts, each checked."""
    if folder.is_symlink():
        raise _refused(name, got="a link in place of its folder")
    for where, folders, files in os.walk(folder, onerror=_raise):
        place = Path(where)
        links = [place / one for one in folders if (place / one).is_symlink()]
        cached = place.name == "__pycache__"
        counted = [place / one for one in files if not (cached and one.endswith(".pyc"))]
        yield from _checked([*links, *counted], name)


def _checked(paths: Sequence[Path], name: str) -> Iterator[Path]:
    for path in paths:
        # A link's target can change without a file of the package changing.
        if path.is_symlink() or not path.is_file():
            raise _refused(name, got=f"{path.name}, a link or no regular file")
        if _is(path.name, _COMPILED):
            raise _refused(name, got=f"{path.name}, a compiled file, which nobody can review")
        if not path.name.isprintable():
            raise _refused(name, got="a file name that cannot be printed")
        yield path


def _is(name: str, suffixes: set[str]) -> bool:
    """Whether a file of that name has one of the suffixes anywhere, as in ``lib.so.1``."""
    return any(suffix in suffixes for suffix in PurePosixPath(name.lower()).suffixes)


def _raise(error: OSError) -> None:
    raise error


def _refused(
    name: str,
    *,
    got: str,
    hint: str = "ask its authors for a wheel of plain Python files, all in one package",
) -> RefusedError:
    return RefusedError(
        f"package {name}", got=got, expected="a package that can be reviewed as a whole", hint=hint
    )
