"""The dossier's part of the request for a release, and of an answer: what people say in it.

Nothing has to be filled in here; what a section lacks that was begun, the service says.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django import forms
from django.http import QueryDict

from assay.portal.forms.base import TablerForm
from assay.portal.http import cleaned
from registry.releases.dossier_fields import MAX_LISTED, MAX_RISKS, REQUIRED

RISK_ROWS = 10
_UNSAID = ("", "Not said")


def _choice(label: str, *choices: tuple[str, str]) -> forms.ChoiceField:
    return forms.ChoiceField(label=label, choices=(_UNSAID, *choices), required=False)


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
    """One thing that may go wrong."""

    hazard = _text("What may go wrong", 500, 2)
    likelihood = _choice("How likely", *((n, n.title()) for n in ("rare", "possible", "likely")))
    severity = _choice("How severe", *((n, n.title()) for n in ("minor", "serious", "critical")))
    mitigation = _text("What is done about it", 2000, 2)
    residual = _choice("What is left", *((n, n.title()) for n in ("low", "medium", "high")))
    accepter_role = _choice(
        "Who accepts that",
        ("lead", "The department's lead"),
        ("operator", "Operator"),
        ("admin", "Administrator"),
        ("compliance", "Compliance"),
        ("security", "Security"),
        ("model-risk", "Model risk"),
        ("privacy", "Privacy"),
    )
    accepter_person = forms.IntegerField(
        label="Number of the person, if it is one person", min_value=1, required=False
    )

    @property
    def is_said(self) -> bool:
        """True when any field is filled in, typed now or before."""
        return any(self[name].value() for name in self.fields)


class SaidForm(TablerForm):
    """Oversight, operation and conformity; a list has an item a line."""

    overseers = _text(
        "Who notices a wrong answer", 300, help_text="Roles rather than names.", rows=0
    )
    stop_procedure = _text("How they stop it", 2000, 2)
    stop_tested_on = _day("When stopping it was last tried")
    measures = _text("Training, and what keeps people from trusting it too much", 2000, 2)
    monitors = _text("What is watched, one a line", 6000, 3)
    incident_contact = _text("Contact for incidents", 300, help_text="A role or a mailbox.")
    review_date = _day("When it is looked at again")
    route = _choice(
        "How conformity is assessed",
        ("not_applicable", "Not applicable"),
        ("voluntary", "Voluntarily"),
        ("internal_control", "Internal control"),
        ("notified_body", "By a notified body"),
    )
    standards = _text("Standards applied, one a line", 6000, 2)
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
    """Both, as they are shown and read together. `fields` is what was said before."""

    def __init__(self, data: QueryDict | None, fields: Mapping[str, Any] | None = None) -> None:
        before = fields or {}
        told: dict[str, Any] = {}
        for part, _, names in SaidForm.PARTS:
            for name in names:
                value = (before.get(part) or {}).get(name)
                told[name] = "\n".join(value) if isinstance(value, list) else value
        risks = list(before.get("risks") or ())
        rows = min(max(RISK_ROWS, len(risks) + 3), MAX_RISKS)
        # What was posted from elsewhere says nothing of it.
        data = data if data and "dossier-route" in data else None
        self.said = SaidForm(data, prefix="dossier", initial=told)
        self.risks = [
            RiskRow(data, prefix=f"risk-{n}", initial=risks[n] if n < len(risks) else None)
            for n in range(rows)
        ]

    @property
    def parts(self) -> list[tuple[str, str, list[Any]]]:
        """Code, title and fields of each part other than the risks."""
        return [(c, title, [self.said[n] for n in names]) for c, title, names in SaidForm.PARTS]

    @property
    def required(self) -> str:
        """Which tier asks for what, in words."""
        asked = [f"{tier} asks for {', '.join(names)}" for tier, names in REQUIRED.items() if names]
        return f"The tier {'; '.join(asked)}; those above it ask for all four."

    def fields(self) -> dict[str, Any] | None:
        """Return the arguments of the service; None when nothing changed.

        Raises:
            InvalidInput: a field is too long, or no day.
        """
        if not any(form.has_changed() for form in (self.said, *self.risks)):
            return None
        found: dict[str, Any] = {"risks": [said for row in self.risks if (said := _filled(row))]}
        values = _filled(self.said)
        for name in SaidForm.LISTS:
            if name in values:
                lines = [line.strip() for line in values[name].splitlines()]
                values[name] = [line for line in lines if line][: MAX_LISTED + 1]
        for part, _, names in SaidForm.PARTS:
            if told := {name: values[name] for name in names if name in values}:
                found[part] = told
        return found


def _filled(form: TablerForm) -> dict[str, Any]:
    """Return the fields that were filled in; days in ISO 8601."""
    return {
        name: value.isoformat() if hasattr(value, "isoformat") else value
        for name, value in cleaned(form).items()
        if value not in (None, "")
    }
