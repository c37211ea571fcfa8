"""What lies between a layer that makes units and the one that uses them, recorded while the network runs and run again alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle
from torch.utils.weak import WeakIdKeyDictionary

from coppice.methods.measures.site import Site, through, why_not_zero
from coppice.methods.measures.statistics import frozen_modes
from coppice.methods.network import Network

Run = Callable[[Tensor], Tensor]
"""Output of a site's entry, [n, units, ...] -> input of its consumer; differentiable. Tokens are samples."""


class _Slot(int):
    """Where a value stands when a tape runs again."""


class Tape:
    """The calls that turn one tensor into another, with everything else that they took as constants."""

    def __init__(self, start: Tensor) -> None:
        self.shape = start.shape
        self._slots: WeakIdKeyDictionary = WeakIdKeyDictionary()
        self._slots[start] = _Slot(0)
        self._count = 1
        self._calls: list[tuple[Callable, Any, Any, Any]] = []
        self._result: _Slot | None = None
        self.open = True

    def record(self, func: Callable, args: Any, kwargs: Any, out: Any) -> None:
        """Keep a call when it takes something that was made on the way."""
        used = _map(self._find, (args, kwargs))
        if not _any_slot(used):
            return
        made = _map(self._make, out)
        if out is None or _any_slot(made):
            self._calls.append((func, *used, made))

    def close(self, end: Tensor) -> None:
        """The tensor that was wanted is here."""
        self._result = self._slots.get(end)
        self._slots = WeakIdKeyDictionary()
        self.open = False

    @property
    def complete(self) -> bool:
        """Whether the end was made from the start by calls that were seen."""
        return self._result is not None

    def __call__(self, z: Tensor) -> Tensor:
        """Run again from `z`, of the shape that the start had."""
        assert self._result is not None, "only complete tapes run"
        values: dict[int, Any] = {0: z.clone() if z.requires_grad else z}
        for func, args, kwargs, made in self._calls:
            given, named = _map(lambda v: values[v] if isinstance(v, _Slot) else v, (args, kwargs))
            _store(values, made, func(*given, **named))
        return values[self._result]

    def _find(self, value: Any) -> Any:
        return self._slots.get(value, value) if isinstance(value, Tensor) else value

    def _make(self, value: Any) -> Any:
        if not isinstance(value, Tensor):
            return None
        self._slots[value] = _Slot(self._count)
        self._count += 1
        return self._slots[value]


def _map(change: Callable[[Any], Any], tree: Any) -> Any:
    if isinstance(tree, (tuple, list)):
        return tuple(_map(change, v) for v in tree) if isinstance(tree, tuple) else [_map(change, v) for v in tree]
    if isinstance(tree, dict):
        return {k: _map(change, v) for k, v in tree.items()}
    return change(tree)


def _any_slot(tree: Any) -> bool:
    if isinstance(tree, (tuple, list)):
        return any(map(_any_slot, tree))
    return any(map(_any_slot, tree.values())) if isinstance(tree, dict) else isinstance(tree, _Slot)


def _store(values: dict[int, Any], made: Any, out: Any) -> None:
    if isinstance(made, _Slot):
        values[made] = out
    elif isinstance(made, (tuple, list)):
        for slot, value in zip(made, out, strict=True):
            _store(values, slot, value)


class Paths(TorchFunctionMode):
    """Within: each forward of the network leaves a tape of every site's path.

    What other code does with the path's tensors is followed too, in-place operations included. Paths with calls that PyTorch
    does not show (custom autograd functions) run with the whole network around them instead.
    """

    def __init__(self, network: Network, sites: Mapping[str, Site]) -> None:
        super().__init__()
        self._network, self._sites = network, sites
        self._tapes: dict[str, Tape] = {}
        self._handles: list[RemovableHandle] = []

    def __enter__(self) -> Paths:
        for name, site in self._sites.items():
            entry, consumer = (self._network.module.get_submodule(n) for n in (site.entry, site.consumer))
            self._handles.append(entry.register_forward_hook(self._starter(name)))
            self._handles.append(consumer.register_forward_pre_hook(self._ender(name)))
        super().__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        super().__exit__(kind, error, traceback)
        for handle in self._handles:
            handle.remove()

    def __torch_function__(self, func: Callable, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tape in self._tapes.values():
            if tape.open:
                tape.record(func, args, kwargs or {}, out)
        return out

    def of(self, name: str, inputs: Tensor) -> tuple[torch.Size, Run]:
        """Shape of the entry's output at the last forward, and the path of the site called `name`."""
        tape, site = self._tapes[name], self._sites[name]

        def run(z: Tensor) -> Tensor:
            with torch.set_grad_enabled(z.requires_grad):
                z = z.view(tape.shape) if site.tokens else z
                return site.rows(_run(tape, z) if tape.complete else through(self._network, site, inputs, z))

        return site.rows(torch.empty(tape.shape, device="meta")).shape, run

    def _starter(self, name: str) -> Callable[..., None]:
        def hook(module: Any, args: Any, output: Tensor) -> None:
            self._tapes[name] = Tape(output)

        return hook

    def _ender(self, name: str) -> Callable[..., None]:
        def hook(module: Any, args: Any) -> None:
            if name in self._tapes and self._tapes[name].open:
                self._tapes[name].close(args[0])

        return hook


def _run(tape: Tape, z: Tensor) -> Tensor:
    with torch.autocast(z.device.type, enabled=False), torch.set_grad_enabled(z.requires_grad):
        return tape(z).to(z.dtype)


def why_not_fan_in(network: Network, site: Site, inputs: Tensor) -> str | None:
    """Why new units of a site with zero fan-in would not learn, or would change the function; None when they are sound."""
    if site.batch_norm is not None:
        return f"BatchNorm {site.batch_norm} would multiply the gradient of zero fan-in by 1/sqrt(eps)"
    shape, run, like = path_of(network, site, inputs[:4])
    return why_not_zero(run, shape, like)


def path_of(network: Network, site: Site, inputs: Tensor) -> tuple[torch.Size, Run, Tensor]:
    """Shape of the entry's output for a batch, the path behind it, and a tensor of its dtype and device."""
    paths = Paths(network, {"": site})
    with frozen_modes(network.module), torch.no_grad(), paths:
        network.module(inputs)
    weight = network.module.get_submodule(site.producer).weight
    assert isinstance(weight, Tensor)
    return *paths.of("", inputs), weight.detach()
