"""Assay in a notebook or a script: jobs with progress bars, lists as data frames.

    from assay_client.notebook import Assay

    assay = Assay("https://assay.example", token)
    job = assay.fine_tune(model="desk-sorter", base_version=1, method="full", dataset_version=2)
    job.wait()
    assay.evaluations(model="desk-sorter").frame()

Install `assay-client[notebook]`, which also has pandas and the widgets of progress bars.
"""

from .assay import Assay
from .errors import RequestRefused
from .jobs import Job, JobFailed
from .rows import Rows

__all__ = ["Assay", "Job", "JobFailed", "RequestRefused", "Rows"]
