"""Every model of this context, gathered where Django looks for them."""

from workers.deployments.models import Deployment, Replica, ServingPeriod, WorkerKey
from workers.jobs.models import Job, JobEvent

__all__ = ["Deployment", "Job", "JobEvent", "Replica", "ServingPeriod", "WorkerKey"]
