"""Objects of a gateway process that the executions of its requests share."""

from __future__ import annotations

from dataclasses import dataclass

from assay.gateway.access.admission import Running
from assay.gateway.access.refresher import Refresher
from assay.gateway.quota.ledger import Ledger
from assay.gateway.quota.quotas import DeviceTimes, Quotas
from assay.gateway.run.affinity import Affinity
from assay.gateway.run.cancellations import Cancellations
from assay.gateway.run.pace import Paces
from assay.gateway.run.plug_ins import PlugInDesk
from assay.gateway.run.reply_streams import Replies
from assay.gateway.run.request_log import RequestLog
from assay.gateway.run.routing import Router
from assay.gateway.run.shadows import Shadows
from workers.sealing import GatewaySeals


@dataclass(frozen=True, slots=True)
class Parts:
    running: Running
    refresher: Refresher
    quotas: Quotas
    device_times: DeviceTimes
    ledger: Ledger
    replies: Replies
    affinity: Affinity
    seals: GatewaySeals
    cancellations: Cancellations
    plug_ins: PlugInDesk
    router: Router
    paces: Paces
    shadows: Shadows
    request_log: RequestLog
