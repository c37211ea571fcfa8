"""Peak extra memory of a growth event of VGG11 at batch 128 and 32x32. Goal: below 1x the activations of the forward.

Counted is what PyTorch's allocator gives out and takes back while an event runs (measure, plan and apply of every hidden element
at once, by an eighth), beyond what is there before (weights, batch); the workspaces that LAPACK asks for itself are not. The
yardstick is the same count after a forward in training mode: what backward needs.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch.profiler import ProfilerActivity, profile

from coppice.methods.adaptation.adapt import adapt
from coppice.methods.adaptation.candidates import Scope
from coppice.methods.event import Event
from coppice.methods.growth.gradmax import GradMax
from coppice.methods.growth.tiny.method import Tiny
from coppice.methods.method import Context
from coppice.methods.network import Network
from coppice.methods.networks.vgg import vgg11
from coppice.methods.selection import All

BATCH, FRACTION = 128, 0.125
MIB = 2**20


def peak(action: Callable[[], object]) -> tuple[int, int]:
    """Bytes beyond those at the start, at the peak and at the end, while what the action returns is alive."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        result = action()
    assert profiler.profiler is not None
    allocations = [e for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]
    now = most = 0
    for event in sorted(allocations, key=lambda e: e.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    del result
    return most, now


def main() -> None:
    torch.manual_seed(0)
    inputs, targets = torch.randn(BATCH, 3, 32, 32), torch.randint(10, (BATCH,))
    print(f"{'network':10s} {'method':9s} {'elements':>8s} {'forward, MiB':>13s} {'event, MiB':>11s} {'ratio':>6s}  (goal < 1)")
    for name, method in (("gradmax", GradMax()), ("tiny", Tiny(line_search=False))):
        module = vgg11(10)
        network = Network(module, "coppice.methods.networks.vgg:vgg11", {"num_classes": 10}, (inputs[:2],))
        ctx = Context(network, lambda n: [(inputs, targets)] * n, torch.nn.functional.cross_entropy, torch.Generator())
        _, forward = peak(partial(module, inputs))
        network.elements()
        events: list[Event] = []
        act = partial(adapt, ctx, method, All(), FRACTION, Scope())
        most, _ = peak(lambda act=act, events=events: events.extend(act().events))
        line = f"vgg11-bn   {name:9s} {len(events):8d} {forward / MIB:13.0f} {most / MIB:11.0f} {most / forward:6.2f}"
        print(line, flush=True)


if __name__ == "__main__":
    main()
