"""Rows of the table of the zoo, and the page that holds it."""

from __future__ import annotations

import re
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from coppice.methods.measures.coverage import Coverage, coverage
from coppice.methods.network import Network
from tests.zoo.measure import Fault, Subject, Tried, listing_leaves, try_elements, walk
from tests.zoo.networks import FAMILIES, network

ENOUGH = 0.95
"""Share of the parameters that units should hold."""
HEADS = ("network", "parameters", "in units", "changes tried", "refused", "do not run", "not as claimed", "cannot learn", "trace",
         "walk", "what holds most of the rest")


@dataclass(frozen=True)
class Row:
    """What was measured on one network."""

    name: str
    coverage: Coverage
    traces: Sequence[Fault] = ()
    tried: Tried = field(default_factory=Tried)
    walked: Sequence[Fault] = ()

    @property
    def faults(self) -> list[Fault]:
        """Everything that does not hold."""
        return [*self.traces, *self.tried.faults, *self.walked]

    def cells(self) -> list[str]:
        counts = [str(self.tried.count(kind)) for kind in ("refused", "broken", "inexact", "dead")]
        marks = ["no" if not self.traces else str(len(self.traces)), "same" if not self.walked else self.walked[0].what[:60]]
        numbers = [f"{self.coverage.parameters:,}", f"{percent(self.coverage.share)} %", str(self.tried.number)]
        reasons = "; ".join(f"{_short(r)} ({percent(n / self.coverage.parameters)} %)" for r, n in self.coverage.reasons[:3])
        return [self.name, *numbers, *counts, *marks, reasons]


def measured(name: str) -> Row:
    """Measure one network of the zoo."""
    fresh = network(name)
    traces = listing_leaves(fresh)
    subject = Subject.of(fresh)
    tried = try_elements(subject)
    return Row(name, coverage(subject.network), traces, tried, walk(network(name)))


def percent(share: float) -> str:
    """Rounded down, so that 100 is all."""
    return str(int(100 * share + 1e-9))


def _short(reason: str) -> str:
    """One line of a cell: no bars, no long lists of names."""
    line = re.sub(r"\s+", " ", reason).replace("|", "/").replace("<", "&lt;")
    return line if len(line) <= 130 else f"{line[:127]}..."


def table(rows: Sequence[Row]) -> str:
    """The rows by family, as Markdown."""
    lines = []
    for family, names in FAMILIES.items():
        mine = [row for row in rows if row.name in names]
        if mine:
            lines += [f"### {family}", "", f"| {' | '.join(HEADS)} |", f"|{'---|' * len(HEADS)}"]
            lines += [f"| {' | '.join(row.cells())} |" for row in mine]
            lines.append("")
    return "\n".join(lines)


def summary(rows: Sequence[Row]) -> str:
    """What came out over all networks, as a list."""
    enough = sum(row.coverage.share >= ENOUGH for row in rows)
    parameters = sum(row.coverage.parameters for row in rows)
    total = sum(row.tried.number for row in rows)
    count = {kind: sum(row.tried.count(kind) for row in rows) for kind in ("refused", "broken", "inexact", "dead")}
    return "\n".join((
        f"- {len(rows)} networks, {parameters:,} parameters, {total:,} changes tried, each alone.",
        f"- {enough} of {len(rows)} networks have at least {ENOUGH:.0%} of their parameters in units that may come and go.",
        f"- {count['broken']} changes were offered after which the network does not run; {count['refused']} were refused with a "
        "reason when they were asked for.",
        f"- {count['inexact']} changes were claimed to keep the function and do not.",
        f"- {count['dead']} growths left something that three steps of gradient descent do not move.",
        f"- Listing the elements left a trace in {sum(bool(row.traces) for row in rows)} networks.",
        f"- {sum(not row.walked for row in rows)} of {len(rows)} walks of 15 random changes were rebuilt bit for bit.",
    ))


def speed(rounds: int = 3) -> str:
    """How long listing the elements of BERT base takes, beside one forward of 128 tokens and of 8 times 128."""
    import transformers

    torch.manual_seed(0)
    module = transformers.BertForSequenceClassification(transformers.BertConfig()).eval()
    tokens = torch.randint(0, 1000, (8, 128))
    listing, one, eight = [], [], []
    for _ in range(rounds):
        listing.append(_seconds(lambda: Network(module, "transformers:BertModel", {}, (tokens,)).elements()))
        one.append(_seconds(lambda: module(tokens[:1])))
        eight.append(_seconds(lambda: module(tokens)))
    a, b, c = (statistics.median(times) for times in (listing, one, eight))
    threads = torch.get_num_threads()
    millions = sum(p.numel() for p in module.parameters()) / 1e6
    return (f"BERT base ({millions:.0f} million parameters, {threads} thread): listing its elements takes {a:.2f} s, "
            f"{a / c:.1f} times one forward of 8 sequences of 128 tokens ({c:.2f} s), "
            f"{a / b:.1f} times one of a single sequence ({b:.2f} s).")


@torch.no_grad()
def _seconds(action) -> float:
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def fill(page: str, mark: str, content: str) -> str:
    """The page with `content` between the two marks."""
    start, end = f"<!-- {mark} -->", f"<!-- end of {mark} -->"
    before, _, rest = page.partition(start)
    _, _, after = rest.partition(end)
    if not rest or end not in page:
        raise ValueError(f"the page must hold {start} and {end}, but does not.")
    return f"{before}{start}\n{content}\n{end}{after}"
