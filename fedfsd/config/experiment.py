"""The experiment file: what a researcher writes, and all that a simulated or real run is made from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from fedfsd.config import format_1
from fedfsd.config.load import Frozen, load
from fedfsd.errors import ConfigError
from fedfsd.formats import NEWEST, demand

Mode = Literal["private", "rehearsal", "none"]
Precision = Literal["float32", "bfloat16"]
GradientEngine = Literal["auto", "fast", "hooks"]
Options = dict[str, Any]
REGION_PATTERN = r"^[A-Za-z][A-Za-z0-9_-]{0,31}$"
RegionName = Annotated[str, Field(pattern=REGION_PATTERN)]
Fraction = Annotated[float, Field(gt=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1, le=10**9)]
Turns = Annotated[int, Field(ge=1, le=10**6)]
"""Of what is gone through one by one, rounds and steps; a ledger's entry has room for as many rounds."""


PRETRAINING, OWN = "pretraining", "model"
"""Of ``model.backbone``; anything else is a file."""
_LATER: Mapping[tuple[str, str], Any] = {
    ("audit", "canaries"): 0.0,
    ("model", "trainable"): "all",
    ("model", "backbone"): PRETRAINING,
    ("privacy", "pack_windows"): False,
    ("server", "regions_per_round"): None,
    ("training", "engine"): "auto",
    ("training", "precision"): "float32",
}
"""The keys that format 3 added, each with what its absence means."""


class Data(Frozen):
    """Where the drives are."""

    path: str = "embedded"
    """A table, a folder of tables, or "embedded" for the generated traffic inside the package."""
    regions: list[RegionName] = Field(default_factory=list)
    """The regions that take part; empty: every region of the data."""


class Task(Frozen):
    """What is trained, with options that the task itself validates."""

    name: str = "forecasting"
    """A task of fedfsd, or one from the entry points fedfsd.tasks."""
    options: Options = Field(default_factory=dict)


class Region(Frozen):
    """What differs in one region."""

    roster: Count | None = None
    """N, the public count of training vehicle keys. A simulation may leave it out and count."""
    identity: Literal["physical", "recording"] | None = None
    """What a vehicle key stands for. A simulation may leave it out and ask the data."""
    target_epsilon: Positive | None = None
    local_steps: Turns | None = None
    """Steps of a round in this region; by default those of [training], fewer where speed says so."""
    speed: Positive | None = None
    """How many local steps it makes while others make theirs, relative to them (1 if left out): the
    fastest takes training.local_steps and the others fewer, so that all finish together."""
    device: str | None = None
    policy: str | None = None
    """A policy file (TOML) of the region; without it the default policy."""


class Model(Frozen):
    """Which model, with options that the model itself validates."""

    name: str = "mlp"
    options: Options = Field(default_factory=dict)
    witness_size: Annotated[int, Field(ge=0, le=10_000_000)] = 4096
    trainable: str | list[str] = "all"
    """What the regions train: "all", "norms", a part that the model declares or has under that name, such as
    "head", or a pattern of parameter names ("layers.1.*", "*.bias"); or a list of these. The rest is a frozen
    backbone: public, never sent, without noise."""
    backbone: Annotated[str, Field(min_length=1)] = PRETRAINING
    """Where the weights that are not trained come from: "pretraining" trains them, too, on public data;
    "model" takes them as the model's own code makes them; else a file of weights (.safetensors)."""


class Pretraining(Frozen):
    """Training on public tables before the first round, at no privacy cost."""

    path: str = "public"
    """A table that is synthetic or published, "public" for the embedded one, or "none"."""
    steps: Annotated[int, Field(ge=0)] = 3000
    batch_size: Count = 512
    learning_rate: Positive = 1e-2
    augmentation: Options = Field(default_factory=dict)
    """How the task varies the public examples, with options that the task itself validates."""


class Privacy(Frozen):
    """The promise: per region and vehicle, over the whole run."""

    target_epsilon: Positive = 8.0
    target_delta: Annotated[float, Field(gt=0, lt=1)] = 1e-4
    noise_multiplier: Positive | None = None
    """Set it to fix sigma, the same in every round; otherwise it is calibrated from target_epsilon."""
    noise_schedule: Literal["flat", "by_influence"] = "flat"
    """Calibrated noise is the same in every round, or larger in rounds that move the released model less:
    less noise in the model at the same epsilon."""
    sample_rate: Fraction = 1.0
    max_grad_norm: Annotated[float, Field(ge=1e-6)] = 10.0
    max_noise_std: Positive | None = None
    """Lowers max_grad_norm where noise_multiplier * max_grad_norm would exceed it. For noise that differs by
    round, noise_multiplier is here the flat one that leaves as much noise in the released model."""
    windows_per_vehicle: Count = 8
    pack_windows: bool = False
    """Compute fewer windows that are nobody's. The time of a step then shows roughly how many windows the
    vehicles drawn have, so a real region takes part only where its policy's round_seconds hides that."""
    noise_key: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    """32 bytes in hex; only a rehearsal may fix it."""


class Training(Frozen):
    """What happens inside a region."""

    num_rounds: Turns = 120
    local_steps: Turns = 1
    learning_rate: Positive = 0.03
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0
    schedule: Literal["constant", "cosine"] = "cosine"
    """How the learning rate goes over the rounds."""
    device: str = "auto"
    precision: Precision = "float32"
    """What the model computes in; with "bfloat16", by autocast. Norms, sums and noise are never shortened."""
    engine: GradientEngine = "auto"
    """What computes each vehicle's gradient: "fast": fedfsd's own engine, which refuses a layer that it does
    not know; "hooks": opacus; "auto": the engine, or opacus where the model has a layer unknown to it."""


class Server(Frozen):
    """What happens at the coordinator."""

    strategy: str = "FedAvg"
    """Any strategy of flwr.serverapp, or one from the entry points fedfsd.strategies."""
    options: Options = Field(default_factory=dict)
    quorum: Fraction = 0.5
    """The share of the regions asked whose good updates make a round count."""
    regions_per_round: Count | None = None
    """How many regions are asked in a round; by default all. Which ones is fixed in the plan, by the seed, so
    that each region's rounds, and the noise they need, are known beforehand; each is asked as often as any
    other, but for one round."""
    average_last: Annotated[float, Field(ge=0, le=1)] = 0.5
    """The released model is the mean over this share of the rounds, the last ones; 0: the last alone."""
    round_timeout_seconds: Positive = 600.0
    late_updates: Literal["drop", "use"] = "drop"
    """What becomes of an update after its round's end: "use" adds it to the round in which it comes, with
    its weight divided by 1 + the rounds it is late. The region has spent its budget either way."""
    max_weight: Fraction = 0.5
    """No region's declared weight exceeds this share (where the number of regions allows)."""
    evaluate_every: Count = 1


class Audit(Frozen):
    """What is audited while it runs."""

    canaries: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Synthetic vehicles beside each region's own, as a share of its roster; 0: none. They cost the vehicles
    nothing, and a step about as much time as their share."""


class Resident(Frozen):
    """A region's own model: the shared one, trained on by the region alone, without noise; never to leave."""

    learning_rate: Positive = 3e-3
    """Of Adam."""
    batch_size: Count = 512
    held_out: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """The share of the training vehicles that decide when the training ends."""
    patience: Count = 20
    """It ends after so many epochs in which these vehicles were forecast no better."""
    max_epochs: Count = 400


class Experiment(Frozen):
    """One experiment. Every key has a default but the name."""

    format: Literal[1, 2, 3, 4] = 4
    """Of this file. In a file that says 1, what is left out means what it meant then."""
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
    mode: Mode = "private"
    seed: Annotated[int, Field(ge=0, lt=2**53)] = 1
    """Reaches initialisation, public pre-training and which regions a round asks; never noise or the sampling
    of vehicles."""
    data: Data = Data()
    task: Task = Task()
    regions: dict[RegionName, Region] = Field(default_factory=dict)
    """What differs in single regions."""
    model: Model = Model()
    pretraining: Pretraining = Pretraining()
    privacy: Privacy = Privacy()
    training: Training = Training()
    server: Server = Server()
    audit: Audit = Audit()
    resident: Resident | None = None
    """What each region could make of the model for itself alone: a simulation shows it where this table is
    there. A real region does it with fedfsd region adapt, and tells nobody."""
    track: dict[str, Options] = Field(default_factory=dict)
    """Where the figures go as well, by name of the tracker (mlflow, tensorboard, wandb), with its options. No
    part of what is trained: not in the resolved experiment."""
    sweep: dict[str, list[Any]] = Field(default_factory=dict)
    """Dotted keys with lists of values: the run becomes their product."""

    @model_validator(mode="before")
    @classmethod
    def _with_the_keys_of_today(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        demand("experiment", given.get("format"))
        return format_1.read(given) | {"format": NEWEST["experiment"]}

    @model_validator(mode="after")
    def _noise_key_is_for_rehearsals(self) -> Experiment:
        if self.privacy.noise_key is not None and self.mode != "rehearsal":
            raise ConfigError(
                "privacy.noise_key",
                got=f'a fixed key with mode = "{self.mode}"',
                expected="a secret key of the region",
                hint='delete noise_key, or set mode = "rehearsal"',
            )
        return self

    @classmethod
    def current(cls, key: str) -> str:
        """The dotted key of today for ``key``, which may be one of format 1."""
        return format_1.moved(key)

    @classmethod
    def resolved(cls, document: Mapping[str, Any]) -> Experiment:
        """What ``document`` wrote, in this release or an earlier one. Raises as ``load``."""
        return load(cls, {"format": 1, **document})

    def document(self) -> dict[str, Any]:
        """Every key with its value, as JSON values, in the oldest format that can hold them."""
        found = self.model_dump(mode="json", exclude={"format", "track"})
        if found["resident"] is not None:
            return {"format": NEWEST["experiment"], **found}
        del found["resident"]
        if not _without_later_keys(found):
            return {"format": 3, **found}
        return format_1.write(found) or {"format": 2, **found}


def _without_later_keys(found: dict[str, Any]) -> bool:
    """Take the keys of format 3 out of a resolved experiment, if each means what its absence meant."""
    if any(found[table][key] != value for (table, key), value in _LATER.items()):
        return False
    for table, key in _LATER:
        del found[table][key]
        if not found[table]:
            del found[table]
    return True
