"""The keys of the campaign file as tables, from the models that check it."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from coppice.methods.catalog import GROWTH, PRUNING, SELECTIONS
from coppice.methods.networks.catalog import NETWORKS
from coppice.orchestrator.config import models
from coppice.orchestrator.config.placement import PLACEMENTS, PlacementSpec
from coppice.orchestrator.config.samplers import SAMPLERS
from coppice.orchestrator.planning.checks import REMOVALS
from coppice.orchestrator.tasks.catalog import DATASETS
from coppice.orchestrator.tasks.losses import LOSSES
from coppice.orchestrator.trial.optimizers import LR_SCHEDULES, OPTIMIZERS
from coppice.scheduler.trials import TRIAL_SCHEDULERS
from coppice.scheduler.triggers import TRIGGERS

SECTIONS: dict[str, tuple[type[BaseModel], str]] = {
    "At the top": (models.Campaign, ""),
    "task": (models.TaskSpec, ""),
    "training": (models.TrainingSpec, ""),
    "adaptations": (models.AdaptationSpec, "A list; each entry is written as `grow: {...}` or `prune: {...}`."),
    "adaptations: limit": (models.LimitSpec, ""),
    "search": (models.SearchSpec, ""),
    "compare": (models.CompareSpec, ""),
    "resources": (models.ResourcesSpec, ""),
    **{f"placement: {name}": (model, "") for name, model in PLACEMENTS.items()},
}
NAMES: dict[str, Iterable[str]] = {
    "task.dataset": DATASETS, "task.network": NETWORKS, "task.loss": LOSSES, "training.optimizer": OPTIMIZERS,
    "training.lr_schedule": LR_SCHEDULES, "adaptations.removal": REMOVALS, "search.sampler": SAMPLERS,
    "search.scheduler": TRIAL_SCHEDULERS, "At the top.placement": PLACEMENTS,
}  # fmt: skip
PAGES = {"adaptations.when": (TRIGGERS, "when"), "adaptations.where": (SELECTIONS, "where"), "adaptations.how": ({**GROWTH, **PRUNING}, "")}


def tables() -> str:
    """A heading and a table for each part of the file."""
    parts = []
    for title, (model, note) in SECTIONS.items():
        about = " ".join((model.__doc__ or "").split())
        parts += [f"## {title}\n", f"{about} {note}\n", "| key | default | range | |", "|---|---|---|---|"]
        parts += [_row(title, name, info) for name, info in model.model_fields.items() if name != "kind"]
        parts.append("")
    return "\n".join(parts)


def _row(section: str, name: str, info: FieldInfo) -> str:
    key = info.alias or name
    told = " ".join((info.description or "").split())
    place = f"{section}.{key}"
    if place in NAMES:
        told += " Names: " + ", ".join(f"`{n}`" for n in NAMES[place]) + "."
    if place in PAGES:
        told += f" {len(PAGES[place][0])} have a name: [Methods, triggers, selections](methods.md)."
    return f"| `{key}` | {_default(info)} | {_range(info)} | {told} |"


def _default(info: FieldInfo) -> str:
    if info.is_required():
        return "must be given"
    if info.default_factory_takes_validated_data:  # of `mode`
        return "what the metric's name says"
    value = info.default if info.default is not PydanticUndefined else info.default_factory()  # type: ignore[misc,call-arg]
    if isinstance(value, BaseModel) and not isinstance(value, (models.Named, PlacementSpec)):
        return "see there"
    if isinstance(value, (models.Named, PlacementSpec)):
        value = value.model_dump()
    return "" if value in (None, {}, (), []) else f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _range(info: FieldInfo) -> str:
    bounds = {"ge": ">= {}", "gt": "> {}", "le": "<= {}", "lt": "< {}"}
    limits = [text.format(getattr(m, k)) for m in info.metadata for k, text in bounds.items() if getattr(m, k, None) is not None]
    return " and ".join(limits) or _kind(info.annotation)


def _kind(annotation: Any) -> str:
    """A Python annotation in the words of a YAML file."""
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        return _kind(annotation.__origin__)
    if origin is typing.Literal:
        return " \\| ".join(f"`{a}`" for a in typing.get_args(annotation))
    if origin in (typing.Union, types.UnionType):
        return " or ".join(dict.fromkeys(k for a in typing.get_args(annotation) if a is not type(None) and (k := _kind(a))))
    if isinstance(annotation, type) and issubclass(annotation, (models.Named, PlacementSpec)):
        return "a name"
    words = {bool: "true or false", int: "a whole number", float: "a number", str: "text", dict: "a mapping", tuple: "a list"}
    return words.get(origin or annotation, "a path" if getattr(annotation, "__name__", "") == "Path" else "")
