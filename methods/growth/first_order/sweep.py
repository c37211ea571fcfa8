"""All sites of a network in one forward and one backward pass per batch, a few samples at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from coppice.methods.growth.first_order.path import Paths, Run
from coppice.methods.measures.site import Site
from coppice.methods.measures.statistics import Seen, observe
from coppice.methods.method import Context
from coppice.methods.network import Network
from coppice.methods.ranks import ALONE

CHUNK_BYTES = 48 * 2**20
"""Memory for what one pass keeps: the batch is cut into pieces of samples that need about as much."""


Drawn = tuple[int, int] | None
"""Where random points are drawn for more samples than there are: the first of these, and how many those are."""


@dataclass(frozen=True)
class View:
    """Some samples at one site, in the dtype of the weights. Where the layers work on tokens, each token is a sample.

    Attributes:
        site: which.
        producer: the layer that makes its units.
        consumer: the layer that uses them.
        before: input of the producer.
        behind: input of the consumer.
        gradient: of the loss, summed over samples, at the consumer's output.
        shape: of the entry's output.
        run: the path from there to the consumer's input.
        drawn: what random points are drawn for; None: these samples.
        each: rows of every sample: its tokens, or 1.
    """

    site: Site
    producer: nn.Linear | nn.Conv2d
    consumer: nn.Linear | nn.Conv2d
    before: Tensor
    behind: Tensor
    gradient: Tensor
    shape: torch.Size
    run: Run
    drawn: Drawn
    each: int = 1


def layers_of(network: Network, site: Site) -> tuple[nn.Linear | nn.Conv2d, nn.Linear | nn.Conv2d]:
    """Producer and consumer of a site."""
    producer, consumer = (network.module.get_submodule(n) for n in (site.producer, site.consumer))
    assert isinstance(producer, (nn.Linear, nn.Conv2d)) and isinstance(consumer, (nn.Linear, nn.Conv2d)), "sites have these"
    return producer, consumer


def sweep(context: Context, sites: Mapping[str, Site], use: Callable[[str, View], None], num_batches: int) -> int:
    """Show `use` every site of every piece of a batch, by name. Returns the number of samples on all ranks.

    The network runs in eval mode, where samples do not depend on each other: pieces give the same sums as the whole batch. What
    `use` adds up must be summed over `context.ranks` afterwards.
    """
    if not sites:
        return 0
    network = context.network
    names = list(dict.fromkeys(n for s in sites.values() for n in (s.producer, s.consumer)))
    paths, pieces = Paths(network, sites), Pieces(context, rows_at_once(network))

    def show(seen: dict[str, Seen], inputs: Tensor) -> None:
        for name, site in sites.items():
            with torch.autocast(inputs.device.type, enabled=False):
                use(name, _view(network, site, seen, *paths.of(name, inputs), pieces.drawn))

    with paths:
        consumers = {site.consumer for site in sites.values()}
        samples = observe(replace(context, batches=pieces, ranks=ALONE), names, show, num_batches, consumers)
    return context.ranks.count(samples)


def _view(network: Network, site: Site, seen: Mapping[str, Seen], shape: torch.Size, run: Run, drawn: Drawn) -> View:
    producer, consumer = layers_of(network, site)
    dtype, gradient = consumer.weight.dtype, seen[site.consumer].gradient
    assert gradient is not None, "the loss depends on the consumer"
    before, behind = (site.rows(seen[n].input.to(dtype)) for n in (site.producer, site.consumer))
    each = shape[0] // len(gradient)
    drawn = drawn and (drawn[0] * each, drawn[1] * each)
    return View(site, producer, consumer, before, behind, site.rows(gradient.to(dtype)), shape, run, drawn, each)


class Pieces:
    """A rank's share of the batches, cut into pieces of `rows` samples.

    Attributes:
        drawn: of the last piece. A batch that one process would take in one piece has one draw of random points for all ranks
            together, so that they measure what one process would; other pieces have draws of their own, as they have there.
    """

    def __init__(self, context: Context, rows: int) -> None:
        self.drawn: Drawn = None
        self._context, self._rows = context, rows

    def __call__(self, count: int) -> Iterator[tuple[Tensor, Tensor]]:
        """See `Batches`."""
        ranks, rows = self._context.ranks, self._rows
        for inputs, targets in self._context.shards(count):
            total = ranks.count(len(targets))
            self.drawn = (ranks.share(total).start, total) if ranks.size > 1 and total <= rows else None
            if isinstance(inputs, Tensor) and isinstance(targets, Tensor) and len(inputs) == len(targets):
                yield from zip(inputs.split(rows), targets.split(rows), strict=True)
            else:
                yield inputs, targets


def rows_at_once(network: Network) -> int:
    """Samples that may go through the network at once, from the sizes of what its modules return."""
    entries = sum(math.prod(d.size for d in call.output[1:]) for call in network.graph().modules.values() if call.output)
    return max(1, CHUNK_BYTES // (16 * max(entries, 1)))


def groups(items: Iterable[tuple[str, int]], most: int) -> list[list[str]]:
    """Names in their order, cut where the sum of their sizes would be above `most`."""
    grouped: list[list[str]] = []
    size = 0
    for name, one in items:
        if not grouped or size + one > most:
            grouped.append([])
            size = 0
        grouped[-1].append(name)
        size += one
    return grouped
