"""Whether the names in a campaign exist, take their arguments, and can be reached: everything that a schema cannot say."""

from __future__ import annotations

import difflib
import inspect
from typing import Any

from coppice.methods.catalog import build
from coppice.methods.catalog import resolve as resolve_method
from coppice.methods.measures.latency import MEASURED
from coppice.methods.networks.catalog import network_reference
from coppice.methods.record.architecture import ArchitectureError, import_factory
from coppice.methods.selection import Learned
from coppice.methods.selection.amount import Amount
from coppice.orchestrator.config.models import AdaptationSpec, Campaign, Named, TaskSpec, TrainingSpec
from coppice.orchestrator.config.samplers import make_sampler
from coppice.orchestrator.placement.catalog import check_placement
from coppice.orchestrator.placement.ray_session import prepare_environment
from coppice.orchestrator.placement.runner import load_body
from coppice.orchestrator.planning.machine import check_machine
from coppice.orchestrator.planning.metrics import check_metrics, reported
from coppice.orchestrator.planning.problems import Faults, Place, fault_of
from coppice.orchestrator.tasks.catalog import DATASETS
from coppice.orchestrator.tasks.losses import LOSSES
from coppice.orchestrator.trial.adaptation import TrialAdaptation
from coppice.orchestrator.trial.optimizers import OPTIMIZERS, optimizer_arguments, try_optimizer, try_schedule
from coppice.references import resolve
from coppice.scheduler.triggers import build_trigger

OUR_BODY = Campaign.model_fields["body"].default
"""What runs as a trial unless the campaign names a body of its own."""
REMOVALS = {"immediate": (), "absorb": (), "merge": (), "shrink": ("steps",)}


def check_search(spec: Campaign) -> Faults:
    """Sampler, trial scheduler, metrics, placement and body."""
    search = spec.search
    yield from fault_of(("search", "sampler"), lambda: make_sampler(search, 0))
    yield from fault_of(("search", "scheduler"), lambda: _build_trial_scheduler(spec))
    if spec.body == OUR_BODY:
        yield from check_metrics(search, reported())
    yield from fault_of(("placement",), lambda: check_placement(spec.placement, spec.resources))
    yield from check_machine(spec)
    yield from fault_of(("body",), lambda: _check_body(spec.body))


def _build_trial_scheduler(spec: Campaign) -> None:
    prepare_environment()  # Ray reads it when it is imported
    from coppice.orchestrator.campaign.decisions import trial_scheduler

    trial_scheduler(spec)


def _check_body(reference: str) -> None:
    """Raise where the body cannot be imported, or lacks what a campaign calls."""
    body = load_body(reference)
    lacks = [name for name in ("open", "step", "close") if not callable(getattr(body, name, None))]
    if lacks:
        raise ValueError(f"body {reference!r} must have open, step and close, but has no {', '.join(lacks)}.")


def _check_name(place: Place, name: str, arguments: dict[str, Any], known: dict[str, tuple[str, ...]]) -> Faults:
    """Whether a name and its arguments are among the known ones."""
    if name not in known:
        yield place, f"must be one of {sorted(known)}, but is {name!r}"
        return
    unknown = sorted(set(arguments) - set(known[name]))
    if unknown:
        yield (*place, name, unknown[0]), f"{name} takes {list(known[name]) or 'no arguments'}, but got {unknown}"


def check_training(training: TrainingSpec) -> Faults:
    """Optimizer and learning-rate schedule: each is built and used once."""
    optimizer = training.optimizer
    if optimizer.name not in OPTIMIZERS:
        yield ("optimizer",), f"must be one of {sorted(OPTIMIZERS)}, but is {optimizer.name!r}"
    elif unknown := list(_unknown_arguments(optimizer)):
        yield from unknown
    else:
        yield from fault_of(("optimizer",), lambda: try_optimizer(optimizer), f"{optimizer.name}: ")
    yield from fault_of(("lr_schedule",), lambda: try_schedule(training.lr_schedule), f"{training.lr_schedule.name}: ")


def _unknown_arguments(optimizer: Named) -> Faults:
    known = optimizer_arguments(optimizer.name)
    for key in sorted(set(optimizer.arguments) - set(known)):
        near = difflib.get_close_matches(key, known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"{optimizer.name} takes {known}"
        yield ("optimizer", optimizer.name, key), f"unknown key; {hint}"


def check_task(task: TaskSpec) -> Faults:
    """Data set, network and loss."""
    yield from fault_of(("dataset",), lambda: resolve("dataset", task.dataset, DATASETS))
    if task.data_dir is not None and not task.data_dir.expanduser().is_dir():
        yield ("data_dir",), f"must be a folder that can be read, but {str(task.data_dir)!r} is none"
    yield from fault_of(("network",), lambda: check_factory(task.network, task.network_args))
    if task.loss is not None:
        loss = task.loss.name
        yield from fault_of(("loss",), lambda: resolve("loss", loss, LOSSES))


def check_factory(network: str, arguments: dict[str, Any]) -> None:
    """Raise where the network's factory cannot be imported, or does not take the arguments."""
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


def _check_together(spec: AdaptationSpec) -> Faults:
    """Whether trigger, selection, method and amount go together; nothing where one of them is wrong by itself."""
    try:
        amount, trigger = Amount.read(spec.amount), build_trigger(spec.when.name, spec.when.arguments)
        selection = build("selection", spec.where.name, spec.where.arguments)
        method = resolve_method(spec.kind, spec.how.name)
    except (ValueError, TypeError, KeyError, ImportError, AttributeError):
        return
    if spec.kind not in trigger.kinds:
        yield ("when",), f"{spec.when.name} is for {' and '.join(trigger.kinds)} only"
        return
    refusal = trigger.refuses(amount.value, amount.of)
    if refusal:
        yield ("amount",), refusal
    if not getattr(method, "advises", False):
        for key, name, needs in (
            ("when", spec.when.name, trigger.needs_advice), ("where", spec.where.name, isinstance(selection, Learned))
        ):  # fmt: skip
            if needs:
                yield (key,), f"{name} is for methods that advise how many units to change, but {spec.how.name} does not"
    levels = sorted(set(getattr(method, "levels", ())) - set(MEASURED))
    if selection.needs_latency and levels:
        yield ("where",), f"latency is measured for {', '.join(MEASURED)}, but {spec.how.name} acts on {', '.join(levels)}"


def check_adaptation(spec: AdaptationSpec) -> Faults:
    """Trigger, selection, method, amount and removal: each by itself, then whether they go together."""
    yield from fault_of(("where",), lambda: build("selection", spec.where.name, spec.where.arguments))
    yield from fault_of(("how",), lambda: build(spec.kind, spec.how.name, spec.how.arguments))
    yield from fault_of(("amount",), lambda: check_amount(spec))
    trigger = list(fault_of(("when",), lambda: build_trigger(spec.when.name, spec.when.arguments)))
    combination = list(_check_together(spec))
    removal = list(_check_name(("removal",), spec.removal.name, spec.removal.arguments, REMOVALS))
    yield from (*trigger, *combination, *removal)
    if trigger or combination or removal or spec.removal.name == "immediate":
        return
    refused = f"{spec.how.name} does not go with removal {spec.removal.name}: "
    yield from fault_of(("removal",), lambda: TrialAdaptation.build(0, spec), refused)
