"""Every model of this context, gathered where Django looks for them."""

from workers.deployments.models import (
    Deployment,
    Replica,
    ServingLease,
    ServingPeriod,
    WorkerKey,
)
from workers.jobs.models import ChainDraft, ChainLink, Job, JobEvent, JobLine
from workers.measurements.models import Measurement
from workers.nodes.models import Node, NodeSample, NodeSession, NodeToken
from workers.placement.models import Placement
from workers.schedules.models import Schedule, ScheduleRun

__all__ = [
    "ChainDraft",
    "ChainLink",
    "Deployment",
    "Job",
    "JobEvent",
    "JobLine",
    "Measurement",
    "Node",
    "NodeSample",
    "NodeSession",
    "NodeToken",
    "Placement",
    "Replica",
    "Schedule",
    "ScheduleRun",
    "ServingLease",
    "ServingPeriod",
    "WorkerKey",
]
