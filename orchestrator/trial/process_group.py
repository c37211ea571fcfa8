"""The processes that train one trial together: how they become a group, what they agree on, and how one of them ends."""

from __future__ import annotations

import contextlib
import os
import time
import traceback
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from coppice.methods.ranks import ALONE, Ranks
from coppice.orchestrator.trial.errors import RanksLost
from coppice.orchestrator.trial.rank_store import RankStore
from coppice.orchestrator.trial.rendezvous import interface_towards, rendezvous

ANSWER_S = 1800.0
"""How long a rank waits for the others within training."""
PROBLEM_S = 5.0
"""How long rank 0 looks for the reason when another rank is gone."""
IDLE = timedelta(days=30)


class ProcessRanks(Ranks):
    """Ranks of torch.distributed: gloo for tensors on the CPU, nccl for those on GPUs.

    Rank 0 leads: it alone writes, and says through a small store whether the others go on.
    """

    def __init__(self, rank: int, size: int, store: Any) -> None:
        self.rank = rank
        self.size = size
        self._store = store
        self._commands_sent = 0

    def sum(self, *tensors: Tensor) -> None:
        """Sum over ranks in place; see `Ranks.sum`."""
        for tensor in tensors:
            whole = tensor.contiguous()
            dist.all_reduce(whole)
            if whole is not tensor:
                tensor.copy_(whole)

    def agree(self, data: bytes) -> bytes:
        """What rank 0 passes, on all ranks; see `Ranks.agree`."""
        length = torch.tensor([len(data)])
        dist.broadcast(length, 0)
        content = torch.zeros(int(length), dtype=torch.uint8)
        if self.rank == 0 and data:
            content = torch.frombuffer(bytearray(data), dtype=torch.uint8)
        if len(content):
            dist.broadcast(content, 0)
        return content.numpy().tobytes()

    def lead(self, what: str) -> None:
        """Rank 0: say what the others do next."""
        self._commands_sent += 1
        self._store.set(f"command/{self._commands_sent}", what)

    def follow(self) -> str:
        """Other ranks: wait for what rank 0 says.

        Raises:
            RanksLost: rank 0 is gone.
        """
        self._commands_sent += 1
        key = f"command/{self._commands_sent}"
        try:
            self._store.wait([key], IDLE)
            return self._store.get(key).decode()
        except Exception as error:
            raise RanksLost(f"rank 0 of {self.size} is gone: {error}") from error

    def report(self, error: BaseException) -> None:
        """Other ranks: leave word of what went wrong here, for rank 0 to find."""
        with contextlib.suppress(Exception):
            summary = f"rank {self.rank} of {self.size}: {type(error).__name__}: {error}"
            self._store.set(f"problem/{self.rank}", summary + "\n" + "".join(traceback.format_exception(error)))

    def problem(self, error: BaseException) -> str:
        """Rank 0: what went wrong on another rank, when that is why `error` was raised here; else nothing.

        Raises:
            RanksLost: another rank is gone and has left no word.
        """
        if not is_about_others(error):
            return ""
        end = time.monotonic() + PROBLEM_S
        while time.monotonic() < end:
            for rank in range(1, self.size):
                if self._store.check([f"problem/{rank}"]):
                    return self._store.get(f"problem/{rank}").decode()
            time.sleep(0.2)
        raise RanksLost(f"another rank is gone, of {self.size}: {error}") from error


def is_about_others(error: BaseException) -> bool:
    """Whether an error was raised because another rank does not answer."""
    text = str(error).lower()
    if isinstance(error, RanksLost):
        return True
    return isinstance(error, (dist.DistError, RuntimeError)) and any(w in text for w in ("gloo", "nccl", "connection", "socket"))


_CURRENT: list[Ranks] = [ALONE]


def current() -> Ranks:
    """The ranks that this process trains with."""
    return _CURRENT[-1]


@contextlib.contextmanager
def joined(place: Path, token: str, rank: int, size: int, address: str = "127.0.0.1") -> Iterator[ProcessRanks | None]:
    """Within: this process is rank `rank` of `size`, and `current` says so. None where it is alone.

    Args:
        place: a file on a file system that all ranks share; rank 0 writes there where it listens.
        token: the same on all ranks of one start and on no others; no secret.
        rank: 0 to size - 1.
        size: number of ranks; a single one needs nobody.
        address: at which the others reach rank 0; only rank 0's counts.

    Raises:
        TimeoutError: the others did not come.
    """
    if size == 1:
        yield None
        return
    with rendezvous(place, token, rank, size, address) as (store, at):
        yield from _grouped(store, at, rank, size)


def _grouped(store: RankStore, address: str, rank: int, size: int) -> Iterator[ProcessRanks]:
    os.environ.setdefault("GLOO_SOCKET_IFNAME", interface_towards(address))
    limit = timedelta(seconds=ANSWER_S)
    dist.init_process_group(_backend(), store=_within(store), rank=rank, world_size=size, timeout=limit)
    ranks = ProcessRanks(rank, size, store)
    _CURRENT.append(ranks)
    try:
        yield ranks
    except BaseException as error:
        if rank and not is_about_others(error):
            ranks.report(error)
        raise
    finally:
        _CURRENT.remove(ranks)
        dist.destroy_process_group()


def _within(store: Any) -> Any:
    return dist.PrefixStore("group", store)  # type: ignore[attr-defined]


def _backend() -> str:
    return "cpu:gloo,cuda:nccl" if torch.cuda.is_available() and dist.is_nccl_available() else "gloo"


def use_gpu(local: int) -> None:
    """Where a process sees the GPUs of all ranks on its node, take its own one."""
    if torch.cuda.is_available() and torch.cuda.device_count() > 1:
        torch.cuda.set_device(local)
