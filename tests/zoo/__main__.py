"""`python -m tests.zoo [NAME ...]` measures the networks of the zoo and prints it; `--page` writes the table of docs/zoo.md."""

import argparse
import sys
import warnings
from pathlib import Path

import torch

from tests.zoo.networks import NETWORKS
from tests.zoo.table import Row, fill, measured, speed, summary, table

PAGE = Path(__file__).parents[2] / "docs" / "zoo.md"


def _measured(name: str) -> Row:
    row = measured(name)
    print(" | ".join(row.cells()), flush=True)
    for fault in row.faults:
        print(f"    {fault.kind}: {fault.element}: {fault.what}", flush=True)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.zoo", description=__doc__)
    parser.add_argument("names", nargs="*", help="which networks; all of them when none is named", metavar="NAME")
    parser.add_argument("--page", action="store_true", help="write the table of all networks into docs/zoo.md")
    parser.add_argument("--speed", action="store_true", help="time the listing of a network of real size as well")
    given = parser.parse_args()
    unknown = sorted(set(given.names) - NETWORKS.keys())
    if unknown or (given.page and given.names):
        parser.error(f"no such network: {', '.join(unknown)}" if unknown else "--page measures all networks: name none")
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    rows = [_measured(name) for name in given.names or NETWORKS]
    print(f"\n{summary(rows)}")
    timed = speed() if given.speed or given.page else ""
    print(timed)
    if given.page:
        page = PAGE.read_text()
        for mark, content in (("summary", summary(rows)), ("speed", timed), ("table", table(rows))):
            page = fill(page, mark, content)
        PAGE.write_text(page)
    sys.exit(any(row.faults for row in rows))


if __name__ == "__main__":
    main()
