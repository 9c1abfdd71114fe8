"""What a department says about the risk of a release, and what follows from it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from governance.errors import InvalidInput

# From least to most; each with the approvals that a release of it needs, by speciality.
REQUIRED_APPROVALS: dict[str, dict[str, int]] = {
    "minimal": {"compliance": 1},
    "limited": {"compliance": 1, "model-risk": 1},
    "high": {"compliance": 1, "model-risk": 1, "security": 1},
}
TIERS = tuple(REQUIRED_APPROVALS)


class RiskAnswers(BaseModel):
    """`autonomy`: whether it suggests, or decides with a person or without."""

    model_config = ConfigDict(extra="forbid", strict=True)

    intended_purpose: str = Field(min_length=1, max_length=2000)
    affected_people: str = Field(min_length=1, max_length=2000)
    autonomy: Literal["suggests", "decides_with_human", "decides"]
    personal_data: bool
    eu_ai_act_role: Literal["provider", "deployer", "modifier"]
    notes: str = Field(default="", max_length=4000)


def checked_risk_answers(answers: Mapping[str, Any]) -> dict[str, Any]:
    """The answers in full.

    Raises:
        InvalidInput: an answer is missing, malformed or unknown; `fields` says which.
    """
    try:
        checked = RiskAnswers.model_validate(dict(answers)).model_dump()
    except ValidationError as error:
        fields: dict[str, list[str]] = {}
        for fault in error.errors(include_url=False, include_context=False, include_input=False):
            name = ".".join(str(part) for part in fault["loc"])[:80]
            fields.setdefault(f"risk_answers.{name}", []).append(f"{fault['msg']}.")
        names = ", ".join(name.removeprefix("risk_answers.") for name in fields)
        raise InvalidInput(
            f"The risk answers are not complete and correct: {names}.",
            hint=f"They are {', '.join(RiskAnswers.model_fields)}.",
            fields=fields,
        ) from error
    for name, value in checked.items():
        if isinstance(value, str) and "\0" in value:
            raise InvalidInput(
                f"The risk answer {name} holds a NUL character.",
                fields={f"risk_answers.{name}": ["No NUL characters."]},
            )
    return checked


def checked_tier(tier: str, answers: Mapping[str, Any]) -> str:
    """`tier`, when it is no lower than the answers ask for.

    Raises:
        InvalidInput: there is no such tier, or it is too low.
    """
    if tier not in REQUIRED_APPROVALS:
        raise InvalidInput(
            f"There is no tier {str(tier)[:40]!r}.",
            hint=f"Choose one of {', '.join(TIERS)}.",
            fields={"tier": [f"One of {', '.join(TIERS)}."]},
        )
    least, why = "minimal", ""
    if answers["autonomy"] == "decides":
        least, why = "high", "it decides without a person"
    elif answers["personal_data"]:
        least, why = "limited", "it handles personal data"
    elif answers["autonomy"] == "decides_with_human":
        least, why = "limited", "it takes part in decisions"
    if TIERS.index(tier) < TIERS.index(least):
        raise InvalidInput(
            f"The tier {tier} is too low: {why}, so it is at least {least}.",
            fields={"tier": [f"At least {least}."]},
        )
    return tier
