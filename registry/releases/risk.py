"""Risk answers of a department about a release, as review policies define them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from governance.errors import InvalidInput
from governance.faults import field_sentences
from governance.reviews.policies.vocabulary import Answer

YES_NO: dict[Answer, str] = {True: "Yes", False: "No"}
# Every question with a fixed set of answers, and these in words. The points are those of annex III
# of Regulation (EU) 2024/1689.
QUESTIONS: dict[str, dict[Answer, str]] = {
    "vulnerable_groups": YES_NO,
    "eu_ai_act_role": {
        "deployer": "Deployer: we use it under our authority",
        "provider": "Provider: we made it, or put our name on it",
        "modifier": "Modifier: we substantially changed another provider's",
    },
    "annex_iii": {
        "none": "None of them",
        "biometrics": "Point 1: biometrics",
        "critical_infrastructure": "Point 2: critical infrastructure",
        "education": "Point 3: education and vocational training",
        "employment": "Point 4: employment, management of workers, access to self-employment",
        "essential_services": "Point 5: essential private and public services and benefits",
        "law_enforcement": "Point 6: law enforcement",
        "migration": "Point 7: migration, asylum and border control",
        "justice": "Point 8: administration of justice and democratic processes",
    },
    "data_classification": {
        "public": "Public",
        "internal": "Internal",
        "confidential": "Confidential",
        "restricted": "Restricted",
    },
    "personal_data": YES_NO,
    "special_categories": YES_NO,
    "autonomy": {
        "suggests": "It suggests; a person decides",
        "decides_with_human": "It decides together with a person",
        "decides": "It decides without a person",
    },
    "interacts_with_people": YES_NO,
    "generates_content": YES_NO,
    "general_purpose_model": YES_NO,
}

# Facts about a version. Conditions of review policies use them like answers of people.
FACTS: dict[str, dict[Answer, str]] = {"hosted": YES_NO}

ANSWER_MAX = 2000
NOTES_MAX = 4000


class RiskAnswers(BaseModel):
    """Answers to all questions; only `notes` is optional.

    `annex_iii` names the area of the EU AI Act's annex III that the purpose belongs to, or none.
    `data_classification` is the higher one of its inputs' and its training data's.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    intended_purpose: str = Field(min_length=1, max_length=ANSWER_MAX)
    affected_people: str = Field(min_length=1, max_length=ANSWER_MAX)
    vulnerable_groups: bool
    eu_ai_act_role: Literal["provider", "deployer", "modifier"]
    annex_iii: Literal[
        "none",
        "biometrics",
        "critical_infrastructure",
        "education",
        "employment",
        "essential_services",
        "law_enforcement",
        "migration",
        "justice",
    ]
    data_classification: Literal["public", "internal", "confidential", "restricted"]
    personal_data: bool
    special_categories: bool
    autonomy: Literal["suggests", "decides_with_human", "decides"]
    interacts_with_people: bool
    generates_content: bool
    general_purpose_model: bool
    notes: str = Field(default="", max_length=NOTES_MAX)

    @model_validator(mode="after")
    def _agrees(self) -> RiskAnswers:
        if self.special_categories and not self.personal_data:
            raise ValueError("special categories of personal data are personal data")
        return self


def checked_risk_answers(answers: Mapping[str, Any]) -> dict[str, Any]:
    """Return the complete answers.

    Raises:
        InvalidInput: an answer is missing, malformed or unknown, or two contradict each other;
            `fields` says which.
    """
    try:
        checked = RiskAnswers.model_validate(dict(answers)).model_dump()
    except ValidationError as error:
        faults = field_sentences(error, whole="special_categories")
        raise InvalidInput(
            f"The risk answers are not complete and correct: {', '.join(faults)}.",
            hint=f"They are {', '.join(RiskAnswers.model_fields)}.",
            fields={f"risk_answers.{name}": sentences for name, sentences in faults.items()},
        ) from error
    for name, value in checked.items():
        if isinstance(value, str) and "\0" in value:
            raise InvalidInput(
                f"The risk answer {name} holds a NUL character.",
                fields={f"risk_answers.{name}": ["No NUL characters."]},
            )
    return checked
