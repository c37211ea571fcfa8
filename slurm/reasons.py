"""Why jobs wait, in words: Slurm's own are short."""

from __future__ import annotations

WORDS = {
    "Priority": "jobs with a higher priority come first",
    "Resources": "it is next, but too few nodes are free",
    "None": "Slurm has not looked at it yet",
    "Dependency": "it waits for another job",
    "DependencyNeverSatisfied": "it waits for a job that can no longer do what it waits for; cancel it",
    "BeginTime": "it may not start yet; a requeued job waits a little",
    "JobHeldUser": "you hold it: coppice release",
    "JobHeldAdmin": "an administrator holds it; ask them why",
    "JobArrayTaskLimit": "as many jobs of the campaign run as may at a time (placement argument parallel)",
    "ReqNodeNotAvail": "the nodes it could use are down, drained or reserved",
    "NodeDown": "a node it needs is down",
    "PartitionDown": "its partition is switched off",
    "PartitionInactive": "its partition takes no jobs at the moment",
    "PartitionTimeLimit": "it asks for more time than its partition allows: lower resources.hours",
    "PartitionNodeLimit": "it asks for more nodes than its partition has: lower resources.nodes",
    "Reservation": "it waits for its reservation to begin",
    "Licenses": "it waits for a licence",
    "BadConstraints": "no node has what it asks for; look at the site file's constraint and memory",
    "InvalidAccount": "its account may not be used; see coppice doctor",
    "InvalidQOS": "its qos may not be used; see coppice doctor",
    "launch failed requeued held": "it could not be started and is held; see coppice doctor, then coppice release",
}
"""By Slurm's word."""
PARTS = (
    ("CPUMinutes", "the account's core-hours are used up, or would be"),
    ("GRESMinutes", "the account's GPU-hours are used up, or would be"),
    ("BillingMinutes", "the account's budget is used up, or would be"),
    ("RunMinutes", "running jobs have taken all the time that may be promised at once"),
    ("MaxSubmit", "you have as many jobs in the queue as you may have"),
    ("MaxJobs", "as many of your jobs run as may at a time"),
    ("GrpJobs", "as many jobs of your group run as may at a time"),
    ("MaxWall", "it asks for more time than it may: lower resources.hours"),
    ("MaxCpu", "your jobs have as many cores as they may"),
    ("MaxGRES", "your jobs have as many GPUs as they may"),
    ("MaxNode", "your jobs have as many nodes as they may"),
    ("MaxMem", "your jobs have as much memory as they may"),
    ("GrpCpu", "jobs of your group have as many cores as they may"),
    ("GrpGRES", "jobs of your group have as many GPUs as they may"),
    ("GrpNode", "jobs of your group have as many nodes as they may"),
    ("GrpMem", "jobs of your group have as much memory as they may"),
)
"""Limits of accounts (Assoc...) and qos (QOS...) have names made of parts; the first part found here counts."""


def explained(reason: str) -> str:
    """A reason with what it means: `Priority: jobs with a higher priority come first`."""
    word = reason.strip("()").partition(",")[0].strip()
    meaning = WORDS.get(word) or WORDS.get(word.replace("_", " "))
    if meaning is None and word.startswith(("Assoc", "QOS", "Grp", "Max")):
        meaning = next((meaning for part, meaning in PARTS if part.lower() in word.lower()), "a limit of your account or qos")
    return f"{reason}: {meaning}" if meaning else reason
