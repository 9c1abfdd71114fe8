"""Forms of people and departments."""

from __future__ import annotations

from typing import Any

from django import forms

from assay.forms import TablerForm
from assay.portal.forms.base import NameField, SlugChoice, titled
from governance.bounds import DEPARTMENT_MAX, EMAIL_MAX, GROUP_MAX, TITLE_MAX
from governance.people.models import (
    DEPARTMENT_ROLES,
    JOBS_AT_ONCE_MAX,
    REASON_MAX,
    Role,
    Specialty,
)
from registry.responses.models import RETENTION_MAX_DAYS


class PersonForm(TablerForm):
    """A person to invite."""

    email = forms.EmailField(label="E-mail")
    name = forms.CharField(max_length=TITLE_MAX)


class DepartmentForm(TablerForm):
    """A new department."""

    slug = NameField(max_length=DEPARTMENT_MAX, label="Short name")
    name = forms.CharField(max_length=TITLE_MAX)


class RoleForm(TablerForm):
    """One role to grant."""

    # The weakest role is preselected, so that a slip grants no administrator role.
    role = forms.ChoiceField(choices=titled(Role.choices), initial=Role.VIEWER)
    department = SlugChoice(queryset=None, required=False, empty_label="Platform-wide")
    specialty = forms.ChoiceField(
        required=False,
        label="Specialty",
        choices=[("", "None"), *titled(Specialty.choices)],
        help_text="For reviewers only.",
    )

    def __init__(self, *args: Any, departments: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["department"].queryset = departments  # type: ignore[attr-defined]
        self.fields["role"].help_text = f"Roles in a department: {', '.join(DEPARTMENT_ROLES)}."


class MappingForm(RoleForm):
    """A group and the role that its members get."""

    group = forms.CharField(
        max_length=GROUP_MAX,
        help_text="Its name, exactly as the identity provider sends it.",
        widget=forms.TextInput(attrs={"autocomplete": "off"}),
    )

    field_order = ("group", "role", "department", "specialty")


class EraseForm(TablerForm):
    """Reason for erasing a person; the actor types the person's address to confirm."""

    why = forms.CharField(
        label="Reason",
        max_length=REASON_MAX,
        help_text="Stays in the audit log permanently. Do not name them.",
        widget=forms.TextInput(attrs={"autocomplete": "off"}),
    )
    confirm = forms.CharField(
        label="Their e-mail address, to confirm",
        max_length=EMAIL_MAX,
        widget=forms.TextInput(attrs={"autocomplete": "off", "spellcheck": "false"}),
    )

    def __init__(self, *args: Any, email: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._email = email

    def clean_confirm(self) -> str:
        typed = str(self.cleaned_data["confirm"]).strip().lower()
        if typed != self._email:
            raise forms.ValidationError("The address does not match; the person was not erased.")
        return typed


class StandingForm(TablerForm):
    """Reason for ending or restoring a person's access."""

    reason = forms.CharField(
        max_length=REASON_MAX,
        help_text="Kept in the audit log.",
        widget=forms.TextInput(attrs={"autocomplete": "off"}),
    )


class JobsAtOnceForm(TablerForm):
    """Maximum jobs of a department that run at the same time."""

    jobs_at_once = forms.IntegerField(
        label="Jobs at once",
        required=False,
        min_value=1,
        max_value=JOBS_AT_ONCE_MAX,
        help_text="Leave empty for the platform's default.",
    )


class RetentionForm(TablerForm):
    """Days for which a department keeps responses."""

    days = forms.IntegerField(
        label="Days to keep responses",
        min_value=0,
        max_value=RETENTION_MAX_DAYS,
        help_text="0 deletes all stored responses at once, and stores no more.",
    )
