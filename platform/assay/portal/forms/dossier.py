"""Dossier fields of a release request, and of an answer to the reviewers.

No field is required here; the service reports what an incomplete section lacks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from django import forms
from django.http import QueryDict

from assay.forms import TablerForm
from assay.portal.http import cleaned
from governance.bounds import EMAIL_MAX
from governance.people.models import Person
from registry.releases.dossier_fields import MAX_LISTED, MAX_RISKS, REQUIRED

RISK_ROWS = 10
_NOT_STATED = ("", "Not stated")


def _choice(label: str, *choices: tuple[str, str]) -> forms.ChoiceField:
    return forms.ChoiceField(label=label, choices=(_NOT_STATED, *choices), required=False)


def _text(label: str, limit: int, rows: int = 0, **more: Any) -> forms.CharField:
    if rows:
        more["widget"] = forms.Textarea(attrs={"rows": rows})
    return forms.CharField(label=label, max_length=limit, required=False, **more)


def _day(label: str) -> forms.DateField:
    return forms.DateField(
        label=label,
        required=False,
        widget=forms.DateInput(attrs={"type": "date"}, format="%Y-%m-%d"),
    )


class RiskRow(TablerForm):
    """One risk."""

    hazard = _text("Hazard", 500, 2)
    likelihood = _choice("Likelihood", *((n, n.title()) for n in ("rare", "possible", "likely")))
    severity = _choice("Severity", *((n, n.title()) for n in ("minor", "serious", "critical")))
    mitigation = _text("Mitigation", 2000, 2)
    residual = _choice("Residual risk", *((n, n.title()) for n in ("low", "medium", "high")))
    accepter_role = _choice(
        "Accepted by",
        ("lead", "The department's lead"),
        ("operator", "Operator"),
        ("admin", "Administrator"),
        ("compliance", "Compliance"),
        ("security", "Security"),
        ("model-risk", "Model risk"),
        ("privacy", "Privacy"),
    )
    accepter_person = forms.EmailField(
        label="E-mail address of the accepting person, if it is one person",
        max_length=EMAIL_MAX,
        required=False,
    )

    def clean_accepter_person(self) -> int | None:
        """Return the ID of the person with this address; dossiers name people by ID."""
        email = self.cleaned_data["accepter_person"]
        if not email:
            return None
        person = Person.objects.filter(email__iexact=email, is_active=True).only("pk").first()
        if person is None:
            raise forms.ValidationError("No active person has this address.")
        return person.pk

    @property
    def is_said(self) -> bool:
        """True if any field is filled in, typed now or before."""
        return any(self[name].value() for name in self.fields)


class SectionsForm(TablerForm):
    """Oversight, operation and conformity; lists have one item per line."""

    overseers = _text(
        "Who notices wrong answers", 300, help_text="Roles rather than names.", rows=0
    )
    stop_procedure = _text("How they stop the model", 2000, 2)
    stop_tested_on = _day("Stop last tested on")
    measures = _text("Training, and measures against overreliance", 2000, 2)
    monitors = _text("What is monitored, one item per line", 6000, 3)
    incident_contact = _text("Contact for incidents", 300, help_text="A role or a mailbox.")
    review_date = _day("Next review on")
    route = _choice(
        "Conformity assessment",
        ("not_applicable", "Not applicable"),
        ("voluntary", "Voluntarily"),
        ("internal_control", "Internal control"),
        ("notified_body", "By a notified body"),
    )
    standards = _text("Standards applied, one per line", 6000, 2)
    declaration = _text("Reference of the declaration", 300)

    PARTS = (
        (
            "oversight",
            "Human oversight",
            ("overseers", "stop_procedure", "stop_tested_on", "measures"),
        ),
        ("operation", "Operation", ("monitors", "incident_contact", "review_date")),
        ("conformity", "Conformity", ("route", "standards", "declaration")),
    )
    LISTS = ("monitors", "standards")


class DossierForms:
    """The forms of a dossier, shown and read together; `fields` are the earlier answers."""

    def __init__(self, data: QueryDict | None, fields: Mapping[str, Any] | None = None) -> None:
        before = fields or {}
        initial: dict[str, Any] = {}
        for part, _, names in SectionsForm.PARTS:
            for name in names:
                value = (before.get(part) or {}).get(name)
                initial[name] = "\n".join(value) if isinstance(value, list) else value
        risks = _with_addresses(before.get("risks") or ())
        rows = min(max(RISK_ROWS, len(risks) + 3), MAX_RISKS)
        # A form posted from another page has no dossier fields.
        data = data if data and "dossier-route" in data else None
        self.sections = SectionsForm(data, prefix="dossier", initial=initial)
        self.risks = [
            RiskRow(data, prefix=f"risk-{n}", initial=risks[n] if n < len(risks) else None)
            for n in range(rows)
        ]

    @property
    def parts(self) -> list[tuple[str, str, list[Any]]]:
        """Return code, title and fields of each part other than the risks."""
        return [
            (c, title, [self.sections[n] for n in names]) for c, title, names in SectionsForm.PARTS
        ]

    @property
    def required(self) -> str:
        """Return the sections that each tier requires, in words."""
        phrases = [
            f"{tier.capitalize()} risk requires {', '.join(names)}"
            for tier, names in REQUIRED.items()
            if names
        ]
        return f"{'; '.join(phrases)}; higher tiers require all four sections."

    def fields(self) -> dict[str, Any] | None:
        """Return the arguments of the service; None when nothing changed.

        Raises:
            InvalidInput: a field is too long, or not a date.
        """
        if not any(form.has_changed() for form in (self.sections, *self.risks)):
            return None
        answers: dict[str, Any] = {"risks": [risk for row in self.risks if (risk := _filled(row))]}
        values = _filled(self.sections)
        for name in SectionsForm.LISTS:
            if name in values:
                lines = [line.strip() for line in values[name].splitlines()]
                values[name] = [line for line in lines if line][: MAX_LISTED + 1]
        for part, _, names in SectionsForm.PARTS:
            if section := {name: values[name] for name in names if name in values}:
                answers[part] = section
        return answers


def _with_addresses(risks: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return risks with the addresses of the accepting people in place of their IDs."""
    people = {risk["accepter_person"] for risk in risks if risk.get("accepter_person")}
    rows = Person.objects.filter(pk__in=people).values_list("pk", "email") if people else ()
    addresses: dict[Any, str] = dict(rows)
    return [
        {**risk, "accepter_person": addresses.get(risk.get("accepter_person"))} for risk in risks
    ]


def _filled(form: TablerForm) -> dict[str, Any]:
    """Return the fields that were filled in; dates in ISO 8601."""
    return {
        name: value.isoformat() if hasattr(value, "isoformat") else value
        for name, value in cleaned(form).items()
        if value not in (None, "")
    }
