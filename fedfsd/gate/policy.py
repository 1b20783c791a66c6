"""What a region allows at all, whatever a coordinator proposes: a TOML file a data officer can read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from fedfsd.config.experiment import Mode
from fedfsd.config.load import Frozen
from fedfsd.errors import ConfigError, FedfsdError, RefusedError
from fedfsd.language import say
from fedfsd.mechanism.accountant import epsilon_pld
from fedfsd.mechanism.event import delta_fault, delta_warning
from fedfsd.plan.plan import Plan, Sha256

# The models inside fedfsd: their code is in the program's hash that every plan's entry holds.
OWN_MODELS: Mapping[str, tuple[str, ...]] = {
    "forecasting": ("mlp", "gru", "transformer"),
    "camera": ("conv", "pilotnet", "resnet18"),
}
# The same of tasks: each name with its class.
OWN_TASKS: Mapping[str, str] = {
    "forecasting": "fedfsd.task.forecasting.task:Forecasting",
    "camera": "fedfsd.task.camera.task:Camera",
}


class ModelPin(Frozen):
    """A model or task of another package, as it was reviewed: only these bytes are ever run."""

    model_config = ConfigDict(
        json_schema_extra={"oneOf": [{"required": ["sha256"]}, {"required": ["package_sha256"]}]}
    )

    name: Annotated[str, Field(min_length=1, max_length=128)]
    """As plans and the package's entry point call it."""
    distribution: Annotated[str, Field(min_length=1, max_length=128)]
    version: Annotated[str, Field(min_length=1, max_length=64)]
    sha256: Sha256 | None = None
    """Of the one source file that defines it, as installed; or else package_sha256."""
    package_sha256: Sha256 | None = None
    """Over all files of its top-level package, as fedfsd config pins prints it."""

    @model_validator(mode="after")
    def _demand_one_hash(self) -> ModelPin:
        if (self.sha256 is None) == (self.package_sha256 is None):
            raise ValueError("exactly one of sha256 and package_sha256 is needed")
        return self

    @model_serializer(mode="wrap")
    def _as_written(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {key: value for key, value in handler(self).items() if value is not None}


class BackbonePin(Frozen):
    """Frozen public weights that were reviewed: the file of a plan that trains a part of its model."""

    name: Annotated[str, Field(min_length=1, max_length=128)]
    """For people."""
    sha256: Sha256
    """Of the file, as sha256sum prints it."""


class Policy(Frozen):
    """Floors and caps. The defaults are wide enough for the shipped experiments and refuse nonsense."""

    FORMAT: ClassVar[str] = "policy"

    format: Literal[1] = 1
    """Of this file; one without it has format 1."""
    modes: Annotated[tuple[Mode, ...], Field(strict=False)] = ("private",)
    min_noise_multiplier: Annotated[float, Field(gt=0)] = 0.5
    max_epsilon: Annotated[float, Field(gt=0)] = 10.0
    max_delta: Annotated[float, Field(gt=0, lt=1)] = 1e-3
    max_sample_rate: Annotated[float, Field(gt=0, le=1)] = 1.0
    max_grad_norm: Annotated[float, Field(gt=0)] = 10.0
    roster: Annotated[int, Field(ge=1)] | None = None
    """N, as the operator declares it; a plan must state the same. Only a simulation may leave it out."""
    identity: Literal["physical", "recording"] | None = None
    """What this region's vehicle keys identify; a plan must state the same."""
    max_roster: Annotated[int, Field(ge=1)] = 10_000_000
    max_windows_per_vehicle: Annotated[int, Field(ge=1)] = 1024
    min_witness_size: Annotated[int, Field(ge=0)] = 1024
    """Without a noise witness block nobody can tell that noise was added."""
    max_canary_share: Annotated[float, Field(ge=0, le=1)] = 0.25
    """Synthetic vehicles per vehicle of the roster: they cost no privacy, but time."""
    max_steps: Annotated[int, Field(ge=1)] = 100_000
    max_rounds: Annotated[int, Field(ge=1)] = 10_000
    max_release_bytes: Annotated[int, Field(ge=1)] = 500_000_000
    max_inbound_magnitude: Annotated[float, Field(gt=0)] = 1e4
    round_seconds: Annotated[float, Field(ge=0, le=86_400)] = 0.0
    """A release leaves no earlier than this after its round began, so that its time says nothing."""
    approve: Literal["by hand", "within policy"] = "by hand"
    """Whether plans within policy and grant are approved by themselves."""
    models: Annotated[tuple[ModelPin, ...], Field(strict=False)] | None = ()
    """Reviewed models of other packages, beside those of fedfsd; null, for any, in a simulation only."""
    tasks: Annotated[tuple[ModelPin, ...], Field(strict=False)] | None = ()
    """The same of tasks. The pin of a task covers the models that its own package has."""

    backbones: Annotated[tuple[BackbonePin, ...], Field(strict=False)] | None = ()
    """Files of frozen weights that plans may name; null, for any, in a simulation only."""

    def pin(self, model: str, task: str) -> ModelPin | None:
        """What was reviewed of a model of another package; None for fedfsd's own and for unknown ones."""
        if task in OWN_TASKS and model in OWN_MODELS.get(task, ()):
            return None
        named = next((one for one in self.models or () if one.name == model), None)
        return named or self.pin_task(task)

    def pin_task(self, task: str) -> ModelPin | None:
        """What was reviewed of a task of another package; None for fedfsd's own and for unknown ones."""
        own = task in OWN_TASKS
        return None if own else next((one for one in self.tasks or () if one.name == task), None)

    def demand(self, plan: Plan, region: str) -> None:
        """RefusedError with every objection, or nothing."""
        reasons = objections(self, plan, region)
        if reasons:
            raise RefusedError(
                f"plan for {region}",
                got="; ".join(reasons),
                expected="a plan within the region's policy",
                hint="fedfsd plan shows what the policy accepts",
            )


def declared(policy: Policy, place: str, *, test_only: bool = False) -> Policy:
    """The policy of a real region, read from ``place``; one that only tests also rehearses.

    Raises:
        ConfigError: it does not declare roster and identity, or takes more than mode private.
    """
    modes: tuple[Mode, ...] = ("private",)
    for key, holds, expected in (
        ("roster", policy.roster is not None, "the number of training vehicle keys"),
        ("identity", policy.identity is not None, "physical or recording"),
        ("modes", policy.modes == modes, '["private"]'),
    ):
        if not holds:
            raise ConfigError(
                f"{place}: {key}",
                got="nothing" if getattr(policy, key) is None else list(policy.modes),
                expected=expected,
                hint=f"declare {key} in the region's policy",
            )
    return policy.model_copy(update={"modes": (*modes, "rehearsal")}) if test_only else policy


def simulated(policy: Policy) -> Policy:
    """The policy of a simulated region: any mode, model, task and frozen weights, no witness needed."""
    return policy.model_copy(
        update={
            "modes": ("private", "rehearsal", "none"),
            "min_witness_size": 0,
            "models": None,
            "tasks": None,
            "backbones": None,
        }
    )


def unreviewed(plan: Plan, *, model: ModelPin | None, task: ModelPin | None) -> list[str]:
    """Which code that the plan names nobody looked at, given the pins of its model and task."""
    found = []
    own = plan.task.name in OWN_TASKS
    if not own and task is None:
        found.append("its task is neither built in nor listed under tasks in the policy")
    if not (own and plan.model.name in OWN_MODELS.get(plan.task.name, ())) and model is None:
        found.append("its model is neither built in nor listed under models in the policy")
    return found


def _unlisted(plan: Plan, listed: set[str]) -> list[str]:
    """Frozen weights that nobody looked at; those that the model's own reviewed code makes were."""
    frozen = plan.model.backbone
    if frozen is None or frozen.source == "model" or frozen.sha256 in listed:
        return []
    return [f"its backbone {frozen.sha256[:16]} is not listed under backbones in the policy"]


def code_objections(policy: Policy, plan: Plan) -> list[str]:
    """What of the plan's code and frozen weights nobody reviewed for this region."""
    found = []
    if policy.models is not None or policy.tasks is not None:
        model = policy.pin(plan.model.name, plan.task.name)
        found += unreviewed(plan, model=model, task=policy.pin_task(plan.task.name))
    if policy.backbones is not None:
        found += _unlisted(plan, {one.sha256 for one in policy.backbones})
    return found


def warnings(plan: Plan, region: str) -> list[str]:
    """What a region's people should know of a plan that its policy may accept."""
    mine = plan.region(region)
    said = [None if plan.mode == "none" else delta_warning(mine.target_delta, mine.roster)]
    if plan.collects(plan.round_of(region, 1)):
        said.append(
            "its first round releases noised second moments of features and their cross moments with what "
            "the model misses, not gradients"
        )
    return [one for one in said if one]


def objections(policy: Policy, plan: Plan, region: str) -> list[str]:
    """Why this region would refuse the plan; empty when it accepts. One sentence a rule."""
    mine = plan.region(region)
    caps = [
        ("roster", mine.roster, policy.max_roster),
        ("canaries per vehicle", (mine.canaries - 1) / mine.roster, policy.max_canary_share),
        ("windows_per_vehicle", mine.windows_per_vehicle, policy.max_windows_per_vehicle),
        ("sample_rate", mine.sample_rate, policy.max_sample_rate),
        ("steps", mine.local_steps * plan.rounds_of(region), policy.max_steps),
        ("num_rounds", plan.rounds_of(region), policy.max_rounds),
        ("bytes of a release", 4 * plan.model.size, policy.max_release_bytes),
    ]
    found = []
    if plan.mode not in policy.modes:
        found.append(say("mode {mode} is not among {modes}", mode=plan.mode, modes=", ".join(policy.modes)))
    if policy.roster not in (None, mine.roster):
        found.append(say("roster {roster} is not the declared one", roster=mine.roster))
    if policy.identity not in (None, mine.identity):
        found.append(say("identity {identity} is not the declared one", identity=mine.identity))
    found += code_objections(policy, plan)
    if plan.model.witness_size < policy.min_witness_size:
        found.append(
            say(
                "witness_size {size} is below the floor {floor}",
                size=plan.model.witness_size,
                floor=policy.min_witness_size,
            )
        )
    if plan.mode != "none":
        caps += [("target_delta", mine.target_delta, policy.max_delta)]
        found += filter(None, [delta_fault(mine.target_delta, mine.roster)])
        if mine.noise is None:
            found.append(say("it does not clip"))
        else:
            found += mine.noise.objections(
                min_noise_multiplier=policy.min_noise_multiplier,
                max_grad_norm=policy.max_grad_norm,
            )
    if mine.packed and not policy.round_seconds and "none" not in policy.modes:  # that is a simulation's
        found.append(say("it packs windows, and round_seconds, which would hide the time that takes, is 0"))
    found += [
        say("{name} {value:g} is above the cap {cap:g}", name=name, value=value, cap=cap)
        for name, value, cap in caps
        if value > cap
    ]
    if found or plan.mode == "none":
        return found
    # Only for constants within floors and caps: for others it may take for ever.
    return _epsilon_objections(policy, plan, region)


def _epsilon_objections(policy: Policy, plan: Plan, region: str) -> list[str]:
    """The plan's own epsilon is the coordinator's word: the region computes it again."""
    mine = plan.region(region)
    try:
        epsilon = epsilon_pld(plan.events(region), mine.target_delta)
    except FedfsdError as error:
        return [say("epsilon cannot be computed ({code})", code=error.code)]
    found = []
    if epsilon > policy.max_epsilon:
        found.append(
            say("epsilon {epsilon:.3g} is above the cap {cap:g}", epsilon=epsilon, cap=policy.max_epsilon)
        )
    if plan.mode == "private" and (mine.epsilon is None or abs(mine.epsilon - epsilon) > 1e-6):
        found.append(
            say(
                "epsilon is stated as {stated}, but it is {epsilon:.6g}", stated=mine.epsilon, epsilon=epsilon
            )
        )
    return found
