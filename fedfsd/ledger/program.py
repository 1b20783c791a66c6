"""What trains: fedfsd and the packages that compute, hashed as they are installed (FORMAT.md, section 9)."""

from __future__ import annotations

import csv
import hashlib
import json
import re
from collections.abc import Mapping
from contextlib import suppress
from functools import lru_cache
from importlib import metadata
from pathlib import Path

from fedfsd import canonical
from fedfsd.errors import NotReadyError
from fedfsd.ledger import digest
from fedfsd.ledger.entry import Package, Program
from fedfsd.service import cache as caches

COMPUTES = ("cryptography", "numpy", "opacus", "torch")
"""The packages whose code makes a private step: streams, sums, gradients."""
_CODE = re.compile(r"\.(py|pyd|dll|dylib|so(\.[0-9]+)*)$")
CACHE = "packages.json"


def installed(cache: Path | None = None) -> Program:
    """What this process computes with, from the files that are installed now.

    Args:
        cache: a folder for the hashes of files that have not changed since, by default the user's cache. To
            hash torch takes seconds. Whoever can write there can replace the program itself.

    Raises:
        NotReadyError: a package is not installed, or its installer kept no list of its files.
    """
    return _program((cache or caches.folder()) / CACHE)


@lru_cache(maxsize=4)
def _program(path: Path) -> Program:
    known = _cached(path)
    found = {name: _package(name, known.get(name)) for name in COMPUTES}
    if {name: stamped for name, (_, stamped) in found.items()} != known:
        _keep(path, {name: stamped for name, (_, stamped) in found.items()})
    packages = {name: package for name, (package, _) in found.items()}
    return Program(code=digest.code(), version=digest.version(), packages=packages)


def _package(name: str, known: object) -> tuple[Package, dict[str, str]]:
    """A package, and what the cache keeps of it."""
    try:
        found = metadata.distribution(name)
    except metadata.PackageNotFoundError:
        raise NotReadyError(f"package {name}", got="none installed", expected="one that trains") from None
    listed = found.read_text("RECORD")
    if listed is None:
        raise NotReadyError(
            f"package {name}",
            got="no list of its files (RECORD)",
            expected="an installation by pip",
            hint=f"pip install --force-reinstall {name}=={found.version}",
        )
    names = sorted(row[0] for row in csv.reader(listed.splitlines()) if row and _computes(row[0]))
    files = {one: Path(str(found.locate_file(one))) for one in names}
    # A file cannot be changed without its change time: no user can set that back.
    stats = {one: path.stat() for one, path in files.items()}
    stamp = canonical.digest(
        {one: f"{stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns}" for one, stat in stats.items()}
        | {"": str(found.locate_file(""))}
    )
    if isinstance(known, Mapping) and known.get("stamp") == stamp:
        with suppress(ValueError):
            sha256 = Package(version=found.version, sha256=known.get("sha256", "")).sha256
            return Package(version=found.version, sha256=sha256), {"stamp": stamp, "sha256": sha256}
    sha256 = canonical.digest({one: _file(path) for one, path in files.items()})
    return Package(version=found.version, sha256=sha256), {"stamp": stamp, "sha256": sha256}


def _computes(name: str) -> bool:
    """Whether a listed file is code of the package, the same wherever its wheel is installed."""
    return not name.startswith(("/", "..")) and bool(_CODE.search(name))


def _file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _cached(path: Path) -> dict[str, object]:
    try:
        found = json.loads(path.read_bytes()) if caches.is_own(path) else {}
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _keep(path: Path, found: Mapping[str, object]) -> None:
    with suppress(OSError):  # it only saves time
        caches.keep(path, json.dumps(found).encode())
