"""All models of this context, imported here for Django."""

from workers.deployments.models import (
    Deployment,
    Replica,
    ServingLease,
    ServingPeriod,
    StatedModel,
    WorkerKey,
)
from workers.jobs.models import AttemptLog, ChainDraft, ChainLink, Job, JobEvent, JobLine
from workers.leadership.models import ControllerProcess, Leadership
from workers.measurements.models import Measurement
from workers.nodes.models import Node, NodeSample, NodeSession, NodeToken
from workers.offers.models import WorkerTasks
from workers.placement.models import Placement
from workers.schedules.models import Schedule, ScheduleRun

__all__ = [
    "AttemptLog",
    "ChainDraft",
    "ChainLink",
    "ControllerProcess",
    "Deployment",
    "Job",
    "JobEvent",
    "JobLine",
    "Leadership",
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
    "StatedModel",
    "WorkerKey",
    "WorkerTasks",
]
