"""Every model of this context, gathered where Django looks for them."""

from registry.datasets.models import Dataset, DatasetVersion
from registry.evaluations.models import Evaluation, Gate, GateResult
from registry.intake.models import Intake
from registry.releases.models import Release
from registry.versions.models import Model, ModelVersion

__all__ = [
    "Dataset",
    "DatasetVersion",
    "Evaluation",
    "Gate",
    "GateResult",
    "Intake",
    "Model",
    "ModelVersion",
    "Release",
]
