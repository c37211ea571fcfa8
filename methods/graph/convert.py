"""Turn the terms that a trace ends with into frozen expressions, after checking that every atom makes sense."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from coppice.methods.graph.expr import Atom, Const, Expr, Prod, Sum, atom_names
from coppice.methods.graph.needs import size_rules
from coppice.methods.graph.terms import Fix, Mul, Term, Var, held, norm, same, variables
from coppice.methods.graph.values import AtomInfo, Frozen, Graph, ModuleCall, NormUse, Occurrence, Role, ScoreUse
from coppice.methods.graph.watch import Value, Watch

_PRECEDENCE: tuple[Role, ...] = ("produce", "consume", "scale", "shift", "mean", "var", "bias", "raw")
_MAKES = frozenset(("produce", "raw"))
_USES = frozenset(("reduced", "attention_scale"))


@dataclass
class Call:
    """One call of a module while the forward ran.

    Attributes:
        first: its first tensor argument.
        last: the output in what it returned.
        extra: it was given further arguments.
        kind: `tuple` or `list` where it returned one.
        rest: what else was in it (see `coppice.methods.graph.calls`).
        made: position and label of each further tensor that it made.
        why: why nothing else can return the same.
    """

    first: Value | None
    last: Value | None
    extra: bool
    kind: str = ""
    rest: list[dict[str, Any]] = field(default_factory=list)
    made: list[tuple[int, int]] = field(default_factory=list)
    why: str | None = None


@dataclass
class Run:
    """Everything that was collected while the forward ran.

    Attributes:
        watch: the notes of the rules: labels and roles.
        tensors: terms of each parameter and buffer.
        buffers: which of them are buffers.
        calls: of each submodule, in order.
        used: labels of all that something was computed from, or that the network returned.
        reads: attributes of each submodule that functions other than its own read, and that nothing in its place would have.
        aliases: other names of tied tensors.
        module_names: by id of the module.
        calls_frozen: no further calls are recorded (a second run of the same forward).
    """

    watch: Watch
    tensors: dict[str, list[Term]]
    buffers: set[str]
    calls: dict[str, list[Call]]
    aliases: dict[str, str] = field(default_factory=dict)
    calls_frozen: bool = False
    module_names: dict[int, str] = field(default_factory=dict)
    used: int = 0
    reads: dict[str, list[str]] = field(default_factory=dict)

    def dims(self) -> Iterator[tuple[str, int, Term]]:
        """Every dimension of every parameter and buffer."""
        for name, dims in self.tensors.items():
            for position, dim in enumerate(dims):
                yield name, position, dim

    def role(self, name: str, dim: int) -> Role:
        """What a dimension is mainly used for."""
        known = self.watch.roles.get((name, dim))
        if not known:
            return "raw"
        return min(known, key=_PRECEDENCE.index)  # type: ignore[arg-type]


def to_graph(run: Run) -> Graph:
    """Check, name and freeze."""
    for term in run.watch.pending.values():
        run.watch.algebra.mark(term, "reduced")
    _freeze_unused(run)
    for name, position, dim in run.dims():
        if {"produce", "consume"} <= run.watch.roles.get((name, position), set()):
            run.watch.algebra.mark(dim, "tied")
    while _freeze_unsound(run) or _freeze_ties(run):
        pass
    names = _names(run)
    exprs = _Exprs(names)
    tensors = {name: tuple(map(exprs, dims)) for name, dims in run.tensors.items()}
    roles = {(n, d): run.role(n, d) for n, dims in tensors.items() for d, e in enumerate(dims) if not isinstance(e, Const)}
    atoms = _atoms(run, names, tensors, roles)
    rules = tuple(size_rules(run.watch.needed, run.module_names, exprs, names))
    return Graph(tensors, roles, atoms, run.aliases, _frozen(run), _modules(run, exprs), rules,
                 tuple(_norms(run, exprs)), tuple(_scores(run, exprs, tensors)))


def _norms(run: Run, exprs: _Exprs) -> Iterator[NormUse]:
    """A norm that runs in both modes is judged by evaluation alone: dropout changes no unit there."""
    known = {n.scale for n in run.watch.norms.values() if not n.training}
    for found in run.watch.norms.values():
        over = tuple(map(exprs, found.over))
        if any(map(atom_names, over)) and not (found.training and found.scale in known):
            yield NormUse(found.kind, over, found.sound, found.eps, found.scale, found.offset)


def _scores(run: Run, exprs: _Exprs, tensors: dict[str, tuple[Expr, ...]]) -> Iterator[ScoreUse]:
    for term, left, right, by_size in run.watch.scores:
        over = exprs(term)
        units = atom_names(over)
        if not units:
            continue
        holding = [n for n, dims in tensors.items() if any(units & atom_names(d) for d in dims)]
        of = [frozenset(n for n in holding if run.watch.bits[n] & v.deps) for v in (left, right)]
        both = of[0] & of[1]
        sound = left.zero and right.zero and held([term]) <= held(left.even)
        yield ScoreUse(over, of[0] - both, of[1] - both, both, sound, by_size)


def _freeze_unused(run: Run) -> None:
    algebra = run.watch.algebra
    for name, dims in run.tensors.items():
        for dim in dims if name not in run.watch.seen else ():
            algebra.freeze(dim, "never used by the forward")


def _freeze_unsound(run: Run) -> bool:
    """Freeze atoms that nothing makes or nothing uses."""
    roles: dict[Var, set[str]] = {}
    fixed: dict[Var, str] = {}
    for name, position, dim in run.dims():
        term = norm(dim)
        for var in () if isinstance(term, Fix) else variables(term):
            found = run.watch.roles.get((name, position), {"raw"})
            roles.setdefault(var, set()).update(found if name not in run.buffers else found - _MAKES)
            if name in run.buffers:
                fixed.setdefault(var, name)
    changed = False
    for var, known in roles.items():
        reason = ""
        if not known & _MAKES:
            reason = f"the buffer {fixed[var]} holds fixed values for it" if var in fixed else "no parameter makes its units"
        elif "consume" not in known and not var.marks & _USES:
            reason = "no parameter uses its units"
        elif var.size == 1 and "produce" not in known:
            reason = "it is a single entry (a class token, say) that the forward joins to others and finds by its place"
        if reason:
            run.watch.algebra.freeze(var, reason)
            changed = True
    return changed


def _freeze_ties(run: Run) -> bool:
    """Freeze what a literal ties to something that does not change."""
    changed = False
    for a, b in run.watch.ties:
        left, right = _without_common(a, b)
        if isinstance(left, Var) and isinstance(right, Var):
            continue
        for term in (left, right):
            for var in list(variables(term)):
                run.watch.algebra.freeze(var, "its size is tied to one that does not change")
                changed = True
    return changed


def _without_common(a: Term, b: Term) -> tuple[Term, Term]:
    a, b = norm(a), norm(b)
    left: list[Term] = list(a.parts) if isinstance(a, Mul) else [a]
    right: list[Term] = list(b.parts) if isinstance(b, Mul) else [b]
    for part in list(left):
        twin = next((q for q in right if same(q, part)), None)
        if twin is not None:
            left.remove(part)
            right.remove(twin)
    return norm(Mul(left)), norm(Mul(right))


def _paths(term: Term, path: str = "") -> Iterator[tuple[Fix | Var, str]]:
    """The variables and constants in a term, with their positions."""
    term = norm(term)
    if isinstance(term, (Var, Fix)):
        yield term, path
    else:
        for position, part in enumerate(term.parts):
            yield from _paths(part, f"{path}.{position}" if path else str(position))


def _names(run: Run) -> dict[Var, str]:
    """Name each atom by the first dimension that makes it, else by the first that holds it."""
    made: dict[Var, str] = {}
    held: dict[Var, str] = {}
    for name, position, dim in run.dims():
        term = norm(dim)
        if isinstance(term, Fix):
            continue
        table = made if run.role(name, position) == "produce" else held
        for var, path in _paths(term):
            if isinstance(var, Fix):
                continue
            table.setdefault(var, f"{name}:{position}" + (f"/{path}" if path else ""))
    return {**held, **made}


class _Exprs:
    """Frozen expressions of terms, made once for each variable and constant."""

    def __init__(self, names: dict[Var, str]) -> None:
        self._atoms = {var: Atom(name, var.size) for var, name in names.items()}
        self._constants: dict[int, Const] = {}

    def __call__(self, term: Term) -> Expr:
        term = norm(term)
        atom = self._atoms.get(term) if type(term) is Var else None
        if atom is not None:
            return atom
        if isinstance(term, (Fix, Var)):
            return self._constants.setdefault(term.size, Const(term.size))
        parts = tuple(map(self, term.parts))
        return Prod(parts) if isinstance(term, Mul) else Sum(parts)


def _atoms(
    run: Run, names: dict[Var, str], tensors: dict[str, tuple[Expr, ...]], roles: dict[tuple[str, int], Role]
) -> dict[str, AtomInfo]:
    occurrences: dict[str, list[Occurrence]] = {}
    for name, dims in tensors.items():
        for position, expr in enumerate(dims):
            for atom in (expr.name,) if isinstance(expr, Atom) else sorted(atom_names(expr)):
                occurrences.setdefault(atom, []).append(Occurrence(name, position, expr, roles[name, position]))
    ties: dict[str, set[str]] = {}
    for a, b in run.watch.ties:
        left, right = _without_common(a, b)
        if isinstance(left, Var) and isinstance(right, Var) and left is not right and {left, right} <= names.keys():
            ties.setdefault(names[left], set()).add(names[right])
            ties.setdefault(names[right], set()).add(names[left])
    var_of = {name: var for var, name in names.items()}
    infos = {}
    for name, places in occurrences.items():
        var = var_of[name]
        infos[name] = AtomInfo(name, var.size, tuple(places), var.marks, tuple(sorted(ties.get(name, ()))))
    return infos


def _frozen(run: Run) -> tuple[Frozen, ...]:
    out = []
    for name, position, dim in run.dims():
        term = norm(dim)
        for part, path in _paths(term) if not isinstance(term, Var) else ():
            if isinstance(part, Fix) and part.size > 1:
                full = f"{name}:{position}" + (f"/{path}" if path else "")
                out.append(Frozen(full, part.size, part.reason or "meets a size that does not change"))
    return tuple(out)


def _modules(run: Run, exprs: _Exprs) -> dict[str, ModuleCall]:
    known: dict[int, tuple[Expr, ...]] = {}
    for calls in run.calls.values():
        for end in (calls[0].first, calls[0].last):
            if end is not None and end.bit not in known:
                known[end.bit] = tuple(map(exprs, end.dims))
    return {name: _call(run, name, calls, known) for name, calls in run.calls.items()}


def _call(run: Run, name: str, calls: Sequence[Call], known: dict[int, tuple[Expr, ...]]) -> ModuleCall:
    call = calls[0]
    first, last = call.first, call.last
    inputs = known[first.bit] if first is not None else ()
    output = known[last.bit] if last is not None else ()
    residual = branch = False
    if first is not None and last is not None and first is not last:
        residual = bool(last.adds & first.bit)
        reach = first.deps | first.bit
        branch = not residual and bool(run.watch.sums.get(last.bit, 0) & reach)
    form = {"kind": call.kind, "rest": call.rest} if call.kind else None
    positions = tuple(position for position, bit in call.made if bit & run.used)
    lost = run.reads.get(name)
    why = call.why or (f"what calls it reads its attribute {lost[0]}" if lost else None)
    return ModuleCall(name, inputs, output, len(calls), residual, branch, form, why, call.extra, positions)
