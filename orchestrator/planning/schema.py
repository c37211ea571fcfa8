"""Validates a part of a campaign file against its model, says in words of the file what is wrong, and goes on without that."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from coppice.orchestrator.config.models import AdaptationSpec, LimitSpec, SearchSpec, TaskSpec, TrainingSpec
from coppice.orchestrator.config.placement import PLACEMENTS
from coppice.orchestrator.planning.problems import Fault, Faults, Place

STAND_INS: dict[str, Any] = {
    "name": "x", "task": {}, "training": {}, "dataset": "digits", "network": "mlp", "epochs": 1, "when": "never",
    "how": "random", "amount": 1.0}
"""For required keys that are missing or wrong, while the rest is checked."""
MODELS: dict[str, type[BaseModel]] = {
    "task": TaskSpec, "training": TrainingSpec, "adaptations": AdaptationSpec, "search": SearchSpec, "limit": LimitSpec,
    **PLACEMENTS}
"""Models of parts that the models of the whole hold as plain trees, by key."""

EXPECTED = {
    "greater_than": "be above {gt:g}", "greater_than_equal": "be at least {ge:g}", "less_than": "be below {lt:g}",
    "less_than_equal": "be at most {le:g}", "literal_error": "be {expected}", "string_type": "be text", "path_type": "be a path",
    "string_pattern_mismatch": "begin with a letter or digit and go on with letters, digits, '.', '_' and '-'",
    "dict_type": "be a mapping", "model_type": "be a mapping", "model_attributes_type": "be a mapping", "tuple_type": "be a list",
}  # fmt: skip
"""What must hold where Pydantic finds that it does not, by its type of error."""


def validate(model: type[BaseModel], tree: Any) -> tuple[list[Fault], BaseModel | None]:
    """What is wrong with `tree`, and the model without the values that are wrong, so that the rest can be checked too."""
    try:
        return [], model.model_validate(tree)
    except ValidationError as error:
        faults = list(_explain(error, model))
    if not isinstance(tree, dict):
        return faults, None
    wrong = {place[0] for place, _ in faults if place}
    right = {k: v for k, v in tree.items() if k not in wrong}
    needed = {k: v for k, v in STAND_INS.items() if k in model.model_fields and k not in right}
    try:
        return faults, model.model_validate({**needed, **right})
    except ValidationError:
        return faults, None


def _explain(error: ValidationError, model: type[BaseModel]) -> Faults:
    """Pydantic's errors in words of a campaign file."""
    for one in error.errors():
        place = tuple(one["loc"])
        if one["type"] == "default_factory_not_called":  # follows from another one
            continue
        if one["type"] == "extra_forbidden":
            known = _keys(model, place[:-1])
            near = difflib.get_close_matches(str(place[-1]), known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; known are {sorted(known)}"
            yield place, f"unknown key{hint}"
        elif one["type"] == "missing":
            yield place, "is missing"
        elif one["type"] == "mode":  # the model can only say so of the whole
            yield (*place, "metric"), one["msg"]
        else:
            yield place, _in_words(one["type"], one["msg"], one["input"], one.get("ctx", {}))


def _in_words(kind: str, said: str, given: Any, about: Mapping[str, Any]) -> str:
    """What must hold, what is given, and what to write, for one of Pydantic's errors."""
    if kind == "value_error":  # of our own models, which say themselves what was given
        return said.removeprefix("Value error, ")
    if kind == "of_our_own":
        return said
    hint = ""
    if kind == "literal_error":
        near = difflib.get_close_matches(str(given), [str(w).strip("'") for w in about["expected"].split(" or ")], n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
    if kind == "string_type" and isinstance(given, (int, float)):
        hint = f"; write it in quotes: '{given}'"
    expected = EXPECTED[kind].format(**about) if kind in EXPECTED else ""
    return f"must {expected}, but is {given!r}{hint}" if expected else f"{said} (got {given!r})"


def _keys(model: type[BaseModel], place: Place) -> list[str]:
    """The keys that the mapping at `place` may have, where `model` is that of the root."""
    for key in place:
        if key in MODELS:
            model = MODELS[key]
        elif isinstance(key, str) and key in model.model_fields:
            annotation = model.model_fields[key].annotation
            model = annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else model
    return [field.alias or name for name, field in model.model_fields.items() if name != "kind"]
