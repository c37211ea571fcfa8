"""What whatever runs as a trial (`body:` in a campaign file) must keep: subclass the suite and name the body."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from coppice.orchestrator.config.models import TrialSpec
from coppice.orchestrator.folder.events import read_events
from coppice.orchestrator.folder.files import write_json
from coppice.orchestrator.folder.layout import TrialFolder
from coppice.orchestrator.placement.runner import Body, load_body

WITHOUT = ("seconds", "time")
"""What may differ between two runs of the same trial."""


class BodyContract:
    """A body steps to its end, reports numbers, and goes on where it was.

    Attributes:
        body: as in a campaign file: `package.module:Class`.
        spec: of a trial of three or more epochs, as `params.json` has it: `task`, `training`, ..., with every value decided.
        metrics: that it must report after each epoch: those that a campaign searches by.
    """

    body: str
    spec: Mapping[str, Any]
    metrics: tuple[str, ...] = ("val_accuracy",)

    def open(self, folder: Path) -> Body:
        """The body on a trial's folder; what is there already is gone on with."""
        spec = TrialSpec.model_validate(dict(self.spec))
        params = TrialFolder(folder).params
        if not params.exists():
            write_json(params, {"spec": spec.model_dump(mode="json", by_alias=True), "params": {}})
        return load_body(self.body).open(spec, folder)

    def reports(self, folder: Path) -> list[dict[str, Any]]:
        """What was reported, oldest first, without what may differ between two runs."""
        events = read_events(TrialFolder(folder).events)
        return [{k: v for k, v in e.items() if k not in (*WITHOUT, "trial")} for e in events if e["type"] == "metrics"]

    def test_steps_to_its_end_and_reports_each_epoch_once(self, tmp_path: Path) -> None:
        body = self.open(tmp_path / "trial")
        returned = []
        while not body.done:
            returned.append(body.step())
            assert len(returned) < 1000, "a body must be done at some time"
        body.close()
        assert len(returned) >= 3, "give the suite a trial of at least three epochs"
        assert [m["epoch"] for m in returned] == list(range(1, len(returned) + 1))
        for name in ("epoch", "compute", *self.metrics):
            assert all(math.isfinite(m[name]) for m in returned), name
        assert [r["epoch"] for r in self.reports(tmp_path / "trial")] == [m["epoch"] for m in returned]

    def test_compute_never_falls(self, tmp_path: Path) -> None:
        body, spent = self.open(tmp_path / "trial"), [0.0]
        while not body.done:
            spent.append(body.step()["compute"])
        assert spent == sorted(spent)

    def test_goes_on_where_it_was(self, tmp_path: Path) -> None:
        """Its process ends after each epoch: the same numbers as in one go, each epoch once."""
        whole = self.open(tmp_path / "whole")
        while not whole.done:
            whole.step()
        whole.close()
        times = 0
        while not (body := self.open(tmp_path / "pieces")).done:
            body.step()
            times += 1
            assert times < 1000, "a body must go on from its checkpoint"
            self.settle(body)
            del body
        body.close()
        assert self.reports(tmp_path / "pieces") == self.reports(tmp_path / "whole")

    def settle(self, body: Body) -> None:
        """Tell the body that its process ends, as a time limit does: one with a method `save_now` keeps what it has reached."""
        getattr(body, "save_now", lambda: None)()

    def test_opening_a_finished_trial_does_nothing_again(self, tmp_path: Path) -> None:
        body = self.open(tmp_path / "trial")
        while not body.done:
            body.step()
        body.close()
        before = self.reports(tmp_path / "trial")
        assert self.open(tmp_path / "trial").done
        assert self.reports(tmp_path / "trial") == before
