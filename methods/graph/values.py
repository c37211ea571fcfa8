"""The values that the graph room hands out: what a trace found, and the elements in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from coppice.methods.graph.calls import Form
from coppice.methods.graph.expr import Expr
from coppice.methods.graph.sizes import SizeRule

Level = Literal["weight", "channel", "head", "group", "layer", "block", "insertion"]
Exactness = Literal["exact", "compensated", "inexact", "no"]
Role = Literal["produce", "consume", "bias", "scale", "shift", "mean", "var", "raw"]
"""What a dimension of a tensor does for an atom: `produce` makes the units (rows of a weight), `consume` is contracted
away (columns), `bias` is added to produced units, `scale`/`shift` are a norm's affine pair (or a layer scale), `mean`/`var`
are running statistics, `raw` is any other parameter (position embeddings, class tokens)."""


@dataclass(frozen=True)
class Occurrence:
    """One dimension of one tensor that contains an atom."""

    tensor: str
    dim: int
    expr: Expr
    role: Role


@dataclass(frozen=True)
class AtomInfo:
    """An atom with everything that is known of it.

    Attributes:
        name: `tensor:dim`, or `tensor:dim/path` where the atom is only a part of that dimension.
        size: number of units.
        occurrences: every tensor dimension that must be resized with it.
        marks: what happens to it across its units: `layernorm`, `rmsnorm`, `groupnorm` (inside a group), `gn_groups`,
            `conv_groups`, `attention_scale`, `softmax`, `reduced`, `heads`, `depthwise`, `weight_norm`, `offset` (something
            that is not zero at zero, such as a sigmoid, lies between making and using it), `tied` (one tensor dimension
            both makes and uses it).
        ties: atoms whose sizes a literal of the forward (chunk, view) holds equal to this one's.
    """

    name: str
    size: int
    occurrences: tuple[Occurrence, ...]
    marks: frozenset[str] = frozenset()
    ties: tuple[str, ...] = ()


@dataclass(frozen=True)
class Frozen:
    """A tensor dimension that cannot change, and why (with file and line for a literal in the forward)."""

    name: str
    size: int
    reason: str


@dataclass(frozen=True)
class ModuleCall:
    """One call of one submodule: the labels that go in and out.

    Attributes:
        name: fully qualified module name.
        inputs: dimensions of the first tensor argument, by position or keyword.
        output: dimensions of the tensor it returns, or that comes first in what it returns (empty without one).
        calls: how often the module is called in one forward.
        residual: the output is the input plus something (so removing the module drops the branch only).
        branch: the output is added to a skip path that carries the same labels.
        form: what it returns besides its output (see `coppice.methods.graph.calls`), None where it returns a tensor only.
        why: why nothing can stand in its place, whatever its sizes: something that it returns, or that others read of it.
        extra: it is given more than one argument.
        used: positions of further tensors in what it returns that it makes and that are used outside of it.
    """

    name: str
    inputs: tuple[Expr, ...]
    output: tuple[Expr, ...]
    calls: int
    residual: bool
    branch: bool
    form: Form | None = None
    why: str | None = None
    extra: bool = False
    used: tuple[int, ...] = ()


@dataclass(frozen=True)
class AttributeEdit:
    """A Python attribute of a module that must follow a size: its new value is the size of `expr` after the change.

    `certain` says that the forward itself, or one of torch's own modules, uses the attribute as this size; otherwise it only
    has the same value, which may be chance.
    """

    module: str
    name: str
    expr: Expr
    certain: bool = False


@dataclass(frozen=True)
class NormUse:
    """One place where the forward divides by the statistics of units.

    Attributes:
        kind: `layernorm` (mean and variance) or `rmsnorm` (mean square).
        over: the dimensions that the statistics are taken over.
        sound: where new units are the mean of the old ones (`rmsnorm`: zero), so are they where the statistics are taken.
        eps: what is added to the variance or mean square; None where that is not known.
        scale: the parameter that the result is multiplied by, after `offset` is added to it; None where there is none.
        offset: see `scale`.
    """

    kind: str
    over: tuple[Expr, ...]
    sound: bool
    eps: float | None
    scale: str | None
    offset: float = 0.0


@dataclass(frozen=True)
class ScoreUse:
    """One product of two activations over units, as of queries and keys.

    Attributes:
        over: the dimension that is summed over.
        left: tensors with that dimension's units that the first factor is computed from, and the second is not.
        right: likewise.
        both: those that both are computed from (queries and keys of one projection).
        sound: both factors are zero where what makes them is, and the first is linear in it.
        by_size: the product is known to be divided by the root of the number of units as it is when the forward runs.
    """

    over: Expr
    left: frozenset[str]
    right: frozenset[str]
    both: frozenset[str]
    sound: bool
    by_size: bool


@dataclass(frozen=True)
class Graph:
    """What a trace found out about a network.

    Attributes:
        tensors: for every parameter and buffer (first name of a tied set): the expression of each dimension.
        roles: role of each (tensor, dimension) that holds an atom.
        atoms: by name, in the order of the network's parameters.
        aliases: other names of tied tensors -> the name used in `tensors`.
        frozen: what cannot change, with reasons.
        modules: by name.
        sizes: what the forward needs of the sizes that it gives to operators or compares.
        norms: where the forward divides by the statistics of units.
        scores: where it multiplies two activations over units.
    """

    tensors: Mapping[str, tuple[Expr, ...]]
    roles: Mapping[tuple[str, int], Role]
    atoms: Mapping[str, AtomInfo]
    aliases: Mapping[str, str]
    frozen: tuple[Frozen, ...]
    modules: Mapping[str, ModuleCall] = field(default_factory=dict)
    sizes: tuple[SizeRule, ...] = ()
    norms: tuple[NormUse, ...] = ()
    scores: tuple[ScoreUse, ...] = ()


@dataclass(frozen=True)
class Move:
    """For each unit of the element, `units` consecutive entries of `atom` move."""

    atom: str
    units: int = 1


@dataclass(frozen=True)
class Element:
    """Something in a network that may grow or shrink, or that may not, with the reason.

    Attributes:
        name: an atom's name (channel, head, group), a tensor's name (weight), a module's name (layer, block) or
            `after:<module>` (insertion). Stable across processes.
        level: what it is.
        size: number of units (entries of the tensor for a weight, 1 for layer, block and insertion).
        minimum: smallest size it may be pruned to.
        quantum: units are added and removed in multiples of this.
        grow: whether adding units can leave the network's function unchanged: by itself (`exact`), after scaling other
            parameters (`compensated`), not (`inexact`); `no` when units cannot be added.
        shrink: whether removing units whose producers are zero leaves the function unchanged, likewise.
        compensation: what the compensation is for (`layernorm`, `rmsnorm`, `groupnorm`, `attention_scale`).
        moves: the atoms that move together with one unit; more than one means a joint move.
        attributes: Python attributes that follow.
        reason: why it is not permissible; None when it is.
        fixed: why units may be removed, but none added; None where that is not so.
        kinds: what can be put at an insertion point (names of `coppice.methods.surgery.layers.KINDS`).
        verified: True when the probe ran it and the result agreed, False when not, None when nobody ran it.
    """

    name: str
    level: Level
    size: int
    minimum: int = 1
    quantum: int = 1
    grow: Exactness = "exact"
    shrink: Exactness = "exact"
    compensation: tuple[str, ...] = ()
    moves: tuple[Move, ...] = ()
    attributes: tuple[AttributeEdit, ...] = ()
    reason: str | None = None
    fixed: str | None = None
    kinds: tuple[str, ...] = ()
    verified: bool | None = None

    @property
    def permissible(self) -> bool:
        """Whether it may change at all."""
        return self.reason is None

    @property
    def doubt(self) -> str | None:
        """Why it may not change before it has run with another size: only the value of some attribute suggests that it follows.

        `coppice.methods.surgery.verdicts.settle` runs it; whoever changes a network has that done first.
        """
        guessed = [f"{a.module}.{a.name}".lstrip(".") for a in self.attributes if not a.certain]
        if self.verified or not guessed:
            return None
        names = ', '.join(guessed)
        return f"only their value suggests that the attributes {names} follow its size, and it has not run with another one"

    @property
    def joint(self) -> bool:
        """Whether several atoms must move together."""
        return len(self.moves) > 1
