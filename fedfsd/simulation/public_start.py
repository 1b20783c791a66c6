"""Public pre-training, or what it led to before: kept by the hash of all that went into it.

A file is the SHA-256 of its content, then the content: the model's weights as ``engine.backbone`` packs them.
One that does not fit its hash, or that another user could have written, is computed anew. Everything here
comes from public tables; the folder may be deleted at any moment.
"""

from __future__ import annotations

import hashlib
import logging
import platform
import sys
import sysconfig
import time
from collections.abc import Sequence
from contextlib import suppress
from importlib import metadata
from pathlib import Path

import torch
from torch import nn

from fedfsd import canonical
from fedfsd.config.experiment import Experiment
from fedfsd.drive import table
from fedfsd.drive.table import Table
from fedfsd.engine import backbone
from fedfsd.engine.pretraining import pretrain
from fedfsd.ledger import digest
from fedfsd.plain_text import plain
from fedfsd.service import cache
from fedfsd.task.task import Task

WORTH_SECONDS = 1.0
"""What took less is not kept."""
MOST_BYTES = 2**30
"""The room for all that is kept; what was not used for longest goes first."""
_INSTALLED = frozenset(("site-packages", "dist-packages"))
_HASH = hashlib.sha256().digest_size
_PROGRESS = logging.getLogger("fedfsd.progress")


def start(model: nn.Module, task: Task, public: Sequence[Table], experiment: Experiment) -> None:
    """Pre-train ``model`` in place as the experiment says, or fill in what that led to before.

    Raises:
        DataError: as of ``pretrain``.
    """
    path = cache.folder() / "starts" / _inputs(model, task, public, experiment)
    kept = _read(path)
    if kept is not None:
        _PROGRESS.info("public pre-training: as in an earlier run (%s)", plain(path))
        backbone.restore(model, (), kept, place=str(path))
        return
    begun = time.monotonic()
    pretrain(model, task, public, experiment.pretraining, seed=experiment.seed)
    if time.monotonic() - begun >= WORTH_SECONDS:
        _keep(path, backbone.packed(model, ()))


def _inputs(model: nn.Module, task: Task, public: Sequence[Table], experiment: Experiment) -> str:
    """The hash of what the outcome depends on: weights, data, settings, code, and how this machine adds."""
    return canonical.digest(
        {
            "model": canonical.sha256(backbone.packed(model, ())),
            "learns": [name for name, one in model.named_parameters() if one.requires_grad],
            "chosen": experiment.model.model_dump(mode="json", include={"name", "options"}),
            "task": {task.name: task.options},
            "pretraining": experiment.pretraining.model_dump(mode="json", exclude={"path"}),
            "seed": str(experiment.seed),
            "tables": [table.digest(public), *(one.origin for one in public)],
            "fedfsd": digest.code(),
            "packages": sorted(f"{one.name} {one.version}" for one in metadata.distributions()),
            "other code": _other_code(),
            "machine": [platform.machine(), torch.backends.cpu.get_cpu_capability(), torch.get_num_threads()],
        }
    )


def _other_code() -> dict[str, str]:
    """The hash of each imported file that no installer put where it is, such as a plug-in in work."""
    library = sysconfig.get_paths()["stdlib"]
    found = {}
    for name, module in list(sys.modules.items()):
        file = Path(getattr(module, "__file__", None) or "")
        installed = file.is_relative_to(library) or not _INSTALLED.isdisjoint(file.parts)
        own = name.partition(".")[0] in ("fedfsd", "__main__", "__mp_main__")
        if not installed and not own and file.is_file():
            found[name] = canonical.sha256(file.read_bytes())
    return found


def _read(path: Path) -> bytes | None:
    """What is kept, if it is whole and nobody else's; its time of use is renewed."""
    with suppress(OSError):
        if cache.is_own(path):
            content = path.read_bytes()
            if hashlib.sha256(content[_HASH:]).digest() == content[:_HASH]:
                path.touch()
                return content[_HASH:]
    return None


def _keep(path: Path, content: bytes) -> None:
    """Keep it for later runs, and make room; where that is impossible, nothing is kept."""
    with suppress(OSError):
        cache.keep(path, hashlib.sha256(content).digest() + content)
        room = MOST_BYTES
        for other in sorted(path.parent.iterdir(), key=lambda one: one.stat().st_mtime, reverse=True):
            room -= other.stat().st_size
            if room < 0:
                other.unlink()
