"""Whether the names in a campaign exist, take their arguments, and can be reached: everything that a schema cannot say."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterator
from typing import Any

from coppice.methods.catalog import build
from coppice.methods.catalog import resolve as resolve_method
from coppice.methods.measures.latency import MEASURED
from coppice.methods.networks.catalog import network_reference
from coppice.methods.record.architecture import ArchitectureError, import_factory
from coppice.methods.selection import Learned
from coppice.methods.selection.amount import Amount
from coppice.orchestrator.config.models import AdaptationSpec, CampaignSpec, TaskSpec, TrainingSpec
from coppice.orchestrator.config.space import Space, make_sampler
from coppice.orchestrator.placement.catalog import check_placement
from coppice.orchestrator.references import resolve
from coppice.orchestrator.tasks.catalog import DATASETS
from coppice.orchestrator.tasks.losses import LOSSES
from coppice.orchestrator.trial.adaptation import Adaptation
from coppice.orchestrator.trial.optimizers import LR_SCHEDULES, OPTIMIZERS, lr_at, optimizer_arguments
from coppice.scheduler.triggers import build_trigger

Found = Iterator[tuple[tuple[Any, ...], str]]
METRICS = ("loss", "accuracy", "r2", "rmse")
COSTS = ("parameters", "flops", "compute", "seconds", "train_loss")
REMOVALS = {"immediate": (), "absorb": (), "merge": (), "shrink": ("steps",)}
TRIAL_SCHEDULERS = {"none": (), "asha": ("max_compute", "max_epochs", "grace", "reduction_factor")}


def _said(call: Callable[[], Any]) -> str | None:
    """The message of the error that a call raises, if it raises one that a user's input explains."""
    try:
        call()
    except (ValueError, TypeError, KeyError, ImportError, OSError, AttributeError) as error:
        return str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    return None


def check_search(spec: CampaignSpec) -> Found:
    """Sampler, trial scheduler, metrics, placement and body."""
    search = spec.search
    message = _said(lambda: make_sampler(search, Space({}), 0))
    if message:
        yield ("search", "sampler"), message
    yield from _named(("search", "scheduler"), search.trial_scheduler.name, search.trial_scheduler.arguments, TRIAL_SCHEDULERS)
    known = {*COSTS, *(f"val_{m}" for m in METRICS)}
    for place, metric in [(("search", "metric"), search.metric), *((("search", "and", m), m) for m in search.also)]:
        if metric not in known:
            yield place, f"must be one of {sorted(known)}, but is {metric!r}"
    message = _said(lambda: check_placement(spec.placement, spec.resources))
    if message:
        yield ("placement",), message
    message = _said(lambda: resolve("body", spec.body, {}))
    if message:
        yield ("body",), message


def _named(place: tuple[Any, ...], name: str, arguments: dict[str, Any], known: dict[str, tuple[str, ...]]) -> Found:
    if name not in known:
        yield place, f"must be one of {sorted(known)}, but is {name!r}"
        return
    unknown = sorted(set(arguments) - set(known[name]))
    if unknown:
        yield (*place, name, unknown[0]), f"{name} takes {list(known[name]) or 'no arguments'}, but got {unknown}"


def check_training(training: TrainingSpec) -> Found:
    """Optimizer and learning-rate schedule."""
    optimizer = training.optimizer
    if optimizer.name not in OPTIMIZERS:
        yield ("optimizer",), f"must be one of {sorted(OPTIMIZERS)}, but is {optimizer.name!r}"
    else:
        known = optimizer_arguments(optimizer.name)
        for key in sorted(set(optimizer.arguments) - set(known)):
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"{optimizer.name} takes {known}"
            yield ("optimizer", optimizer.name, key), f"unknown key; {hint}"
    message = _said(lambda: lr_at(training.lr_schedule, 1.0, 0.5))
    if message:
        yield ("lr_schedule",), f"{message} (known: {sorted(LR_SCHEDULES)})"


def check_task(task: TaskSpec) -> Found:
    """Data set, network and loss."""
    message = _said(lambda: resolve("dataset", task.dataset, DATASETS))
    if message:
        yield ("dataset",), message
    if task.data_dir is not None and not task.data_dir.expanduser().is_dir():
        yield ("data_dir",), f"must be a folder that can be read, but {str(task.data_dir)!r} is none"
    message = _said(lambda: _check_factory(task.network, task.network_args))
    if message:
        yield ("network",), message
    if task.loss is not None:
        loss = task.loss.name
        message = _said(lambda: resolve("loss", loss, LOSSES))
        if message:
            yield ("loss",), message


def _check_factory(network: str, arguments: dict[str, Any]) -> None:
    factory = import_factory(network_reference(network))
    known = inspect.signature(factory).parameters
    if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in known.values()):
        return
    unknown = sorted(set(arguments) - set(known))
    if unknown:
        raise ArchitectureError(f"{network} takes {list(known)}, but got {unknown} in network_args")


def check_amount(spec: AdaptationSpec) -> None:
    """Raise ValueError when the amount is none, or is left to a method that does not advise how many."""
    amount = Amount.read(spec.amount)
    if amount.of == "advised" and not getattr(resolve_method(spec.kind, spec.how.name), "advises", False):
        raise ValueError(f"{spec.how.name} does not advise how many; give a number")


def _fitting(spec: AdaptationSpec) -> Found:
    """Whether trigger, selection, method and amount go together, as far as each of them is right by itself."""
    try:
        amount, trigger = Amount.read(spec.amount), build_trigger(spec.when.name, spec.when.arguments)
        selection = build("selection", spec.where.name, spec.where.arguments)
        method = resolve_method(spec.kind, spec.how.name)
    except (ValueError, TypeError, KeyError, ImportError, AttributeError):
        return
    if spec.kind not in trigger.kinds:
        yield ("when",), f"{spec.when.name} is for {' and '.join(trigger.kinds)} only"
        return
    refused = trigger.refuses(amount.value, amount.of)
    if refused:
        yield ("amount",), refused
    advises = getattr(method, "advises", False)
    if trigger.needs_advice and not advises:
        yield ("when",), f"{spec.when.name} is for methods that advise how many units to change, but {spec.how.name} does not"
    if isinstance(selection, Learned) and not advises:
        yield ("where",), f"{spec.where.name} is for methods that advise how many units to change, but {spec.how.name} does not"
    levels = sorted(set(getattr(method, "levels", ())) - set(MEASURED))
    if selection.needs_latency and levels:
        yield ("where",), f"latency is measured for {', '.join(MEASURED)}, but {spec.how.name} acts on {', '.join(levels)}"


def check_adaptation(spec: AdaptationSpec) -> Found:
    """Trigger, selection, method and removal."""
    for key, kind, named in (("where", "selection", spec.where), ("how", spec.kind, spec.how)):
        message = _said(lambda kind=kind, named=named: build(kind, named.name, named.arguments))  # type: ignore[misc]
        if message:
            yield (key,), message
    message = _said(lambda: check_amount(spec))
    if message:
        yield ("amount",), message
    message = _said(lambda: build_trigger(spec.when.name, spec.when.arguments))
    if message:
        yield ("when",), message
    unfit = list(_fitting(spec))
    yield from unfit
    wrong = list(_named(("removal",), spec.removal.name, spec.removal.arguments, REMOVALS))
    yield from wrong
    together = None if wrong or message or unfit else _said(lambda: Adaptation.build(0, spec))
    if together and spec.removal.name != "immediate":
        yield ("removal",), f"{spec.how.name} does not go with removal {spec.removal.name}: {together}"
