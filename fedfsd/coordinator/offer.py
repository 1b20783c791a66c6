"""The plans on offer, as files: ``coordinator run`` writes a plan, the gate hands it to every region in it.

| file | by | what |
|---|---|---|
| offers/<hash>.json | coordinator run | the plan's canonical document; gone when the run is over |
| offers/<hash>/<REGION>.json | this gate | ``{"approved": true, "code": null}``, or why not |
"""

from __future__ import annotations

import json
import logging
import threading
from pathlib import Path

from fedfsd import canonical
from fedfsd.border.wire import MAX_DOCUMENT
from fedfsd.errors import FedfsdError, RefusedError
from fedfsd.ledger.disk import write_whole
from fedfsd.plan import plan as plans
from fedfsd.plan.plan import Plan

APPROVED = "approved"
TOO_OLD = "version"
"""The answer in the place of a region whose release cannot read the plan."""
_LOG = logging.getLogger("fedfsd.coordinator")


class Board:
    """The offers in ``folder``; what was read once is not read again."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._lock = threading.Lock()
        self._known: dict[str, Plan] = {}
        self._strange: set[str] = set()
        self._names: frozenset[str] = frozenset()

    def look(self) -> bool:
        """Read the folder again; whether another set of plans is on offer."""
        names = frozenset(path.stem for path in self._folder.glob("*.json"))
        with self._lock:
            if names == self._names:
                return False
            self._known = {name: plan for name, plan in self._known.items() if name in names}
            for name in names - set(self._known) - self._strange:
                self._read(name)
            self._names = names
            return True

    @property
    def plans(self) -> dict[str, Plan]:
        """What is on offer, by hash."""
        with self._lock:
            return dict(self._known)

    def plan(self, hash: str) -> Plan | None:
        """That plan, if it is on offer still."""
        with self._lock:
            found = self._known.get(hash)
        return found if found is not None and self._path(hash).exists() else None

    def plan_of(self, region: str, hash: str) -> Plan:
        """That plan, if it names the region. RefusedError: it does not, or it is not on offer."""
        found = self.plan(hash)
        if found is None or region not in found.regions:
            raise RefusedError("plan", got="a plan that is not on offer", expected="one that is")
        return found

    def unanswered(self, region: str) -> list[str]:
        """The plans that wait for the region's answer."""
        return [
            hash
            for hash, plan in sorted(self.plans.items())
            if region in plan.regions and self.answer_of(region, hash) is None
        ]

    def is_approved(self, region: str, hash: str) -> bool:
        """Whether the region approved."""
        return self.answer_of(region, hash) == APPROVED

    def answer(self, region: str, hash: str, *, code: str | None) -> None:
        """Write down the region's answer: approved, or refused with a ``code``.

        Raises:
            RefusedError: not a plan that it was offered.
            NotReadyError: the disk is full.
        """
        self.plan_of(region, hash)
        path = self._answer_path(region, hash)
        path.parent.mkdir(exist_ok=True)
        write_whole(path, canonical.encode({"approved": code is None, "code": code}))

    def answer_of(self, region: str, hash: str) -> str | None:
        """``approved``, the code of a refusal, or None before there is an answer."""
        try:
            found = json.loads(self._answer_path(region, hash).read_bytes())
            return APPROVED if found["approved"] is True else str(found["code"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _read(self, name: str) -> None:
        try:
            content = self._path(name).read_bytes()
            if len(content) > MAX_DOCUMENT or canonical.sha256(content) != name:
                raise RefusedError("offer", got="another document", expected="the plan of that hash")
            self._known[name] = plans.read(content.decode())
        except OSError:
            pass  # taken away again
        except (FedfsdError, UnicodeDecodeError):
            self._strange.add(name)
            _LOG.error("bad_offer", extra={"plan": name})

    def _path(self, hash: str) -> Path:
        return self._folder / f"{hash}.json"

    def _answer_path(self, region: str, hash: str) -> Path:
        return self._folder / hash / f"{region}.json"
