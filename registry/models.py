"""All models of this context, imported in the module where Django looks for them."""

from registry.batches.models import Batch, BatchLine
from registry.datasets.models import Dataset, DatasetVersion
from registry.evaluations.models import Evaluation, EvaluationReference, Gate, GateResult
from registry.feedback.models import Feedback
from registry.files.models import StoredFile
from registry.incidents.models import (
    Incident,
    IncidentNote,
    IncidentNotice,
    IncidentSuspension,
    IncidentVersion,
)
from registry.intake.models import Intake, IntakeProbe
from registry.knowledge.models import (
    Document,
    DocumentVersion,
    KnowledgeBase,
    KnowledgeIndex,
)
from registry.releases.drafts.models import ReleaseDraft
from registry.releases.emergency_access.models import EmergencyAccess
from registry.releases.equivalence.models import EquivalenceCheck, SoftwareEnvironment
from registry.releases.models import Release
from registry.responses.models import ResponseRetention, StoredResponse
from registry.uploads.models import Upload
from registry.versions.models import Model, ModelVersion

__all__ = [
    "Batch",
    "BatchLine",
    "Dataset",
    "DatasetVersion",
    "Document",
    "DocumentVersion",
    "EmergencyAccess",
    "EquivalenceCheck",
    "Evaluation",
    "EvaluationReference",
    "Feedback",
    "Gate",
    "GateResult",
    "Incident",
    "IncidentNote",
    "IncidentNotice",
    "IncidentSuspension",
    "IncidentVersion",
    "Intake",
    "IntakeProbe",
    "KnowledgeBase",
    "KnowledgeIndex",
    "Model",
    "ModelVersion",
    "Release",
    "ReleaseDraft",
    "ResponseRetention",
    "SoftwareEnvironment",
    "StoredFile",
    "StoredResponse",
    "Upload",
]
