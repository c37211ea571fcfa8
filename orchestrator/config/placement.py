"""Where the trials of a campaign run, as its file says it: `local`, `job: {site: ...}` or `pool: {site: ..., nodes: ...}`."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_serializer, model_validator

from coppice.orchestrator.config.base import Model, Number, Truth, Whole
from coppice.slurm.site import Site, load_site

Count = Annotated[Whole, Field(ge=0)]
AtLeastOne = Annotated[Whole, Field(ge=1)]
Positive = Annotated[Number, Field(gt=0)]
GENERIC = "generic"
"""The site of campaigns that name none."""


class PlacementSpec(Model):
    """What all placements have. Written as a name, or as a mapping of the name to arguments."""

    name: ClassVar[str]
    dashboard: Truth = False
    """Start Ray's dashboard."""

    @model_validator(mode="before")
    @classmethod
    def _from_short_form(cls, value: Any) -> Any:
        if value == cls.name:
            return {}
        if isinstance(value, dict) and set(value) == {cls.name}:
            return {} if value[cls.name] is None else value[cls.name]
        if isinstance(value, dict) and value.get("name") == cls.name and set(value) <= {"name", "arguments"}:
            return value.get("arguments") or {}
        return value

    @model_serializer(mode="wrap")
    def _short_form(self, handler: Any) -> Any:
        given = {key: value for key, value in handler(self).items() if key in self.model_fields_set}
        return {self.name: given} if given else self.name

    def open_site(self) -> Site:
        """The Slurm site of its jobs; where trials run on this machine, one that counts cores.

        Raises:
            SiteError: there is no such site, or its file is wrong.
        """
        return load_site(GENERIC)


class LocalPlacement(PlacementSpec):
    """Trials are processes of this machine."""

    name = "local"
    cpus: Count | None = None
    """Cores for all trials together; all there are, where it is left out."""
    gpus: Count | None = None
    """GPUs for all trials together; all there are, where it is left out."""


class SlurmPlacement(PlacementSpec):
    """What placements by way of Slurm have."""

    site: str = GENERIC
    """Name of a site, or a site file."""
    account: str | None = None
    """Project to be billed."""
    gpu_type: str | None = None
    """Kind of GPU, as the site names it; the site's first, where it is left out."""
    memory_gb: Positive | None = None
    """Memory of a node; the site's share, where it is left out."""
    poll_s: Positive | None = None
    """Least time between two questions to Slurm, seconds; the site's, where it is left out."""

    def open_site(self) -> Site:
        """The site of its jobs, asked as often as this placement says.

        Raises:
            SiteError: there is no such site, or its file is wrong.
        """
        site = load_site(self.site)
        if self.poll_s is None:
            return site
        return site.model_copy(update={"limits": site.limits.model_copy(update={"poll_every_s": self.poll_s})})


class JobPlacement(SlurmPlacement):
    """Each trial is a Slurm job."""

    name = "job"
    parallel: AtLeastOne = 256
    """Jobs of one array that may run at a time."""
    cpus: Count | None = None
    """May be given, as for the other placements, but changes nothing: `resources` says what a trial gets."""


class PoolPlacement(SlurmPlacement):
    """Slurm jobs bring nodes, and trials are packed onto them."""

    name = "pool"
    nodes: AtLeastOne = 1
    """How many nodes there are at most."""
    gpus: Count | None = None
    """GPUs of a node; all that its nodes have, where it is left out."""
    cpus: AtLeastOne | None = None
    """Cores of a node; the share of its GPUs, where it is left out."""
    hours: Positive | None = None
    """Time limit of a node's job; that of `resources`, or a day, where it is left out."""
    address: str | None = None
    """Address of this machine, as the nodes see it, where it cannot be found."""


PLACEMENTS: dict[str, type[PlacementSpec]] = {p.name: p for p in (LocalPlacement, JobPlacement, PoolPlacement)}


def _name_of(value: Any) -> Any:
    """The name by which a placement is written, in whatever form."""
    if isinstance(value, PlacementSpec):
        return value.name
    if isinstance(value, dict):
        names = [value["name"]] if "name" in value and set(value) <= {"name", "arguments"} else list(value)
        return names[0] if len(names) == 1 else value
    return value


def _known(value: Any) -> Any:
    name = _name_of(value)
    if not isinstance(name, str) or name not in PLACEMENTS:
        raise ValueError(f"placement must be one of {list(PLACEMENTS)}, but got {name!r}.")
    return value


Placement = Annotated[
    Annotated[LocalPlacement, Tag("local")] | Annotated[JobPlacement, Tag("job")] | Annotated[PoolPlacement, Tag("pool")],
    Discriminator(_name_of),
    BeforeValidator(_known),
]
"""Any of them, told apart by name."""
