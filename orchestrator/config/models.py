"""The models of a campaign file. The same models build a campaign in Python."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, StringConstraints, model_serializer, model_validator
from pydantic_core import PydanticCustomError

from coppice.orchestrator.config.base import Model, Number, Truth, Whole, like_an_amount, not_empty
from coppice.orchestrator.config.place import Place, with_places
from coppice.orchestrator.config.placement import LocalPlacement, Placement
from coppice.scheduler.metrics import Mode, known_mode, mode_is_missing

Tree = Any
"""A part of the campaign file in which any value may be a distribution."""


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
    """One of our data sets, or `package.module:attribute` of a function that returns a `coppice.Dataset`."""
    data_dir: Place | None = None
    """Folder with the data set's files, for those that have any; `~` and `$VARIABLES` are replaced."""
    dataset_args: dict[str, Any] = {}
    """Arguments of the data set; `limit_train` and `limit_eval` cut any of them down."""
    network: str
    """One of our networks, or `package.module:attribute` of a function that returns a module."""
    network_args: dict[str, Any] = {}
    """Arguments of the network; those that the data decides are filled in."""
    loss: Named | None = None
    """Of a batch; by default the one that suits the data. `package.module:attribute` for your own."""


class TrainingSpec(Model):
    """How the network is trained between its changes."""

    epochs: Whole = Field(ge=1)
    """Passes over the training data."""
    batch_size: Whole = Field(128, ge=1)
    """Samples a step, of all GPUs of a trial together."""
    optimizer: Named = Named(name="sgd", arguments={"lr": 0.1, "momentum": 0.9})
    """With the arguments that PyTorch gives it."""
    lr_schedule: Named = Named(name="constant")
    """How the learning rate goes over the epochs."""
    augment: Truth = True
    """Whether training batches are changed at random as the data set says."""
    gradient_clip: Number | None = Field(None, gt=0)
    """Largest norm of the gradient."""
    ema: Number | None = Field(None, gt=0, lt=1)
    """Decay of a moving average of the weights; it is what is evaluated."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Auto takes a GPU where there is one."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of the forward pass; weights stay float32."""
    compile: Truth = False
    """Whether the network is compiled, anew after every change."""
    checkpoint_every: Whole = Field(1, ge=1)
    """Epochs between two checkpoints."""


class LimitSpec(Model):
    """How far an adaptation may go: parameters and FLOPs of the whole network, width as a multiple of an element's seed size."""

    parameters: Number | None = Field(None, gt=0)
    """Most parameters of the whole network."""
    flops: Number | None = Field(None, gt=0)
    """Most FLOPs of one forward of one sample."""
    width: Number | None = Field(None, ge=1)
    """Most units of an element, as a multiple of those it had at first."""


class AdaptationSpec(Model):
    """When, where and how the network grows or shrinks, and by how much. Written as `grow: {...}` or `prune: {...}`."""

    kind: Literal["grow", "prune"]
    when: Named
    """When: a trigger."""
    where: Named = Named(name="all")
    """Where, and how many units each: a selection."""
    how: Named
    """How: a method."""
    amount: Annotated[int | float | str | dict[str, Any], BeforeValidator(like_an_amount)]
    """A fraction of each element's units now (0.25), a number of units (8), `seed`: a fraction or number of the first size,
    `above`: units whose score is above a threshold, `advised`: what the method says; `multiple` rounds."""
    limit: LimitSpec = LimitSpec()
    """How far it may go."""
    elements: tuple[str, ...] = ()
    """Patterns of element names (`stages.*`); all when empty."""
    removal: Named = Named(name="immediate")
    """How pruned units go."""
    minimum: Whole = Field(1, ge=1)
    """Units of an element that are always left."""

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

    `label` marks a trial that is not part of the search (`static`, `big`), `compared_with` names the trial of the search that
    it belongs to; `architecture` is the checkpoint, as seen from the trial's folder, whose architecture the trial starts from,
    freshly initialised.
    """

    task: TaskSpec
    training: TrainingSpec
    adaptations: tuple[AdaptationSpec, ...] = ()
    seed: Whole = 0
    label: str | None = None
    compared_with: str | None = None
    architecture: Path | None = None


class SearchSpec(Model):
    """How the campaign searches."""

    sampler: Named = Named(name="random")
    """How the next trial is drawn."""
    trials: Whole = Field(1, ge=1)
    """How many are tried."""
    metric: str = "val_accuracy"
    """What is searched by; a trial reports it after each epoch."""
    mode: Mode = Field(default_factory=lambda given: known_mode(str(given.get("metric", ""))) or "max")
    """Which end of it is good; must be given where the metric's name does not say."""
    also: dict[str, Mode] = Field({}, alias="and")
    """Further objectives, each with its mode."""
    trial_scheduler: Named = Field(Named(name="none"), alias="scheduler")
    """Which trials go on."""
    max_concurrent: Whole | None = Field(None, ge=1)
    """Trials at a time; by default as many as fit."""
    seed: Whole = 0
    """Of the sampler."""

    @model_validator(mode="after")
    def _mode_is_known(self) -> SearchSpec:
        if "mode" not in self.model_fields_set and known_mode(self.metric) is None:
            raise PydanticCustomError("mode", "{problem}", {"problem": mode_is_missing(self.metric)})
        return self

    @model_serializer(mode="wrap")
    def _without_what_the_metric_says(self, handler: Any) -> Any:
        return {key: value for key, value in handler(self).items() if key != "mode" or value != known_mode(self.metric)}


class ResourcesSpec(Model):
    """What one trial gets."""

    gpus: Whole = Field(0, ge=0)
    """GPUs of a trial on each node."""
    cpus: Whole = Field(1, ge=1)
    """Cores of a trial without GPUs."""
    cpus_per_gpu: Whole = Field(1, ge=1)
    """Cores beside each GPU."""
    nodes: Whole = Field(1, ge=1)
    """Nodes of a trial."""
    hours: Number | None = Field(None, gt=0)
    """Time limit of a trial's job; by default a day, or the longest that the site gives."""


class CompareSpec(Model):
    """What the best network is compared with after the search: `static` trains its final architecture from scratch, `big` the
    task's network with these arguments changed.
    """

    static: Truth = False
    """Train the best network's final architecture from scratch."""
    big: dict[str, Any] | None = None
    """Train the task's network with these arguments changed."""


class Campaign(Model):
    """A campaign file. `task`, `training` and `adaptations` may hold distributions anywhere."""

    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    """Of its folder below `root`."""
    root: Annotated[Place, BeforeValidator(not_empty)] = Path("runs")
    """Where its folder is made, `~` and `$VARIABLES` replaced; on a cluster, a file system that the nodes share."""
    task: Annotated[Tree, BeforeValidator(with_places)]
    """What is learned, and by what network."""
    training: Tree
    """How the network is trained between its changes."""
    adaptations: Tree = []
    """What may change, in the order in which they act."""
    search: SearchSpec = SearchSpec()
    """How the campaign searches."""
    compare: CompareSpec = CompareSpec()
    """What the best network is compared with."""
    resources: ResourcesSpec = ResourcesSpec()
    """What one trial gets."""
    placement: Placement = LocalPlacement()
    """Where trials run."""
    body: str = "coppice.orchestrator.trial.trial:Trial"
    """What runs as a trial: a class of your own, as `package.module:Class`."""
    seed: Whole = 0
    """Of everything: each trial derives its own from it."""
