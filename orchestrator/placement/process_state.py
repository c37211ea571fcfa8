"""What a trial may change in the process it runs in, and how that is undone before the next trial."""

from __future__ import annotations

import gc
import logging
import os
import random
import sys
import tempfile
import warnings
from dataclasses import dataclass, field
from typing import Any

import numpy

from coppice.user_code import is_users


def _current_umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current


@dataclass
class ProcessState:
    """The process as it is before its first trial.

    Python modules that a trial imports from outside the installed packages are forgotten again, so that what they keep in
    globals does not reach the next trial; the next one imports them afresh.
    """

    cwd: str = field(default_factory=os.getcwd)
    environment: dict[str, str] = field(default_factory=lambda: dict(os.environ))
    path: list[str] = field(default_factory=lambda: list(sys.path))
    modules: frozenset[str] = field(default_factory=lambda: frozenset(sys.modules))
    filters: list[Any] = field(default_factory=lambda: list(warnings.filters))
    temporary: str | None = field(default_factory=lambda: tempfile.tempdir)
    level: int = field(default_factory=lambda: logging.getLogger().level)
    handlers: list[logging.Handler] = field(default_factory=lambda: list(logging.getLogger().handlers))
    umask: int = field(default_factory=_current_umask)
    torch: dict[str, Any] | None = None

    def seed(self, seed: int) -> None:
        """Start every global random stream from `seed`, and note how PyTorch is set where it has been imported meanwhile."""
        random.seed(seed)
        numpy.random.seed(seed % 2**32)
        if "torch" in sys.modules:
            import torch

            if self.torch is None:
                self.torch = _torch_settings()
                self.filters = list(warnings.filters)  # importing PyTorch adds its own
                gc.freeze()  # what is loaded now stays: collections after a trial need not look at it again
            torch.manual_seed(seed)

    def restore(self) -> None:
        """Undo what the last trial has changed."""
        os.chdir(self.cwd)
        os.environ.clear()
        os.environ.update(self.environment)
        os.umask(self.umask)
        sys.path[:] = self.path
        for name in [n for n in sys.modules if n not in self.modules and _is_users(n)]:
            del sys.modules[name]
        warnings.resetwarnings()
        warnings.filters[:] = self.filters  # type: ignore[index]
        tempfile.tempdir = self.temporary
        logging.getLogger().setLevel(self.level)
        logging.getLogger().handlers[:] = self.handlers
        if "torch" in sys.modules:
            _restore_torch(self.torch)
            gc.collect()


def _is_users(name: str) -> bool:
    """Whether a module that is loaded is the user's own, and not the program itself."""
    return name != "__main__" and is_users(name, getattr(sys.modules[name], "__file__", None) or "")


def _torch_settings() -> dict[str, Any]:
    import torch

    return {
        "dtype": torch.get_default_dtype(),
        "threads": torch.get_num_threads(),
        "grad": torch.is_grad_enabled(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "warn_only": torch.is_deterministic_algorithms_warn_only_enabled(),
        "precision": torch.get_float32_matmul_precision(),
        "anomaly": torch.is_anomaly_enabled(),
        "benchmark": torch.backends.cudnn.benchmark,
    }


def _restore_torch(settings: dict[str, Any] | None) -> None:
    import torch

    known = settings or {**_torch_settings(), "dtype": torch.float32, "grad": True, "deterministic": False, "anomaly": False}
    torch.set_default_dtype(known["dtype"])
    torch.set_default_device(None)
    if torch.get_num_threads() != known["threads"]:
        torch.set_num_threads(known["threads"])
    torch.set_grad_enabled(known["grad"])
    torch.use_deterministic_algorithms(known["deterministic"], warn_only=known["warn_only"])
    torch.set_float32_matmul_precision(known["precision"])
    torch.autograd.set_detect_anomaly(known["anomaly"])
    torch.backends.cudnn.benchmark = known["benchmark"]
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
