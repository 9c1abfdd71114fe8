"""Input about waivers."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from governance.reviews.waivers.models import REASON_MAX
from governance.schemas import Moment, Paragraphs, Schema


class NewWaiver(Schema):
    """Reason for excusing the item, and the waiver's end, within a year."""

    reason: Paragraphs = Field(max_length=REASON_MAX)
    expires_at: Moment


class WaiverDecision(Schema):
    """Verdict on a requested waiver, and the reason."""

    verdict: Literal["granted", "refused"]
    reason: Paragraphs = Field(max_length=REASON_MAX)


class WaiverEnd(Schema):
    """Reason for ending a waiver."""

    reason: Paragraphs = Field(max_length=REASON_MAX)
