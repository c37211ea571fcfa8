"""The models of a campaign file. The same models build a campaign in Python."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_serializer, model_validator

Tree = Any
"""A part of the campaign file in which any value may be a distribution."""


class Model(BaseModel):
    """Frozen, and strict about unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class Named(Model):
    """Something that is chosen by name: `cosine`, or `{cosine: {warmup: 0.1}}`."""

    name: str
    arguments: dict[str, Any] = {}

    @model_validator(mode="before")
    @classmethod
    def _from_short_form(cls, value: Any) -> Any:
        if isinstance(value, str):
            return {"name": value}
        if isinstance(value, dict) and len(value) == 1:
            ((name, arguments),) = value.items()
            if isinstance(arguments, dict) or arguments is None:
                return {"name": name, "arguments": arguments or {}}
        if isinstance(value, dict) and set(value) <= {"name", "arguments"}:
            return value
        raise ValueError(f"must be a name, or a mapping of one name to its arguments, but got {value!r}")

    @model_serializer
    def _short_form(self) -> Any:
        return {self.name: self.arguments} if self.arguments else self.name


class TaskSpec(Model):
    """What is learned, and by what network."""

    dataset: str
    data_dir: Path | None = None
    dataset_args: dict[str, Any] = {}
    network: str
    network_args: dict[str, Any] = {}
    loss: Named | None = None


class TrainingSpec(Model):
    """How the network is trained between its changes."""

    epochs: int = Field(ge=1)
    batch_size: int = Field(128, ge=1)
    optimizer: Named = Named(name="sgd", arguments={"lr": 0.1, "momentum": 0.9})
    lr_schedule: Named = Named(name="constant")
    augment: bool = True
    gradient_clip: float | None = Field(None, gt=0)
    ema: float | None = Field(None, gt=0, lt=1)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["float32", "bfloat16"] = "float32"
    compile: bool = False
    checkpoint_every: int = Field(1, ge=1)


class LimitSpec(Model):
    """How far an adaptation may go: parameters and FLOPs of the whole network, width as a multiple of an element's seed size."""

    parameters: float | None = Field(None, gt=0)
    flops: float | None = Field(None, gt=0)
    width: float | None = Field(None, ge=1)


class AdaptationSpec(Model):
    """When, where and how the network grows or shrinks, and by how much. Written as `grow: {...}` or `prune: {...}`."""

    kind: Literal["grow", "prune"]
    when: Named
    where: Named = Named(name="all")
    how: Named
    amount: int | float | str | dict[str, Any]
    limit: LimitSpec = LimitSpec()
    elements: tuple[str, ...] = ()
    removal: Named = Named(name="immediate")
    minimum: int = Field(1, ge=1)

    @model_validator(mode="before")
    @classmethod
    def _from_short_form(cls, value: Any) -> Any:
        if isinstance(value, dict) and len(value) == 1 and next(iter(value)) in ("grow", "prune"):
            ((kind, content),) = value.items()
            return {"kind": kind, **(content or {})}
        return value

    @model_serializer(mode="wrap")
    def _short_form(self, handler: Any) -> Any:
        content = handler(self)
        return {content.pop("kind"): content}


class TrialSpec(Model):
    """One trial, with every value decided.

    `label` marks a trial that is not part of the search (`static`, `big`); `architecture` is the checkpoint whose
    architecture the trial starts from, freshly initialised.
    """

    task: TaskSpec
    training: TrainingSpec
    adaptations: tuple[AdaptationSpec, ...] = ()
    seed: int = 0
    label: str | None = None
    architecture: Path | None = None


class SearchSpec(Model):
    """How the campaign searches."""

    sampler: Named = Named(name="random")
    trials: int = Field(1, ge=1)
    metric: str = "val_accuracy"
    mode: Literal["max", "min"] = "max"
    also: dict[str, Literal["max", "min"]] = Field({}, alias="and")
    trial_scheduler: Named = Field(Named(name="none"), alias="scheduler")
    max_concurrent: int | None = Field(None, ge=1)
    seed: int = 0


class ResourcesSpec(Model):
    """What one trial gets."""

    gpus: int = Field(0, ge=0)
    cpus: int = Field(1, ge=1)
    cpus_per_gpu: int = Field(1, ge=1)
    nodes: int = Field(1, ge=1)
    hours: float | None = Field(None, gt=0)


class CompareSpec(Model):
    """What the best network is compared with after the search: `static` trains its final architecture from scratch, `big` the
    task's network with these arguments changed.
    """

    static: bool = False
    big: dict[str, Any] | None = None


class CampaignSpec(Model):
    """A campaign file. `task`, `training` and `adaptations` may hold distributions anywhere."""

    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    root: Path = Path("runs")
    task: Tree
    training: Tree
    adaptations: Tree = []
    search: SearchSpec = SearchSpec()
    compare: CompareSpec = CompareSpec()
    resources: ResourcesSpec = ResourcesSpec()
    placement: Named = Named(name="local")
    body: str = "coppice.orchestrator.trial.trial:Trial"
    seed: int = 0
