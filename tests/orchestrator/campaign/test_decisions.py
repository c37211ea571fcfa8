"""What the trial scheduler decided is kept, and what nobody has seen is decided before anything runs."""

from pathlib import Path

from coppice.orchestrator.campaign.decisions import read_decisions, take_up, trial_scheduler
from coppice.orchestrator.config.models import Campaign
from coppice.orchestrator.folder.events import read_events, status_event
from coppice.orchestrator.folder.layout import CampaignFolder
from coppice.orchestrator.folder.trials import TrialRecords
from coppice.scheduler.trials import Decision
from tests.support.campaigns import campaign

ASHA = {"scheduler": {"asha": {"max_epochs": 8, "reduction_factor": 2}}}


def away(tmp_path: Path, accuracies: dict[str, list[float]], placement: str = "job") -> tuple[Campaign, CampaignFolder]:
    """A campaign whose trials have reported these while no driver lived, one after the other."""
    spec = campaign(tmp_path, training={"epochs": 8}, search={"trials": 4, **ASHA}, placement=placement)
    folder, time = CampaignFolder(tmp_path / "c"), 0.0
    for number, (name, reported) in enumerate(accuracies.items()):
        TrialRecords(folder).add(name, {"training": {"epochs": 8}}, number)
        for epoch, accuracy in enumerate(reported, 1):
            time += 1
            event = {"type": "metrics", "trial": name, "time": time, "epoch": epoch, "step": epoch, "val_accuracy": accuracy}
            folder.trial(name).append_event(event)
    folder.decisions.touch()
    return spec, folder


def test_what_a_trial_computed_past_its_decision_is_cut_off(tmp_path: Path) -> None:
    spec, folder = away(tmp_path, {"t0000": [0.9] * 3, "t0001": [0.1] * 8})
    folder.trial("t0001").append_event(status_event("t0001", "finished", 8))
    first, second = take_up(spec, folder, trial_scheduler(spec))
    assert (first.state, len(first.reports)) == ("running", 3)
    assert (second.state, [r["epoch"] for r in second.reports]) == ("stopped", [1])
    assert [e["epoch"] for e in read_events(folder.trial("t0001").events) if e["type"] == "metrics"] == [1]
    assert TrialRecords(folder).entries()[1].state == "stopped"


def test_decisions_are_kept_and_taken_once(tmp_path: Path) -> None:
    spec, folder = away(tmp_path, {"t0000": [0.9], "t0001": [0.1]})
    take_up(spec, folder, trial_scheduler(spec))
    kept = [Decision("t0000", 1, "CONTINUE"), Decision("t0001", 1, "STOP")]
    assert read_decisions(folder.decisions) == kept
    take_up(spec, folder, trial_scheduler(spec))
    assert read_decisions(folder.decisions) == kept


def test_a_damaged_decision_is_taken_again(tmp_path: Path) -> None:
    spec, folder = away(tmp_path, {"t0000": [0.9] * 2})
    take_up(spec, folder, trial_scheduler(spec))
    content = folder.decisions.read_bytes()
    folder.decisions.write_bytes(content.replace(b'"epoch":1,"decision":"CONTINUE"', b'"epoch":1,"decision":"STOP"'))
    assert take_up(spec, folder, trial_scheduler(spec))[0].state == "running"
    assert [d.epoch for d in read_decisions(folder.decisions)] == [2, 1]


def test_ends_that_were_seen_before_decisions_were_kept_stand(tmp_path: Path) -> None:
    spec, folder = away(tmp_path, {"t0000": [0.9] * 8, "t0001": [0.1] * 8})
    folder.decisions.unlink()
    for name in ("t0000", "t0001"):
        folder.trial(name).append_event(status_event(name, "finished", 8))
    assert [(e.state, len(e.reports)) for e in take_up(spec, folder, trial_scheduler(spec))] == [("finished", 8)] * 2


def test_a_trial_of_this_machine_comes_back_to_the_epoch_before_it_stops(tmp_path: Path) -> None:
    spec, folder = away(tmp_path, {"t0000": [0.9], "t0001": [0.1]}, "local")
    spec = spec.model_copy(update={"body": Campaign.model_fields["body"].default})
    scheduler = trial_scheduler(spec)
    assert take_up(spec, folder, scheduler)[1].state == "running"
    assert scheduler.stopped_at("t0001") == 1
