"""Forms of a release: environment, departments, purpose and risk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from django import forms

from assay.forms import TablerForm
from assay.portal.forms.base import NameField, titled, unchosen
from assay.portal.http import cleaned
from governance.bounds import NAME_MAX
from governance.people.models import Department
from governance.reviews.policies.selectors import ActivePolicy
from registry.catalog.engines import ENGINE_TITLES, EngineName
from registry.releases.drafts.models import ReleaseDraft
from registry.releases.engines import Precision, precisions_for
from registry.releases.models import PURPOSE_MAX, Environment, Release, Visibility
from registry.releases.risk import ANSWER_MAX, NOTES_MAX, QUESTIONS
from registry.versions.models import ModelVersion

YES_NO = {
    "vulnerable_groups": "Affected people include children or other vulnerable people",
    "personal_data": "It handles personal data",
    "special_categories": "Special categories of it: health, belief, origin, biometrics, …",
    "interacts_with_people": "People talk to it directly",
    "generates_content": "It writes texts, or makes pictures or sound",
    "general_purpose_model": "It is offered as a general-purpose model, for many tasks",
}


def _named(question: str) -> list[tuple[str, str]]:
    return unchosen((str(answer), words) for answer, words in QUESTIONS[question].items())


def _yes_no(question: str) -> forms.TypedChoiceField:
    return forms.TypedChoiceField(
        label=YES_NO[question],
        choices=unchosen([("yes", "Yes"), ("no", "No")]),
        coerce=lambda answer: answer == "yes",
    )


class RiskForm(TablerForm):
    """The questions whose answers determine the tier."""

    vulnerable_groups = _yes_no("vulnerable_groups")
    eu_ai_act_role = forms.ChoiceField(
        label="Our role under the EU AI Act", choices=_named("eu_ai_act_role")
    )
    annex_iii = forms.ChoiceField(
        label="Area of the EU AI Act's annex III", choices=_named("annex_iii")
    )
    data_classification = forms.ChoiceField(
        label="Classification of its data",
        choices=_named("data_classification"),
        help_text="The higher of its input data and its training data.",
    )
    personal_data = _yes_no("personal_data")
    special_categories = _yes_no("special_categories")
    autonomy = forms.ChoiceField(label="How it takes part in decisions", choices=_named("autonomy"))
    interacts_with_people = _yes_no("interacts_with_people")
    generates_content = _yes_no("generates_content")
    general_purpose_model = _yes_no("general_purpose_model")

    def questions(self) -> list[Any]:
        """Return the fields in the order of the questions."""
        return [self[name] for name in QUESTIONS]


class ReleaseForm(RiskForm):
    """Release request: environment, departments, purpose, risks."""

    environment = forms.ChoiceField(choices=unchosen(titled(Environment.choices)))
    deployment_name = NameField(
        max_length=NAME_MAX, help_text="The name that applications use to call it."
    )
    departments: forms.ModelMultipleChoiceField[Any] = forms.ModelMultipleChoiceField(
        queryset=None, widget=forms.CheckboxSelectMultiple, label="Departments that may use it"
    )
    visibility = forms.ChoiceField(
        choices=(
            (Visibility.DEPARTMENT, "Only the departments above can see it"),
            (Visibility.ORGANIZATION, "Everyone can see it; only those above can use it"),
        )
    )
    engine = forms.ChoiceField(
        required=False,
        help_text="A deployment runs on exactly this engine. Another one needs a new release.",
    )
    precision = forms.ChoiceField(required=False, choices=Precision.choices)
    tier = forms.ChoiceField(label="Risk tier")
    purpose = forms.CharField(max_length=PURPOSE_MAX, widget=forms.Textarea(attrs={"rows": 3}))
    affected_people = forms.CharField(
        max_length=ANSWER_MAX,
        label="Who is affected by its answers",
        widget=forms.Textarea(attrs={"rows": 2}),
    )
    notes = forms.CharField(
        max_length=NOTES_MAX,
        required=False,
        label="Oversight, limits, foreseeable misuse",
        widget=forms.Textarea(attrs={"rows": 3}),
    )

    RISK = ("affected_people", *QUESTIONS, "notes")

    def __init__(
        self,
        *args: Any,
        departments: Any,
        policies: Sequence[ActivePolicy],
        engines: Sequence[EngineName],
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        field = self.fields["departments"]
        field.queryset = departments  # type: ignore[attr-defined]
        field.label_from_instance = lambda department: department.name  # type: ignore[attr-defined]
        self.fields["engine"].choices = [  # type: ignore[attr-defined]
            (str(name), ENGINE_TITLES[name]) for name in engines
        ]
        self.fields["engine"].initial = str(engines[0])
        self.fields["precision"].choices = [  # type: ignore[attr-defined]
            (value, label) for value, label in Precision.choices if value in precisions_for(engines)
        ]
        self.fields["precision"].initial = str(Precision.STORED)
        self.fields["tier"].choices = unchosen(  # type: ignore[attr-defined]
            (each.policy.name, each.document.title) for each in policies
        )

    def lenient(self) -> ReleaseForm:
        """Return the form with no answer required, as for a draft."""
        for field in self.fields.values():
            field.required = False
        return self

    def content(self) -> dict[str, Any]:
        """Return the non-empty answers as a draft stores them."""
        values = {
            name: value for name, value in cleaned(self).items() if value not in (None, "", [])
        }
        answers = {name: values.pop(name) for name in self.RISK if name in values}
        departments = [department.slug for department in values.pop("departments", ())]
        return {**values, "departments": departments, "risk_answers": answers}


def initial_of_draft(draft: ReleaseDraft) -> dict[str, Any]:
    """Return the form's initial values for a draft."""
    content = dict(draft.content)
    content.pop("dossier_fields", None)
    chosen = Department.objects.filter(slug__in=content.pop("departments", []))
    answers = _answers(content.pop("risk_answers", {}))
    return {**content, **answers, "departments": list(chosen.values_list("pk", flat=True))}


def _answers(answers: Mapping[str, Any]) -> dict[str, Any]:
    """Return risk answers as the fields show them."""
    return {
        name: {True: "yes", False: "no"}.get(value, value) if isinstance(value, bool) else value
        for name, value in answers.items()
        if name in ReleaseForm.RISK
    }


def initial_of(release: Release, version: ModelVersion) -> dict[str, Any]:
    """Return the form's initial values for a request for `version` like that of `release`."""
    # A release of another model serves under a name and on an engine of its own.
    own = {
        "deployment_name": release.deployment_name,
        "engine": release.engine,
        "precision": release.precision,
    }
    return {
        **(own if release.version.model_id == version.model_id else {}),
        "environment": release.environment,
        "departments": [department.pk for department in release.departments.all()],
        "visibility": release.visibility,
        "purpose": release.purpose,
        "tier": release.tier,
        **_answers(release.risk_answers),
    }
