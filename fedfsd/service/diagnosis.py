"""What a doctor finds: small checks, each with a name, what was found, and the fix.

>>> for one in diagnose(3, [lambda count: ok("count", count), lambda _: fail("sum", "odd", fix="add one")]):
...     print(one.check, one.outcome, one.found, one.fix)
count ok 3 None
sum fail odd add one
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

from fedfsd.errors import FedfsdError, PendingError

T = TypeVar("T")
LITTLE_BYTES, FEW_BYTES = 2_000_000_000, 200_000_000


@dataclass(frozen=True)
class CheckResult:
    """What came of one check."""

    check: str
    outcome: Literal["ok", "waits", "warn", "fail"]
    found: str
    fix: str | None = None


def ok(check: str, found: object) -> CheckResult:
    """As it should be."""
    return CheckResult(check, "ok", str(found))


def waits(check: str, found: object, *, fix: str | None = None) -> CheckResult:
    """Not there yet, and nothing is wrong: it comes by itself, or after another check is ok."""
    return CheckResult(check, "waits", str(found), fix)


def warn(check: str, found: object, *, fix: str) -> CheckResult:
    """It works, and somebody should do something."""
    return CheckResult(check, "warn", str(found), fix)


def fail(check: str, found: object, *, fix: str) -> CheckResult:
    """It does not work, or does not keep what it promises."""
    return CheckResult(check, "fail", str(found), fix)


def diagnose(subject: T, checks: Iterable[Callable[[T], CheckResult]]) -> tuple[CheckResult, ...]:
    """Every check on ``subject``; one that is refused fails, or waits, with what the refusal says."""
    return tuple(_tried(subject, check) for check in checks)


def disk(check: str, folder: Path) -> CheckResult:
    """Room on the disk of ``folder``."""
    free = shutil.disk_usage(folder).free
    found = f"{free / 1e9:.1f} GB free at {folder}"
    fix = "make room: models, updates and the ledger are kept there"
    if free < FEW_BYTES:
        return fail(check, found, fix=fix)
    return warn(check, found, fix=fix) if free < LITTLE_BYTES else ok(check, found)


def private(check: str, folder: Path, names: Iterable[str], *, shut: int = 0o077) -> CheckResult:
    """Whether the files in the folders ``names`` are their owner's alone, who owns those folders too.

    ``folder`` itself must have none of the permissions ``shut``.
    """
    if folder.stat().st_mode & shut:
        return fail(check, f"{folder} is open to others", fix=f"chmod go= {folder}")
    folders = [folder / name for name in names]
    files = [path for folder in folders if folder.exists() for path in folder.rglob("*") if path.is_file()]
    open_to_others = [path for path in files if path.stat().st_mode & 0o077]
    if open_to_others:
        first = open_to_others[0]
        return fail(
            check,
            f"{len(open_to_others)} files readable by others, such as {first}",
            fix=f"chmod -R go= {first.parent}",
        )
    strange = [path for path in files if path.stat().st_uid != path.parent.stat().st_uid]
    if strange:
        owner = strange[0].parent.stat().st_uid
        return fail(
            check,
            f"{len(strange)} files of another user, such as {strange[0]}",
            fix=f"chown {owner} {strange[0]}",
        )
    return ok(check, f"{len(files)} files, readable by their owner only")


def can_read(path: Path) -> bool:
    """Whether this process can read ``path``, or look into it."""
    # Not path.is_dir(), which raises below a folder that may not be entered.
    return os.access(path, os.R_OK | (os.X_OK if os.path.isdir(path) else 0))


def _tried(subject: T, check: Callable[[T], CheckResult]) -> CheckResult:
    name = check.__name__.strip("_").replace("_", " ")
    try:
        return check(subject)
    except PendingError as error:
        return waits(name, error.got, fix=error.hint)
    except FedfsdError as error:
        found = error.place if error.got is None else f"{error.place}: {error.got}"
        return fail(name, found, fix=error.hint or f"expected {error.expected}")
    except OSError as error:
        return fail(name, f"{error.filename}: {error.strerror}", fix="check the path and its permissions")
