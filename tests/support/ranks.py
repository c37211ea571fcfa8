"""Two processes that measure and adapt one network together, over gloo; what each case returns is left in a file for each rank.

`python -m tests.support.ranks FOLDER RANK SIZE MODULE` runs `MODULE.CASES`: name -> function of the ranks.
"""

import importlib
import os
import subprocess
import sys
import traceback
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

from coppice.methods.ranks import Ranks
from tests.support.waiting import LIMIT_S

WAIT = timedelta(seconds=120)
"""How long one rank waits for the other before it says that they do not call the same functions."""


class Gloo(Ranks):
    """Ranks of a gloo process group."""

    def __init__(self) -> None:
        self.rank, self.size = dist.get_rank(), dist.get_world_size()

    def sum(self, *tensors: Tensor) -> None:
        for tensor in tensors:
            whole = tensor.detach().contiguous()
            dist.all_reduce(whole)
            tensor.detach().copy_(whole)

    def agree(self, data: bytes) -> bytes:
        box = [data]
        dist.broadcast_object_list(box, 0)
        return box[0]


def start(folder: Path, size: int, module: str) -> list[subprocess.Popen]:
    """The processes; wait for them with `finished`."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    command = [sys.executable, "-m", "tests.support.ranks", str(folder)]
    return [
        subprocess.Popen([*command, str(rank), str(size), module], env=environment, stderr=subprocess.PIPE, text=True)
        for rank in range(size)
    ]


def finished(folder: Path, processes: list[subprocess.Popen]) -> list[dict]:
    """What each rank's cases have returned, by name; an error of one is raised with what all have said."""
    try:
        errors = [process.communicate(timeout=LIMIT_S)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert not any(process.returncode for process in processes), "\n".join(errors)
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(len(processes))]


def main(folder: str, rank: str, size: str, module: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{folder}/meeting", rank=int(rank), world_size=int(size), timeout=WAIT)
    cases, results = importlib.import_module(module).CASES, {}
    for name, case in cases.items():
        try:
            results[name] = case(Gloo())
        except BaseException:
            print(f"rank {rank} in {name}: {traceback.format_exc()}", file=sys.stderr)
            os._exit(1)
    torch.save(results, Path(folder) / f"{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
