"""What a Slurm site wants and allows. One YAML file a site, checked; everything that differs between sites is data here."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

SITES = Path(__file__).with_name("sites")
Word = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.:@/+-]+$")]
"""A name as Slurm knows them: no blanks, no quotes, nothing that a shell or a comma list could take apart."""
Expression = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.:@/+*,&|()\[\]-]+$")]
"""Constraints: words with the operators of `--constraint`."""


class Model(BaseModel):
    """Frozen, and strict about unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Queue(Model):
    """A way to hand in jobs: the first queue of a site that a job fits is taken.

    Attributes:
        max_min: longest time limit, minutes.
        gpus: whether jobs with GPUs, jobs without, or both go here.
        partition, qos, constraint: given to Slurm; what is None is left to the site's default.
        max_nodes: largest job.
        gpu_types: only for these kinds of GPUs; empty for all.
    """

    max_min: int = Field(ge=1)
    gpus: Literal["only", "none", "any"] = "any"
    partition: Word | None = None
    qos: Word | None = None
    constraint: Expression | None = None
    max_nodes: int | None = Field(None, ge=1)
    gpu_types: tuple[Word, ...] = ()


class GpuNodes(Model):
    """One kind of GPU and the nodes that have it.

    Attributes:
        type: as the site names it; None where jobs do not name it.
        per_node: GPUs of one node.
        cpus_per_gpu: share of a node's cores.
        memory_gb_per_gpu: share of a node's memory.
        constraint: that selects these nodes, where the type itself is not part of the request.
    """

    type: Word | None = None
    per_node: int = Field(ge=1)
    cpus_per_gpu: int = Field(1, ge=1)
    memory_gb_per_gpu: float | None = Field(None, gt=0)
    constraint: Expression | None = None


class Account(Model):
    """`--account`: whether it must be given, and how it is written with and without GPUs.

    `{account}` and `{gpu_type}` are filled in.
    """

    required: bool = False
    template: str = "{account}"
    without_gpus: str = "{account}"


class Limits(Model):
    """What the site's controller bears.

    Attributes:
        array_size: most jobs in one array; Slurm's MaxArraySize is one more.
        submitted: most jobs of one user in the queue; None where it is not known.
        poll_every_s: least time between two questions to the controller.
    """

    array_size: int = Field(1000, ge=1)
    submitted: int | None = Field(None, ge=1)
    poll_every_s: float = Field(30.0, gt=0)


class Scratch(Model):
    """Where campaigns belong: expires after `days` without a word, holds `files` files and `gb` gigabytes at most."""

    path: str | None = None
    days: int | None = Field(None, ge=1)
    files: int | None = Field(None, ge=1)
    gb: float | None = Field(None, gt=0)


class Site(Model):
    """A Slurm cluster.

    Attributes:
        name: of the file.
        about: source of these facts, and when they were read.
        queues: in the order in which they are tried.
        gpu_nodes: kinds of GPUs; empty where there are none.
        cpu_constraint: of jobs without GPUs.
        gpu_style: how GPUs are asked for: `--gres=gpu:n`, `--gres=gpu:type:n` or `--gpus-per-node=n`.
        memory_style: how memory is asked for; `none` where cores bring theirs along.
        memory_gb_per_cpu: share of a node's memory, where memory is asked for by core.
        exclusive: whose nodes are while a job runs: whole nodes of one `job` or one `user`, or shared.
        billing: what is counted: the cores of a job, or whole nodes.
        requeue: whether a job may requeue itself; `probe` where nobody says.
        preempt_signal: whether preempted jobs get their own signal (`preempt_send_user_signal`), else only SIGTERM.
        local_disk: environment variable or path of the node's own disk.
        prologue: shell lines before the job's command (modules); written by whoever wrote the site file.
        srun_args: further arguments of srun.
        wckey: `--wckey`; empty for none.
    """

    name: Word
    about: str = ""
    queues: tuple[Queue, ...] = Field(min_length=1)
    gpu_nodes: tuple[GpuNodes, ...] = ()
    cpu_constraint: Expression | None = None
    gpu_style: Literal["gres", "gres-typed", "gpus-per-node"] = "gres"
    memory_style: Literal["mem-per-cpu", "mem", "mem-per-gpu", "none"] = "mem-per-cpu"
    memory_gb_per_cpu: float | None = Field(None, gt=0)
    account: Account = Account()
    limits: Limits = Limits()
    exclusive: Literal["job", "user", "shared"] = "shared"
    billing: Literal["cores", "nodes"] = "cores"
    requeue: Literal["yes", "no", "probe"] = "probe"
    preempt_signal: bool = False
    scratch: Scratch = Scratch()
    local_disk: str | None = None
    prologue: tuple[str, ...] = ()
    srun_args: tuple[str, ...] = ()
    wckey: str = ""

    @model_validator(mode="after")
    def _typed_gpus_have_types(self) -> Site:
        if self.gpu_style == "gres-typed" and any(kind.type is None for kind in self.gpu_nodes):
            raise ValueError("gpu_style gres-typed needs a type for each of gpu_nodes")
        return self


class SiteError(ValueError):
    """A site file or a request to a site is wrong; the message says what must hold, what was given and what to do."""


def known_sites() -> list[str]:
    """Names of the sites that come along."""
    return sorted(path.stem for path in SITES.glob("*.yaml"))


def load_site(name: str | Path) -> Site:
    """The site called `name`, or the one that a YAML file of the user's describes.

    Raises:
        SiteError: no such site or file, a key that is unknown, or a value that does not fit; all problems at once.
    """
    path = Path(name)
    if path.suffix not in (".yaml", ".yml"):
        path = SITES / f"{name}.yaml"
        if str(name) not in known_sites():
            near = difflib.get_close_matches(str(name), known_sites(), n=1)
            hint = f" (did you mean {near[0]}?)" if near else ""
            raise SiteError(f"site must be one of {known_sites()} or a file that ends in .yaml, but is {str(name)!r}{hint}.")
    try:
        tree = yaml.safe_load(path.read_text())
    except OSError as error:
        raise SiteError(f"site file {path} must be readable, but {error.strerror}.") from None
    except yaml.YAMLError as error:
        raise SiteError(f"site file {path} must be YAML, but: {error}.") from None
    if not isinstance(tree, dict):
        raise SiteError(f"site file {path} must be a mapping of keys like queues and account.")
    try:
        return Site.model_validate({"name": path.stem, **tree})
    except ValidationError as error:
        raise SiteError(f"site file {path} has {error.error_count()} problems:\n" + "\n".join(_problems(error))) from None


def _problems(error: ValidationError) -> list[str]:
    lines = []
    for one in error.errors():
        place = ".".join(map(str, one["loc"]))
        known = [n for m in (Site, Queue, GpuNodes, Account, Limits, Scratch) for n in m.model_fields]
        if one["type"] == "extra_forbidden":
            near = difflib.get_close_matches(str(one["loc"][-1]), known, n=1)
            lines.append(f"  {place}: unknown key" + (f"; did you mean {near[0]!r}?" if near else ""))
        else:
            lines.append(f"  {place}: {one['msg'].removeprefix('Value error, ')} (got {one['input']!r})")
    return lines
