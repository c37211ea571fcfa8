"""Nodes that jobs should not be sent to for a while."""

from __future__ import annotations

from coppice.slurm.nodes import expand

AVOID_S = 3600.0
"""How long a node on which a job died at once, or that failed, is not used."""
MOST = 32
"""Most nodes that are avoided at a time: after that many it is not the nodes."""


class BadNodes:
    """Remembers nodes, and forgets them again."""

    def __init__(self) -> None:
        self._until: dict[str, float] = {}

    def add(self, listed: str, now_s: float) -> list[str]:
        """Avoid the nodes in a list as Slurm writes them; returns their names."""
        try:
            nodes = expand(listed)
        except ValueError:  # not a list of nodes: "None assigned"
            return []
        self._until |= dict.fromkeys(nodes, now_s + AVOID_S)
        return nodes

    def listed(self, now_s: float) -> str:
        """Those that are avoided now, for `--exclude`."""
        self._until = {node: until for node, until in self._until.items() if until > now_s}
        return ",".join(sorted(sorted(self._until, key=self._until.__getitem__)[-MOST:]))
