"""Campaign files: read with line numbers; everything that is wrong is reported at once, before anything starts."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from coppice.orchestrator.config.models import AdaptationSpec, CampaignSpec, LimitSpec, SearchSpec, TaskSpec, TrainingSpec
from coppice.orchestrator.config.space import Space, distribution, problem_of
from coppice.orchestrator.planning.checks import check_adaptation, check_search, check_task, check_training

Place = tuple[Any, ...]
NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+")
TREES = ("task", "training", "adaptations")


@dataclass(frozen=True, order=True)
class Problem:
    """Something wrong in a campaign file."""

    line: int
    path: str
    message: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.path + ': ' if self.path else ''}{self.message}"


class CampaignError(ValueError):
    """Everything that is wrong with a campaign file."""

    def __init__(self, where: str, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        count = f"{len(problems)} problem{'s' if len(problems) != 1 else ''}"
        super().__init__(f"{where} has {count}; nothing was started:\n" + "\n".join(f"  {p}" for p in problems))


At = Callable[[CampaignSpec], CampaignSpec]
"""Fills in where a campaign is to run, before that is checked."""


def load_campaign(path: Path | str, at: At = lambda spec: spec) -> CampaignSpec:
    """Read and check a campaign file.

    Raises:
        CampaignError: everything that is wrong with it, with line numbers.
    """
    try:
        text = Path(path).read_text()
    except OSError as error:
        raise CampaignError(str(path), [Problem(0, "", f"the file must be readable, but {error.strerror}")]) from None
    problems = check(text, at)
    if problems:
        raise CampaignError(str(path), problems)
    return at(CampaignSpec.model_validate(parse(text)))


def parse(text: str) -> Any:
    """The YAML tree; `1e-4`, which YAML takes for a string, is a number."""
    return _numbers(yaml.safe_load(text))


def _numbers(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {k: _numbers(v) for k, v in tree.items()}
    if isinstance(tree, list):
        return [_numbers(v) for v in tree]
    return float(tree) if isinstance(tree, str) and NUMBER.fullmatch(tree) else tree


def check(text: str, at: At = lambda spec: spec) -> list[Problem]:
    """Everything that is wrong with the text of a campaign file, by line."""
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        tree = parse(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        return [Problem(mark.line + 1 if mark else 1, "", f"not valid YAML: {getattr(error, 'problem', error)}")]
    if not isinstance(tree, dict) or root is None:
        return [Problem(1, "", "a campaign file must be a mapping with name, task, training and search")]
    lines: dict[Place, int] = {}
    found = set(_index(root, (), lines))
    for place, message in _find(tree, at):
        found.add(_problem(place, message, lines))
    return sorted(found)


def _index(node: yaml.Node, place: Place, lines: dict[Place, int]) -> Iterator[Problem]:
    """Lines of every place; yields keys that are there twice."""
    lines.setdefault(place, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        keys = set()
        for key, value in node.value:
            if key.value in keys:
                path = ".".join(map(str, (*place, key.value)))
                yield Problem(key.start_mark.line + 1, path, "the key is there twice; delete one")
            keys.add(key.value)
            lines[(*place, key.value)] = key.start_mark.line + 1
            yield from _index(value, (*place, key.value), lines)
    elif isinstance(node, yaml.SequenceNode):
        for i, value in enumerate(node.value):
            yield from _index(value, (*place, i), lines)


def _problem(place: Place, message: str, lines: dict[Place, int]) -> Problem:
    known = place
    while known not in lines:
        known = known[:-1]
    return Problem(lines[known], ".".join(map(str, place)), message)


def _find(tree: dict[str, Any], at: At) -> Iterator[tuple[Place, str]]:
    errors, spec = lenient(CampaignSpec, tree)
    yield from errors
    yield from _distributions(tree, ())
    if isinstance(spec, CampaignSpec):
        yield from check_search(at(spec))
    yield from _variants({name: tree[name] for name in TREES if name in tree})


def lenient(model: type[BaseModel], tree: Any) -> tuple[list[tuple[Place, str]], BaseModel | None]:
    """What is wrong with `tree`, and the model without the values that are wrong, so that the rest can be checked too."""
    try:
        return [], model.model_validate(tree)
    except ValidationError as error:
        found = list(_explain(error, model))
    if not isinstance(tree, dict):
        return found, None
    wrong = {place[0] for place, _ in found if place}
    kept = {k: v for k, v in tree.items() if k not in wrong}
    needed = {k: v for k, v in STAND_INS.items() if k in model.model_fields and k not in kept}
    try:
        return found, model.model_validate({**needed, **kept})
    except ValidationError:
        return found, None


STAND_INS: dict[str, Any] = {
    "name": "x", "task": {}, "training": {}, "dataset": "digits", "network": "mlp", "epochs": 1, "when": "never",
    "how": "random", "amount": 1.0}
"""For required keys that are missing or wrong, while the rest is checked."""


def _distributions(tree: Any, place: Place) -> Iterator[tuple[Place, str]]:
    kind = distribution(tree)
    if kind is not None:
        message = problem_of(kind, tree[kind])
        if message is not None:
            yield (*place, kind), message
    children = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in children:
        yield from _distributions(value, (*place, key))


def _variants(trees: dict[str, Any]) -> Iterator[tuple[Place, str]]:
    for resolved, places in Space(trees).variants():
        for place, message in _check_resolved(resolved):
            yield _source(place, places), message


def _check_resolved(resolved: dict[str, Any]) -> Iterator[tuple[Place, str]]:
    for name, model, further in (("task", TaskSpec, check_task), ("training", TrainingSpec, check_training)):
        yield from _check_part((name,), resolved.get(name), model, further)
    adaptations = resolved.get("adaptations", [])
    if not isinstance(adaptations, list):
        yield ("adaptations",), f"must be a list of grow: and prune:, but is {adaptations!r}"
        return
    for i, entry in enumerate(adaptations):
        kind = next(iter(entry)) if isinstance(entry, dict) and len(entry) == 1 else None
        if kind not in ("grow", "prune"):
            yield ("adaptations", i), f"must be grow: {{...}} or prune: {{...}}, but is {entry!r}"
            continue
        content = {"kind": kind, **entry[kind]} if isinstance(entry[kind], dict) else entry[kind]
        yield from _check_part(("adaptations", i, kind), content, AdaptationSpec, check_adaptation)


def _check_part(place: Place, tree: Any, model: type[BaseModel], further: Any) -> Iterator[tuple[Place, str]]:
    errors, spec = lenient(model, tree)
    yield from (((*place, *rest), message) for rest, message in errors)
    if spec is not None:
        yield from (((*place, *rest), message) for rest, message in further(spec))


def _source(place: Place, places: dict[Place, Place]) -> Place:
    rest: Place = ()
    while place not in places:
        place, rest = place[:-1], (place[-1], *rest)
    return (*places[place], *rest)


def _explain(error: ValidationError, model: type[BaseModel]) -> Iterator[tuple[Place, str]]:
    for one in error.errors():
        place = tuple(one["loc"])
        if one["type"] == "extra_forbidden":
            known = _keys(model, place[:-1])
            near = difflib.get_close_matches(str(place[-1]), known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; known are {sorted(known)}"
            yield place, f"unknown key{hint}"
        elif one["type"] == "missing":
            yield place, "is missing"
        else:
            yield place, f"{one['msg'].removeprefix('Value error, ')} (got {one['input']!r})"


MODELS: dict[str, type[BaseModel]] = {
    "task": TaskSpec, "training": TrainingSpec, "adaptations": AdaptationSpec, "search": SearchSpec, "limit": LimitSpec}


def _keys(model: type[BaseModel], place: Place) -> list[str]:
    for key in place:
        if key in MODELS:
            model = MODELS[key]
        elif isinstance(key, str) and key in model.model_fields:
            annotation = model.model_fields[key].annotation
            model = annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else model
    return [field.alias or name for name, field in model.model_fields.items() if name != "kind"]
