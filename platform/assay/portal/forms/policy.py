"""Rules and cases as forms: they shape input; the policy's own schema judges it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, get_args

from django import forms

from assay.forms import TablerForm
from governance.bounds import DEPARTMENT_MAX
from governance.errors import InvalidInput
from governance.people.models import Specialty
from governance.permissions import Action
from governance.policy.cases import RESOURCE_TYPES
from governance.policy.document import value_from_text, value_to_text
from governance.policy.rules import (
    CONTEXT_KINDS,
    WITH_LIST,
    WITHOUT_VALUE,
    DepartmentRole,
    Operator,
    PlatformRole,
)
from governance.principals import PrincipalKind

CONDITIONS_MAX = 20
PRINCIPAL = (
    *("kinds", "services", "roles", "specialties"),
    *("department_roles", "member_roles", "departments"),
)
# Processes of the platform that act as themselves.
SERVICES = ("bootstrap", "compute-worker", "controller", "engine-worker", "scim", "sso")
ATTRIBUTES = (
    *("department", "departments", "owner", "responsible", "visibility", "shared"),
    *("classification", "modality", "environment", "state", "tier"),
    *(f"context.{name}" for name in CONTEXT_KINDS),
)


def _pairs(values: Any) -> list[tuple[str, str]]:
    return [(str(value), str(value)) for value in values]


def _several(label: str, values: Any) -> forms.MultipleChoiceField:
    return forms.MultipleChoiceField(
        label=label,
        choices=_pairs(values),
        required=False,
        widget=forms.CheckboxSelectMultiple(),
    )


class RuleForm(TablerForm):
    """One rule without its conditions."""

    id = forms.CharField(
        label="ID",
        max_length=60,
        help_text="Lowercase letters, digits and hyphens, such as leads-run-jobs.",
    )
    effect = forms.ChoiceField(choices=(("permit", "Permit"), ("forbid", "Forbid")))
    description = forms.CharField(
        max_length=200, help_text="Shown with every decision that the rule makes."
    )
    roles = _several("Platform roles", get_args(PlatformRole))
    specialties = _several("Reviewers for", Specialty.values)
    department_roles = _several("Roles in the owning department", get_args(DepartmentRole))
    member_roles = _several("Roles in any department", get_args(DepartmentRole))
    departments = _several("Only roles held in", ())
    kinds = _several("Kinds of caller", [kind.value for kind in PrincipalKind])
    services = _several("Services", SERVICES)
    actions = _several("Actions", [action.value for action in Action])
    resource_types = _several("Only on", RESOURCE_TYPES)

    def __init__(self, *args: Any, departments: Iterable[str] = (), **kwargs: Any) -> None:
        """Offer these departments, and values that the rule names even if they do not exist."""
        super().__init__(*args, **kwargs)
        for name, offered in (("departments", departments), ("services", SERVICES)):
            choices: Any = self.fields[name]
            choices.choices = _pairs(dict.fromkeys([*offered, *self.initial.get(name, ())]))

    def principal_fields(self) -> list[Any]:
        """Return the fields of the rule's principal."""
        names = (
            *("roles", "specialties", "department_roles", "member_roles"),
            *("departments", "kinds", "services"),
        )
        return [self[name] for name in names]

    def rule(self) -> dict[str, Any]:
        """Return the rule as plain data without empty fields."""
        values = self.cleaned_data
        principal: dict[str, Any] = {name: values[name] for name in PRINCIPAL}
        rule = {name: values[name] for name in ("id", "effect", "description")}
        rule["principal"] = {name: value for name, value in principal.items() if value}
        rule["actions"] = values["actions"]
        if values["resource_types"]:
            rule["resource_types"] = values["resource_types"]
        return rule

    @staticmethod
    def filled(rule: dict[str, Any]) -> dict[str, Any]:
        """Return a rule as the form's initial values."""
        return {**rule, **rule.get("principal", {})}


class ConditionForm(TablerForm):
    """One condition; no condition if the attribute is empty."""

    attribute = forms.ChoiceField(required=False)
    operator = forms.ChoiceField(
        required=False, choices=_pairs([operator.value for operator in Operator])
    )
    value = forms.CharField(required=False, max_length=8000)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        attribute: Any = self.fields["attribute"]
        current = [self.initial["attribute"]] if self.initial.get("attribute") else []
        listed = dict.fromkeys([*ATTRIBUTES, *current])
        attribute.choices = [("", "No condition"), *_pairs(listed)]

    def condition(self) -> dict[str, Any] | None:
        """Return the condition as plain data, or None.

        Raises:
            InvalidInput: the value cannot be read.
        """
        values = self.cleaned_data
        if not values.get("attribute"):
            return None
        condition: dict[str, Any] = {
            "attribute": values["attribute"].strip(),
            "operator": values["operator"],
        }
        if values["operator"] not in WITHOUT_VALUE or values["value"]:
            several = values["operator"] in WITH_LIST
            condition["value"] = value_from_text(values["value"], several=several)
        return condition


ConditionForms = forms.formset_factory(
    ConditionForm, extra=2, max_num=CONDITIONS_MAX, absolute_max=CONDITIONS_MAX
)


def conditions_filled(rule: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a rule's conditions as initial values of `ConditionForms`."""
    return [
        {**row, "value": value_to_text(row["value"]) if row.get("value") is not None else ""}
        for row in rule.get("conditions", ())
    ]


class AskForm(TablerForm):
    """Question to the policy: an action on an existing object, or on a described one."""

    action = forms.ChoiceField(
        choices=_pairs([action.value for action in Action]), initial=Action.DEPLOYMENT_INVOKE.value
    )
    type = forms.ChoiceField(
        label="Resource type", choices=_pairs(RESOURCE_TYPES), initial="deployment"
    )
    reference = forms.CharField(
        label="Resource",
        required=False,
        max_length=120,
        help_text="Its name or number. Leave it empty to describe one.",
    )
    department = forms.CharField(label="Department", required=False, max_length=DEPARTMENT_MAX)
    attributes = forms.CharField(
        label="Attributes",
        required=False,
        max_length=2000,
        widget=forms.Textarea(attrs={"rows": 2}),
        help_text="One per line: visibility: organization",
    )
    context = forms.CharField(
        label="Context",
        required=False,
        max_length=2000,
        widget=forms.Textarea(attrs={"rows": 2}),
        help_text="One per line, such as time: 18:30. The default is the current value.",
    )
    policy = forms.IntegerField(
        label="Under policy",
        required=False,
        min_value=1,
        max_value=2**31 - 1,
        help_text="Default: the policy in force.",
    )


class WhyForm(AskForm):
    """Question about one caller: a person, a key or roles."""

    person = forms.IntegerField(label="Person", required=False, widget=forms.Select())
    roles = forms.CharField(
        label="Role",
        required=False,
        max_length=400,
        help_text="Such as lead@clinical, reviewer:security.",
    )
    key = forms.IntegerField(
        label="Or key number", required=False, min_value=1, max_value=2**31 - 1
    )
    field_order = ("person", "key", "roles", "action", "type", "reference")

    def __init__(self, *args: Any, people: list[tuple[int, str]], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        select = self.fields["person"].widget
        select.choices = [("", "–"), *people]


def errors_placed(
    form: RuleForm, conditions: Any, error: InvalidInput, index: int
) -> dict[str, list[str]]:
    """Show the schema errors of rule `index` on the fields of its form.

    Returns the errors without a field on this form, such as those of another rule.
    """
    others: dict[str, list[str]] = {}
    rows = [row for row in conditions.forms if row.cleaned_data.get("attribute")]
    for path, sentences in error.fields.items():
        parts = path.split(".")
        target, name = form, ""
        if parts[:2] == ["rules", str(index)] and len(parts) > 2:
            name = parts[2]
            if name == "principal":
                name = parts[3] if len(parts) > 3 else "roles"
            elif name == "conditions" and len(parts) > 3 and parts[3].isdecimal():
                place = int(parts[3])
                if place < len(rows):
                    target = rows[place]
                    name = next((part for part in parts[4:] if part in target.fields), "value")
        if name in target.fields:
            target.add_error(name, sentences)
        else:
            others[path] = sentences
    return others
