"""What of a model is trained, and the rest: a frozen public backbone, identified by the hash of its file.

A plan with a backbone lists under ``model.arrays`` the parameters that are trained, in the model's order;
only they cross. Everything else that a model keeps (its other parameters, and the buffers that are saved with
it) is the backbone: one safetensors file as ``packed`` writes it, whose SHA-256 the plan names.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors import torch as safe
from torch import Tensor, nn

from fedfsd import canonical
from fedfsd.errors import ConfigError, NotReadyError, RefusedError
from fedfsd.gate.resident import demand_shareable
from fedfsd.plan.plan import BLOCKS, STATISTICS, Arrays, BackbonePlan, ModelPlan

ALL, NORMS = "all", "norms"
SUFFIX = ".safetensors"
_NORMS = (
    nn.LayerNorm,
    nn.GroupNorm,
    nn.RMSNorm,
    nn.modules.batchnorm._NormBase,
)


def trained(model: nn.Module, wanted: str | Sequence[str]) -> tuple[str, ...]:
    """The names of the parameters that ``wanted`` means (see ``model.trainable``), in the model's order.

    Raises:
        ConfigError: something in it names no parameter.
    """
    names = [name for name, _ in model.named_parameters()]
    chosen: set[str] = set()
    for word in [wanted] if isinstance(wanted, str) else wanted:
        found = _named(model, word, names)
        if not found:
            raise ConfigError(
                "model.trainable",
                got=f"{word!r}, which names no parameter",
                expected=f"{', '.join(_words(model))}, or a pattern of names such as {names[-1]}",
                hint="choose one of them",
            )
        chosen |= found
    if not chosen:
        raise ConfigError(
            "model.trainable", got="an empty list", expected="what is trained", hint='write "all"'
        )
    return tuple(name for name in names if name in chosen or name == STATISTICS)


def freeze(model: nn.Module, names: Iterable[str]) -> None:
    """From now on only the parameters of these names learn."""
    kept = set(names)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in kept)


def still(model: nn.Module) -> None:
    """Training mode, but evaluation mode for every part in which no parameter learns: its buffers stay."""
    model.train()
    for module in model.modules():
        parameters = list(module.parameters())
        if parameters and not any(parameter.requires_grad for parameter in parameters):
            module.eval()


def packed(model: nn.Module, names: Iterable[str]) -> bytes:
    """The file of everything but the parameters ``names``: the same bytes for the same values."""
    tensors = _rest(model, names)
    return safe.save({name: value.detach().cpu().clone().contiguous() for name, value in tensors.items()})


def restore(model: nn.Module, names: Iterable[str], content: bytes, *, place: str) -> None:
    """Put the file ``content`` into ``model``; it may also have parameters of ``names``, to start from.

    Raises:
        ConfigError: no weights, or those of another model.
        RefusedError: a region's own model.
    """
    try:
        demand_shareable(content, place=place)
        given = safe.load(content)
    except (SafetensorError, ValueError, KeyError):
        raise ConfigError(
            place, got="no file of weights", expected="a safetensors file", hint="name another file"
        ) from None
    mine = saved(model)
    missing = sorted(_rest(model, names).keys() - given.keys())
    strange = sorted(given.keys() - mine.keys())
    other = [name for name in given if name in mine and given[name].shape != mine[name].shape]
    for what, found in (
        ("without", missing),
        ("with another shape of", other),
        ("with the unknown", strange),
    ):
        if found:
            raise ConfigError(
                place,
                got=f"weights {what} {found[0]}",
                expected="the weights of the plan's model that are not trained",
                hint="name the weights of this model with these options",
            )
    put(model, given)


def put(model: nn.Module, values: Mapping[str, Tensor]) -> None:
    """Copy ``values`` by name into the model's parameters and saved buffers."""
    with torch.no_grad():
        for name, tensor in saved(model).items():
            if name in values:
                tensor.copy_(values[name])


def put_arrays(model: nn.Module, arrays: Arrays) -> None:
    """The same for arrays that crossed; what is no part of the model is dropped."""
    put(model, {name: torch.from_numpy(np.array(one)) for name, one in arrays.items() if name not in BLOCKS})


def whole(arrays: Arrays, frozen: bytes | None) -> dict[str, Tensor]:
    """All weights of a model for its file: what is trained, and the backbone if there is one."""
    mine = {name: torch.from_numpy(one) for name, one in arrays.items() if name not in BLOCKS}
    return {**({} if frozen is None else safe.load(frozen)), **mine}


def planned(model: nn.Module, names: Sequence[str], content: bytes, *, built: bytes) -> BackbonePlan:
    """The backbone ``content`` for the plan; ``built``: what the model's own code made of it."""
    return BackbonePlan(
        sha256=canonical.sha256(content),
        size=sum(value.numel() for value in _rest(model, names).values()),
        source="model" if content == built else "file",
    )


def fit(model: nn.Module, plan: ModelPlan, files: str | Path) -> None:
    """Make ``model``, as its code made it, the plan's: freeze and fill what is not trained.

    Args:
        files: a file of weights or a folder of them, where the plan's backbone may be.

    Raises:
        RefusedError: the plan's arrays are not the model's, or the model's own weights are others.
        NotReadyError: no file has the plan's hash.
    """
    names = [entry.name for entry in plan.own]
    _demand_schema(model, plan)
    if plan.backbone is None:
        return
    freeze(model, names)
    built = packed(model, names)
    if canonical.sha256(built) == plan.backbone.sha256:
        return
    if plan.backbone.source == "model":
        raise RefusedError(
            "plan.model.backbone",
            got="other weights than the model's own code makes here",
            expected="the reviewed ones",
            hint="compare the versions of both sides",
        )
    restore(model, names, found(files, plan.backbone.sha256), place="plan.model.backbone")


def found(files: str | Path, sha256: str) -> bytes:
    """The file of weights with that hash.

    Raises:
        NotReadyError: there is none.
        RefusedError: it is a region's own model.
    """
    for path in _files(files):
        content = path.read_bytes()
        if canonical.sha256(content) == sha256:
            demand_shareable(content, place=str(path))
            return content
    raise NotReadyError(
        f"backbone {sha256[:16]}",
        got=f"no file with this hash in {Path(files)}" if str(files) else "no folder of backbones",
        expected="the weights file that the plan names by its SHA-256",
        hint="put the coordinator's backbone.safetensors there; compare sha256sum with the policy",
    )


def _files(files: str | Path) -> list[Path]:
    path = Path(files)
    if not str(files):
        return []
    return sorted(path.glob(f"*{SUFFIX}")) if path.is_dir() else [path] if path.is_file() else []


def saved(model: nn.Module) -> dict[str, Tensor]:
    """What a model's file has: every parameter once, and the buffers that are saved with a model."""
    kept = model.state_dict(keep_vars=True).keys()
    buffers = {name: value for name, value in model.named_buffers() if name in kept}
    return {**dict(model.named_parameters()), **buffers}


def _rest(model: nn.Module, names: Iterable[str]) -> dict[str, Tensor]:
    chosen = set(names)
    return {name: value for name, value in saved(model).items() if name not in chosen}


def _named(model: nn.Module, word: str, names: Sequence[str]) -> set[str]:
    """The parameters that one word means."""
    if word == ALL:
        return set(names)
    patterns = parts(model).get(word)
    if patterns is None and word == NORMS:
        return {
            f"{prefix}.{name}" if prefix else name
            for prefix, module in model.named_modules()
            if isinstance(module, _NORMS)
            for name, _ in module.named_parameters(recurse=False)
        } & set(names)
    wanted = [word] if patterns is None else patterns
    return {
        name
        for name in names
        if any(fnmatchcase(name, one) or fnmatchcase(name, f"{one}.*") for one in wanted)
    }


def parts(model: nn.Module) -> Mapping[str, Sequence[str]]:
    """The parts that a model declares as ``parts``: for each word, patterns of parameter names."""
    declared: Mapping[str, Sequence[str]] = getattr(model, "parts", {})
    return declared


def _words(model: nn.Module) -> list[str]:
    """What one may write for this model."""
    tops = {name.partition(".")[0] for name, _ in model.named_parameters()}
    return [f'"{word}"' for word in sorted({ALL, NORMS, *parts(model), *tops})]


def _demand_schema(model: nn.Module, plan: ModelPlan) -> None:
    """The plan's arrays must be this model's: swapped or reshaped ones would be trained as something else."""
    wanted = [(entry.name, entry.shape) for entry in plan.own]
    chosen = {name for name, _ in wanted}
    mine = [(name, tuple(parameter.shape)) for name, parameter in model.named_parameters()]
    if plan.backbone is not None:
        mine = [entry for entry in mine if entry[0] in chosen]
    if mine != wanted:
        raise RefusedError(
            "plan.model.arrays",
            got="other arrays than the model has",
            expected="the names and shapes of the model",
            hint="compare the fedfsd versions of both sides",
        )
