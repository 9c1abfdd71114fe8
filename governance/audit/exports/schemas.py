"""Input of the services for exports."""

from __future__ import annotations

from governance.audit.exports.models import ExportFormat
from governance.audit.search.schemas import AuditEventQuery
from governance.schemas import Choice, Schema


class NewAuditExport(Schema):
    """Events to export: the filters of the list of events, and the format. `csv` is a zip."""

    filter: AuditEventQuery | None = None
    format: Choice[ExportFormat]
