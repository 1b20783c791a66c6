"""Is this coordinator ready to serve? Each check reports what it found and how to fix it."""

from __future__ import annotations

import datetime
import shutil
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

from fedfsd.border import fitness, identity
from fedfsd.border.doorkeeper import serials
from fedfsd.border.identity import RENEW_DAYS, WARN_DAYS
from fedfsd.coordinator import up
from fedfsd.coordinator.folder import Coordinator
from fedfsd.service import diagnosis, lock
from fedfsd.service.diagnosis import CheckResult, fail, ok, warn
from fedfsd.service.supervise import LOCK

FLOWER = "1.41."
SCRIPTS = ("flower-superlink", "flower-superexec", "flwr-serverapp")
ROOT_DAYS = 180


def examine(coordinator: Coordinator) -> tuple[CheckResult, ...]:
    """Every check, in the order in which an operator would fix things."""
    return diagnosis.diagnose(coordinator, CHECKS)


def disk(coordinator: Coordinator) -> CheckResult:
    """Is there room for updates and receipts?"""
    return diagnosis.disk("disk", coordinator.folder)


def keys(coordinator: Coordinator) -> CheckResult:
    """Are private keys there, and their owner's alone?"""
    expected = f"fedfsd/coordinator/{coordinator.name}"
    if coordinator.key.name != expected:
        return fail("keys", f"the key {coordinator.key.name}", fix=f"restore the key {expected}")
    return diagnosis.private("keys", coordinator.folder, ("ca", "tls", "flower", "regions"))


def root(coordinator: Coordinator) -> CheckResult:
    """How long does the federation's root last?"""
    certificate = identity.read(coordinator.root.read_bytes())
    days = identity.days_left(certificate)
    found = f"{identity.fingerprint(certificate)[:17]}..., {days} days left"
    fix = "a new federation: every region joins again"
    if days < 0:
        return fail("root", found, fix=fix)
    return warn("root", found, fix=fix) if days <= ROOT_DAYS else ok("root", found)


def certificate(coordinator: Coordinator) -> CheckResult:
    """Does it have its own certificate, and for how long is it valid?"""
    return fitness.certificate(
        "certificate",
        coordinator.tls_certificate,
        root=coordinator.root,
        key=coordinator.tls_key,
        party=coordinator.identity,
        fix=f"fedfsd coordinator up renews it below {RENEW_DAYS} days: restart it; check the clock",
    )


def revoked(coordinator: Coordinator) -> CheckResult:
    """Can the list of revoked certificates be read? Without it everybody is refused."""
    try:
        found = serials(coordinator.revoked.read_text(encoding="utf-8"))
    except ValueError:
        return fail(
            "revoked",
            f"{coordinator.revoked} is not a list of serial numbers",
            fix="a serial number in hex at the start of each line",
        )
    return ok("revoked", f"{len(found)} certificates")


def regions(coordinator: Coordinator) -> CheckResult:
    """Whose certificates end soon, and who waits to be confirmed?"""
    joined = coordinator.regions()
    now = datetime.datetime.now(datetime.UTC)
    mine = {name: identity.read((coordinator.region(name) / "region.crt").read_bytes()) for name in joined}
    left = {name: identity.days_left(one, now=now) for name, one in mine.items()}
    over = [f"{name} (expired {identity.ago(mine[name], now)})" for name, days in left.items() if days < 0]
    soon = [f"{name} ({days} days left)" for name, days in left.items() if 0 <= days <= WARN_DAYS]
    waiting = [name for name in coordinator.invited() if _waits(coordinator.region(name))]
    if waiting:
        return warn(
            "regions",
            f"{', '.join(waiting)}: a request is waiting",
            fix=f"fedfsd coordinator invite {waiting[0]} --confirm FINGERPRINT",
        )
    if over or soon:
        return warn(
            "regions", f"certificates: {', '.join(over + soon)}", fix="fedfsd coordinator invite REGION"
        )
    if not joined:
        return warn("regions", "none has joined", fix="fedfsd coordinator invite REGION")
    return ok("regions", ", ".join(joined))


def engine(_: Coordinator) -> CheckResult:
    """Is the Flower that this version was tested with installed?"""
    try:
        version = metadata.version("flwr")
    except metadata.PackageNotFoundError:
        version = "none"
    scripts = Path(sys.executable).parent
    missing = [name for name in SCRIPTS if shutil.which(name, path=str(scripts)) is None]
    if not version.startswith(FLOWER) or missing:
        found = f"flwr {version}" + (f", without {', '.join(missing)}" if missing else "")
        return fail("engine", found, fix=f"pip install 'flwr=={FLOWER}*' in {scripts.parent}")
    return ok("engine", f"flwr {version}")


def ports(coordinator: Coordinator) -> CheckResult:
    """Do the ports answer where it runs, and are they free where it does not?"""
    settings = coordinator.settings
    border = {"port": settings.port, "join_port": settings.join_port}
    if lock.held(coordinator.folder / LOCK):
        silent = [f"{key} {at}" for key, at in border.items() if not up.answers(settings.listen, at)]
        if silent:
            return fail(
                "ports",
                f"{', '.join(silent)} not served",
                fix="fedfsd coordinator status, and log/gate.jsonl",
            )
        return ok("ports", f"served at {settings.listen}")
    if taken := up.taken_ports(settings):
        return fail(
            "ports", f"{', '.join(taken)} not available", fix="choose other ports in coordinator.toml"
        )
    return warn("ports", "free; the coordinator is not running", fix="fedfsd coordinator up")


CHECKS: tuple[Callable[[Coordinator], CheckResult], ...] = (
    disk,
    keys,
    root,
    certificate,
    revoked,
    regions,
    engine,
    ports,
)


def _waits(folder: Path) -> bool:
    """Whether the newest request is younger than the certificate."""
    request, issued = folder / "request.json", folder / "region.crt"
    if not request.exists():
        return False
    return not issued.exists() or request.stat().st_mtime_ns > issued.stat().st_mtime_ns
