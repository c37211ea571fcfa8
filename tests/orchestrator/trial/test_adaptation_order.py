"""Several adaptations of a trial: they act in the order of the campaign file, and each sees the network after those before it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coppice.methods.apply import apply
from coppice.methods.graph.values import Element
from coppice.methods.method import Context, Measurement
from coppice.methods.plan import RemovePlan
from coppice.methods.pruning.magnitude import Magnitude
from coppice.orchestrator.config.models import TrialSpec
from coppice.orchestrator.folder.events import read_events
from coppice.orchestrator.trial.trial import Trial
from tests.orchestrator.trial.test_adaptation import grow, prune, run, tree
from tests.orchestrator.trial.test_trial import files, structural


@dataclass(frozen=True)
class FanOut(Magnitude):
    """Importance is the norm of outgoing weights."""

    def measure(self, context: Context, elements: Sequence[Element], most: Mapping[str, int]) -> Measurement:
        weight = context.network.module.hidden[2].weight.detach()  # type: ignore[index, union-attr]
        return Measurement({e.name: weight.norm(dim=0) for e in elements})


class TestOrder:
    """Two adaptations that want the same element after the same epoch."""

    def order(self, folder: Path, *adaptations: dict[str, Any]) -> list[tuple[int, str, int, int]]:
        run(tree(*adaptations), folder)
        events = [e for e in structural(folder) if e["epoch"] == 2 and e["element"] == "hidden.0.weight:0"]
        return [(e["adaptation"], e["kind"], e["size_before"], e["size_after"]) for e in events]

    def test_they_act_in_the_order_of_the_file_and_the_second_sees_the_first(self, tmp_path: Path) -> None:
        more = grow({"periodic": {"every": 2, "until": 2}}, amount=1.0)
        less = prune({"periodic": {"every": 2, "until": 2}}, how="magnitude", amount=0.5, where="all")
        for again in ("a", "b"):
            assert self.order(tmp_path / f"g{again}", more, less) == [(0, "grow", 8, 16), (1, "prune", 16, 8)]
            assert self.order(tmp_path / f"p{again}", less, more) == [(0, "prune", 8, 4), (1, "grow", 4, 8)]
        assert files(tmp_path / "ga") == files(tmp_path / "gb") and files(tmp_path / "pa") == files(tmp_path / "pb")

    def test_the_second_measures_the_network_after_the_first(self, tmp_path: Path) -> None:
        """The new units, whose outgoing weights are zero, are the ones that magnitude removes again."""
        once = {"periodic": {"every": 2, "until": 2}}
        more = grow(once, how="random", amount=4, elements=["hidden.0.*"])
        less = prune(once, how=f"{__name__}:FanOut", amount=4, where="all", elements=["hidden.0.*"])
        run(tree(more, less), tmp_path / "t")
        pruned = [e for e in structural(tmp_path / "t") if e["kind"] == "prune"]
        assert [e["units"] for e in pruned] == [[8, 9, 10, 11]]

    def test_a_refractory_second_waits_for_the_next_epochs(self, tmp_path: Path) -> None:
        more = grow({"periodic": {"every": 2, "until": 2}}, amount=1.0)
        less = prune({"periodic": {"every": 1, "refractory": 1}}, how="magnitude", amount=0.1, where="all")
        trial = run(tree(more, less), tmp_path / "t")
        assert trial.adaptations.all[0].acted == [2]
        assert trial.adaptations.all[1].acted == [1, 4]

    def test_the_second_is_told_the_costs_after_the_first(self, tmp_path: Path) -> None:
        """Growth passes the target at once; pruning brings it back after the same epoch."""
        more = grow({"periodic": {"every": 2, "until": 2}}, amount=40)
        less = prune({"target": {"size": 700}}, how="magnitude", amount=1.0, where="all")
        trial = run(tree(more, less), tmp_path / "t")
        grown, expected = 64 * 48 + 48 + 48 * 48 + 48 + 48 * 10 + 10, 64 * 16 + 16 + 16 * 16 + 16 + 16 * 10 + 10
        assert round(48 * (700 / grown) ** 0.5) == 16
        assert trial.adaptations.all[1].acted[0] == 2 and trial.history[1]["parameters"] == expected

    def test_what_was_shrunk_to_zero_is_a_change(self, tmp_path: Path) -> None:
        once, shrink = {"periodic": {"every": 2, "until": 2}}, {"shrink": {"steps": 6}}
        less = prune(once, how="magnitude", amount=0.25, where="all", removal=shrink, elements=["hidden.0.*"])
        more = grow({"periodic": {"every": 1, "from": 3, "refractory": 1}}, elements=["hidden.2.*"])
        trial = run(tree(less, more), tmp_path / "t")
        assert [e["epoch"] for e in structural(tmp_path / "t") if e["kind"] == "prune"] == [4]
        assert trial.adaptations.all[1].acted == [3] and trial.adaptations.changed == [3, 4]

    def test_what_one_is_shrinking_is_left_alone_by_the_others(self, tmp_path: Path) -> None:
        """Units are known by their numbers, which another removal in the same element would change."""
        once, shrink = {"periodic": {"every": 10, "from": 1}}, {"shrink": {"steps": 10}}
        first = prune(once, how="magnitude", amount=2, where="all", elements=["hidden.0.*"], removal=shrink)
        second = prune({"periodic": {"every": 1, "until": 4}}, how="magnitude", amount=1, where="all", elements=["hidden.0.*"])
        trial = Trial.open(TrialSpec.model_validate(tree(first, second)), tmp_path / "t")
        trial.step()
        marked = [trial.adaptations.all[0].shrinking[0].units]
        trial.run()
        events = [e for e in structural(tmp_path / "t") if e["kind"] == "prune"]
        assert [(e["epoch"], e["adaptation"]) for e in events] == [(4, 0), (4, 1)]
        assert tuple(events[0]["units"]) == marked[0]
        said = [e for e in read_events(tmp_path / "t" / "events.jsonl") if e["type"] == "skipped" and e["epoch"] == 2]
        assert "being shrunk to zero" in said[0]["reason"]

    def test_a_shrinking_element_that_goes_away_is_said(self, tmp_path: Path) -> None:
        """A block is removed by hand while units in it shrink."""
        once, shrink = {"periodic": {"every": 10, "from": 1}}, {"shrink": {"steps": 1000}}
        spec = tree(prune(once, how="magnitude", amount=1, where="all", removal=shrink), dataset="digits", network="resnet",
                    network_args={"depth": 8, "width": 0.25})  # fmt: skip
        trial = Trial.open(TrialSpec.model_validate(spec), tmp_path / "t")
        trial.step()
        inside = [s.element for s in trial.adaptations.all[0].shrinking if s.element.startswith("stages.0.0.")]
        assert inside
        apply(trial.network, RemovePlan("stages.0.0"), trial.trainer.followers)
        trial.run()
        said = [e["reason"] for e in read_events(tmp_path / "t" / "events.jsonl") if e["type"] == "skipped"]
        assert any(inside[0] in reason and "is gone" in reason for reason in said)

    def test_a_block_with_shrinking_units_is_not_removed(self, tmp_path: Path) -> None:
        once, shrink = {"periodic": {"every": 10, "from": 1}}, {"shrink": {"steps": 999}}
        shrinks = prune(once, how="magnitude", amount=1, where="all", removal=shrink)
        removes = prune({"periodic": {"every": 1}}, how="remove_blocks", amount=1, where="all")
        resnet = {"dataset": "digits", "network": "resnet", "network_args": {"depth": 8, "width": 0.25}}
        inside = {"stages.0.0", "stages.0.0.conv1", "stages.0.0.conv1.0"}
        for name, adaptations, removed in (("both", (shrinks, removes), False), ("alone", (removes,), True)):
            run(tree(*adaptations, **resnet), tmp_path / name)
            first = {e["element"] for e in structural(tmp_path / name) if e["epoch"] == 1}
            assert bool(first & inside) == removed, first
