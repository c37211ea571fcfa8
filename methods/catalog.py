"""The tables of methods and selections by name. A new one is one new file and one line here."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping
from typing import Any

from coppice import references
from coppice.methods.growth.cascade.method import Cascade
from coppice.methods.growth.deepen import Deepen
from coppice.methods.growth.firefly.method import Firefly
from coppice.methods.growth.gated.controller import Controller, ControllerPruning
from coppice.methods.growth.gated.size_weight import SizeWeight, SizeWeightPruning
from coppice.methods.growth.gradmax import GradMax
from coppice.methods.growth.gradmax_opt import GradMaxOpt
from coppice.methods.growth.half_layer.method import HalfLayer
from coppice.methods.growth.nest import Nest
from coppice.methods.growth.net2wider import Net2Wider
from coppice.methods.growth.north import North
from coppice.methods.growth.random import Random
from coppice.methods.growth.residual_fitting.method import ResidualFitting
from coppice.methods.growth.senn.depth import SennDepth
from coppice.methods.growth.senn.method import Senn
from coppice.methods.growth.sparse.method import NestConnections, RigL, Set, Snfs
from coppice.methods.growth.splitting.method import Splitting
from coppice.methods.growth.tiny.method import Tiny
from coppice.methods.growth.variance_transfer.method import VarianceTransfer
from coppice.methods.method import Method
from coppice.methods.parameters import Parameter
from coppice.methods.pruning.condense import Condense
from coppice.methods.pruning.dead_neurons import DeadNeurons
from coppice.methods.pruning.differentiable import Differentiable
from coppice.methods.pruning.fisher import Fisher
from coppice.methods.pruning.fisher_weights import FisherWeights
from coppice.methods.pruning.granet import GraNet
from coppice.methods.pruning.lamp import Lamp
from coppice.methods.pruning.magnitude import Magnitude
from coppice.methods.pruning.magnitude_weights import MagnitudeWeights, RiglDrop
from coppice.methods.pruning.movement import MovementWeights
from coppice.methods.pruning.obs import OptimalBrainSurgeon
from coppice.methods.pruning.one_synapse.method import OneSynapse
from coppice.methods.pruning.polarization import Polarization
from coppice.methods.pruning.random_units import RandomUnits
from coppice.methods.pruning.random_weights import RandomWeights
from coppice.methods.pruning.remove_blocks import RemoveBlocks
from coppice.methods.pruning.slimming import Slimming
from coppice.methods.pruning.snip import Snip
from coppice.methods.pruning.synflow import SynFlow
from coppice.methods.pruning.taylor import Taylor
from coppice.methods.selection import (
    All,
    BestGain,
    BudgetOptimal,
    ErdosRenyi,
    GlobalRanking,
    LargestScore,
    Learned,
    RandomElement,
    RoundRobin,
    Selection,
    Uniform,
)

GROWTH: dict[str, type[Method]] = {
    "random": Random,
    "net2wider": Net2Wider,
    "half_layer": HalfLayer,
    "cascade": Cascade,
    "variance_transfer": VarianceTransfer,
    "north": North,
    "nest": Nest,
    "residual_fitting": ResidualFitting,
    "gradmax": GradMax,
    "gradmax_opt": GradMaxOpt,
    "tiny": Tiny,
    "deepen": Deepen,
    "splitting": Splitting,
    "set": Set,
    "rigl": RigL,
    "snfs": Snfs,
    "nest_connections": NestConnections,
    "senn": Senn,
    "senn_depth": SennDepth,
    "size_weight": SizeWeight,
    "controller": Controller,
    "firefly": Firefly,
}
PRUNING: dict[str, type[Method]] = {
    "magnitude": Magnitude,
    "magnitude_weights": MagnitudeWeights,
    "random": RandomUnits,
    "random_weights": RandomWeights,
    "rigl_drop": RiglDrop,
    "lamp": Lamp,
    "snip": Snip,
    "synflow": SynFlow,
    "fisher_weights": FisherWeights,
    "movement": MovementWeights,
    "granet": GraNet,
    "polarization": Polarization,
    "slimming": Slimming,
    "taylor": Taylor,
    "fisher": Fisher,
    "condense": Condense,
    "obs": OptimalBrainSurgeon,
    "one_synapse": OneSynapse,
    "dead_neurons": DeadNeurons,
    "differentiable": Differentiable,
    "remove_blocks": RemoveBlocks,
    "size_weight": SizeWeightPruning,
    "controller": ControllerPruning,
}
SELECTIONS: dict[str, type[Selection]] = {
    "all": All,
    "round_robin": RoundRobin,
    "best_gain": BestGain,
    "global": GlobalRanking,
    "largest_score": LargestScore,
    "budget": BudgetOptimal,
    "random_element": RandomElement,
    "learned": Learned,
    "erk": ErdosRenyi,
    "uniform": Uniform,
}
TABLES: dict[str, Mapping[str, type]] = {"grow": GROWTH, "prune": PRUNING, "selection": SELECTIONS}


def resolve(kind: str, name: str) -> type:
    """The class called `name`, or the one that `package.module:attribute` names.

    Args:
        kind: `grow`, `prune` or `selection`.
        name: a name of the table, or a reference to a class of the user.

    Raises:
        ValueError: unknown kind or name (the known ones are listed), a reference that does not import, or no such class.
    """
    if kind not in TABLES:
        raise ValueError(f"kind must be one of {sorted(TABLES)}, but got {kind!r}.")
    base: type = Selection if kind == "selection" else Method
    cls: type = references.resolve(kind, name, TABLES[kind], base)
    own = getattr(cls, "kind", kind)
    if own != kind:
        raise references.UnresolvedName(f"{kind} {name!r} must be a method of kind {kind}, but its kind is {own}.")
    return cls


def build(kind: str, name: str, arguments: Mapping[str, Any]) -> Any:
    """The method or selection with these arguments.

    Raises:
        ValueError: unknown name or argument, or a value outside its range; the message says what is known.
    """
    cls = resolve(kind, name)
    fields = {f.name: f for f in dataclasses.fields(cls)}
    unknown = sorted(set(arguments) - set(fields))
    if unknown:
        raise ValueError(f"{name} takes the parameters {sorted(fields)}, but got {unknown}.")
    for key, value in arguments.items():
        about = fields[key].metadata.get("parameter")
        if about is not None:
            _check(name, key, value, about, fields[key].default)
    return cls(**arguments)


def _check(name: str, key: str, value: Any, about: Parameter, default: Any) -> None:
    if about.choices:
        if not any(value is c or (value == c and type(value) is type(c)) for c in about.choices):
            raise ValueError(f"{name}: {key} must be one of {list(about.choices)}, but got {value!r}.")
        return
    if about.low is None and about.high is None:
        return
    whole = isinstance(default, int)
    if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)):
        raise ValueError(f"{name}: {key} must be a {'whole ' if whole else ''}number, but got {value!r}.")
    low, high = about.low, about.high
    if not ((low is None or value >= low) and (high is None or value <= high)):
        bounds = f"{'' if low is None else f'{low} <= '}{key}{'' if high is None else f' <= {high}'}"
        raise ValueError(f"{name}: {bounds} must hold, but got {key}={value}.")


def describe(name: str, kind: str | None = None) -> dict[str, Any]:
    """What a method or selection says about itself: kind, paper, levels, parameters with default, range and help. JSON-able.

    Where a growth and a pruning method have one name, `kind` says which; else the growth method is described.

    Raises:
        ValueError: unknown name; the known ones are listed.
    """
    kinds = [k for k, table in TABLES.items() if name in table and kind in (None, k)]
    if not kinds:
        raise ValueError(f"name must be one of {sorted(n for t in TABLES.values() for n in t)}, but got {name!r}.")
    cls = resolve(kinds[0], name)
    parameters = {f.name: {"default": f.default, **vars(f.metadata["parameter"])} for f in dataclasses.fields(cls)}
    said = {key: getattr(cls, key) for key in ("paper", "levels", "preserves", "batch_norm") if hasattr(cls, key)}
    return {"name": name, "kind": kinds[0], "about": inspect.cleandoc(cls.__doc__ or ""), **said, "parameters": parameters}
