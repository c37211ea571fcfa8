"""Run a module's own forward once and find out what each dimension of its tensors is made of."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Any
from weakref import ref

import torch
from torch import Tensor, nn
from torch.nn.modules.module import _global_forward_hooks_with_kwargs, register_module_forward_hook
from torch.nn.parameter import is_lazy

from coppice.methods.graph.builtin import follow_shapes
from coppice.methods.graph.caches import forget, function_caches
from coppice.methods.graph.calls import argument, output_of, place_of_input, read_in_vain, watch_reads
from coppice.methods.graph.convert import Call, Run, to_graph
from coppice.methods.graph.dispatch import Dispatch
from coppice.methods.graph.functions import Calls
from coppice.methods.graph.given import equalities
from coppice.methods.graph.isolation import as_before, collector_paused, slow_paths, stand_ins
from coppice.methods.graph.outputs import tensors_in
from coppice.methods.graph.siblings import follow_siblings
from coppice.methods.graph.terms import Fix
from coppice.methods.graph.values import Graph
from coppice.methods.graph.watch import Watch

_CANNOT_RUN_WITHOUT_DATA = (RuntimeError, TypeError, ValueError, AssertionError)


def trace(module: nn.Module, example_inputs: tuple[Any, ...]) -> Graph:
    """Find the atoms of a module.

    The forward runs on tensors without data; where it depends on data, it runs once more on the real ones. The module is as
    before afterwards: training flags, buffers, plain attributes and the random number generator are restored.

    Args:
        module: any module; its class and forward are not touched.
        example_inputs: positional arguments of its forward; tensors of any nesting.

    Raises:
        ValueError: the module has a parameter without a shape, or its forward returns no tensor.
    """
    modules = submodules(module)
    named, aliases = _named_tensors(modules)
    for name, tensor in named.items():
        if is_lazy(tensor):
            raise ValueError(f"every parameter must have a shape, but {name!r} is lazy; run the forward once before.")
    plan = _Plan(module, example_inputs, {id(m): (name, m) for name, m in reversed(modules)}, named)
    made: list[ref[Tensor]] = []
    graph = None
    with collector_paused(), function_caches():
        with suppress(*_CANNOT_RUN_WITHOUT_DATA):
            graph = _trace(plan, made, meta=True)
        forget(made)
        if graph is None:
            graph = _trace(plan, made, meta=False)
    return dataclasses.replace(graph, aliases=aliases)


def submodules(module: nn.Module) -> list[tuple[str, nn.Module]]:
    """All submodules with their names, those under several names once for each (as `named_modules` does, but faster)."""
    out: list[tuple[str, nn.Module]] = []

    def visit(name: str, parent: nn.Module) -> None:
        out.append((name, parent))
        prefix = f"{name}." if name else ""
        for key, child in parent._modules.items():
            if child is not None:
                visit(prefix + key, child)

    visit("", module)
    return out


def _named_tensors(modules: Sequence[tuple[str, nn.Module]]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Parameters, then buffers, by their first name; and the other names."""
    first: dict[int, str] = {}
    named: dict[str, Tensor] = {}
    aliases: dict[str, str] = {}
    for table in ("_parameters", "_buffers"):
        for name, m in modules:
            for key, tensor in m.__dict__[table].items():
                full = f"{name}.{key}" if name else key
                if tensor is not None and first.setdefault(id(tensor), full) == full:
                    named[full] = tensor
                elif tensor is not None:
                    aliases[full] = first[id(tensor)]
    return named, aliases


@dataclasses.dataclass(frozen=True)
class _Plan:
    """What is traced: the module, its inputs, its submodules (by id, with their first name) and its tensors by first name."""

    module: nn.Module
    inputs: tuple[Any, ...]
    modules: dict[int, tuple[str, nn.Module]]
    named: dict[str, Tensor]


def _trace(plan: _Plan, made: list[ref[Tensor]], meta: bool) -> Graph:
    watch = Watch(meta)
    run = Run(watch, {}, set(), {})
    run.module_names = {key: name for key, (name, _) in plan.modules.items()}
    modules = [m for _, m in plan.modules.values()]
    with ExitStack() as stack:
        stack.callback(lambda: made.extend(watch.release() if meta else ()))
        stack.enter_context(torch.no_grad())
        replaced = stand_ins(plan.named.values(), meta)
        stack.enter_context(as_before(modules, replaced))
        stack.enter_context(slow_paths(meta))
        for name, tensor in plan.named.items():
            run.tensors[name] = watch.parameter(name, replaced[id(tensor)])
            if not isinstance(tensor, nn.Parameter):
                run.buffers.add(name)
                watch.buffers.add(name)
        reads: dict[int, set[str]] = {}
        follow_shapes(modules, watch)
        stack.enter_context(_module_calls(run))
        stack.enter_context(watch_reads(plan.modules, reads))
        dispatch = Dispatch(watch)
        stack.callback(dispatch.undo_writes)
        _forward(plan, dispatch, training=False)
        if not run.tensors.keys() - run.buffers <= watch.seen or differs_in_training(modules):
            run.calls_frozen = True
            _forward(plan, dispatch, training=True)
        run.used = watch.used()
    if not run.tensors.keys() <= watch.seen:
        follow_siblings(run, {name: m for name, m in plan.modules.values()})
    run.reads = {plan.modules[key][0]: read_in_vain(plan.modules[key][1], read) for key, read in reads.items()}
    return to_graph(run)


def _forward(plan: _Plan, dispatch: Dispatch, training: bool) -> None:
    watch = dispatch.watch
    watch.training = training
    for _, m in plan.modules.values():
        m.__dict__["training"] = training and not isinstance(m, nn.modules.batchnorm._BatchNorm)  # which refuses one example
    inputs = tuple(_input(watch, item) for item in plan.inputs)
    with equalities() as equal, Calls(watch), dispatch:
        output = plan.module(*inputs)
    watch.needed += equal
    outputs = list(_output_tensors(output)) or tensors_in(output)
    if not outputs:
        raise ValueError(f"the forward must return tensors (or containers of them), but it returned {type(output).__name__}.")
    for tensor in outputs:
        watch.kept |= watch.value(tensor).bit
        for dim in watch.value(tensor).dims:
            watch.algebra.freeze(dim, "output of the network")


def _input(watch: Watch, item: Any) -> Any:
    if isinstance(item, Tensor):
        tensor = torch.empty_like(item, device="meta") if watch.meta else item.detach().clone()
        watch.put(tensor, [Fix(n, "input of the network") for n in item.shape], zero=True).live = True
        return tensor
    if isinstance(item, tuple) and hasattr(item, "_fields"):
        return type(item)(*(_input(watch, i) for i in item))
    if isinstance(item, (list, tuple)):
        return type(item)(_input(watch, i) for i in item)
    return {k: _input(watch, v) for k, v in item.items()} if isinstance(item, dict) else item


def _output_tensors(output: Any) -> Iterator[Tensor]:
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, (list, tuple, set)):
        for item in output:
            yield from _output_tensors(item)
    elif isinstance(output, dict):
        yield from _output_tensors(list(output.values()))
    elif dataclasses.is_dataclass(output):
        yield from _output_tensors(list(vars(output).values()))


def differs_in_training(modules: list[nn.Module]) -> bool:
    """Whether a forward outside of torch asks for the training flag."""
    kinds = {type(m) for m in modules if not type(m).__module__.startswith("torch.")}
    methods = (f for kind in kinds for f in vars(kind).values())
    return any("training" in f.__code__.co_names for f in methods if hasattr(f, "__code__"))


@contextmanager
def _module_calls(run: Run) -> Iterator[None]:
    """Record the values that go in and out of each submodule."""
    names = run.module_names

    def record(called: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], returned: Any) -> Any:
        name = names.get(id(called))
        if not name or run.calls_frozen:
            return None
        call, replaced = _call(run.watch, args, kwargs, returned)
        run.calls.setdefault(name, []).append(call)
        return replaced

    handle = register_module_forward_hook(record, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()
        _global_forward_hooks_with_kwargs.pop(handle.id, None)  # which the handle leaves there; compilers look


def _call(watch: Watch, args: tuple[Any, ...], kwargs: dict[str, Any], returned: Any) -> tuple[Call, Any]:
    """What is known of a call, and what the module returns instead: further tensors that it made, under labels of their own.

    With these labels it can be told at the end whether anything outside of the module has used them.
    """
    place, output = place_of_input(args, kwargs), output_of(returned)
    first = None if place is None else watch.values.get(id(argument(args, kwargs, place)))
    call = Call(first, None if output is None else watch.values.get(id(output)), len(args) + len(kwargs) > 1)
    if output is returned:
        return call, None
    if type(returned) not in (tuple, list):
        call.why = f"it returns a {type(returned).__name__}"
        return call, None
    passed = {id(value): key for key, value in (*enumerate(args), *kwargs.items()) if value is not None}
    items = list(returned)
    for position, item in enumerate(items[1:], 1):
        if item is None or isinstance(item, (bool, int, float, str)):
            call.rest.append({"value": item})
        elif id(item) in passed:
            call.rest.append({"argument": passed[id(item)]})
        elif isinstance(item, Tensor) and id(item) in watch.values:
            items[position] = torch.ops.aten.alias(item)
            call.made.append((position, watch.value(items[position]).bit))
            call.rest.append({"value": None})
        else:
            call.why = f"it also returns a {type(item).__name__}"
    call.kind = type(returned).__name__
    return call, type(returned)(items)
