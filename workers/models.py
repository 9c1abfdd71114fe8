"""Every model of this context, gathered where Django looks for them."""

from workers.deployments.models import Deployment, Replica, ServingPeriod, WorkerKey
from workers.jobs.models import Job, JobEvent
from workers.measurements.models import Measurement

__all__ = ["Deployment", "Job", "JobEvent", "Measurement", "Replica", "ServingPeriod", "WorkerKey"]
