"""Input of the services for limits and prices."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from governance.bounds import DEPARTMENT_MAX, NAME_MAX
from governance.quotas.kinds import KINDS
from governance.quotas.services import LIMIT_MAX, PRICE_MAX
from governance.schemas import Filter, Id, Line, Schema, Slug, rejecting
from governance.usage.units import PRICED_BY_UNIT

_Price = Annotated[int, Field(ge=0, le=PRICE_MAX)]


class QuotaChange(Schema):
    """A limit on exactly one of: a department, a key, a deployment (by name), the organization.
    A null limit removes it. Money is in micro-units of the currency.
    """

    kind: Annotated[
        str,
        rejecting(lambda kind: kind not in KINDS, f"must be {', '.join(KINDS)}"),
        Field(json_schema_extra={"enum": list(KINDS)}),
    ]
    limit: int | None = Field(ge=0, le=LIMIT_MAX)
    department: Slug | None = Field(default=None, max_length=DEPARTMENT_MAX)
    key: Id | None = None
    deployment: Slug | None = Field(default=None, max_length=NAME_MAX)
    organization: bool = False
    shadow: bool = False


class EffectiveFilter(Filter):
    """The key, and optionally a deployment, whose limits then also apply."""

    key: Id
    deployment: Line | None = Field(default=None, max_length=NAME_MAX)


class PriceChange(Schema):
    """Price of a deployment, or for null of all other deployments and jobs. Missing prices are
    zero; `remove` deletes the price. `units` maps units of use other than tokens to their price.
    """

    deployment: Slug | None = Field(max_length=NAME_MAX)
    prompt: _Price = 0
    completion: _Price = 0
    device_second: _Price = 0
    units: dict[str, _Price] = Field(default={}, max_length=len(PRICED_BY_UNIT))
    remove: bool = False


class Reconciliation(Schema):
    """Compare only, or also repair the counters that differ."""

    mode: Literal["compare", "repair"]
