"""Forms for a person's own account and for managing another person's sign-in."""

from __future__ import annotations

from typing import Any

from django import forms

from assay.accounts.factors import CODE_MAX
from assay.forms import TablerForm
from governance.bounds import TITLE_MAX
from governance.people.access_requests import TEXT_MAX
from governance.people.models import REASON_MAX
from governance.people.signing_in import PASSWORD_MAX


class CodeForm(TablerForm):
    """A code from an authenticator app, or a recovery code."""

    code = forms.CharField(
        max_length=CODE_MAX,
        widget=forms.TextInput(
            attrs={"autocomplete": "one-time-code", "inputmode": "numeric", "autofocus": True}
        ),
    )


class ConfirmForm(TablerForm):
    """The person's password, to confirm a change."""

    password = forms.CharField(
        max_length=PASSWORD_MAX,
        widget=forms.PasswordInput(attrs={"autocomplete": "current-password"}),
    )


class PasskeyForm(TablerForm):
    """Name of a new passkey; the browser adds its credential."""

    name = forms.CharField(max_length=60, help_text="A name for it, such as “work laptop”.")


class TokenForm(TablerForm):
    """A new personal access token."""

    name = forms.CharField(
        max_length=TITLE_MAX, help_text="Where it is used, such as “notebook on the lab server”."
    )
    days = forms.TypedChoiceField(
        label="Expires",
        choices=[(7, "in a week"), (30, "in 30 days"), (90, "in 90 days")],
        coerce=int,
        initial=30,
    )


class ReasonForm(TablerForm):
    """Reason for a change to another person's account."""

    reason = forms.CharField(max_length=REASON_MAX)


class RecoveryForm(TablerForm):
    """A recovery of another person's account."""

    PREFIX = "recovery"

    purpose = forms.ChoiceField(
        label="What the link sets",
        choices=[
            ("password", "A password and a second factor"),
            ("factor", "A second factor; they sign in otherwise as before"),
        ],
        initial="password",
    )
    reason = forms.CharField(
        max_length=REASON_MAX,
        help_text="Administrators and the person see it.",
        widget=forms.TextInput(attrs={"autocomplete": "off"}),
    )


class AccessRequestForm(TablerForm):
    """A request for a first role."""

    text = forms.CharField(
        max_length=TEXT_MAX,
        label="What you need",
        help_text="Your department, what you want to do, and who can confirm it.",
    )


class LinkForm(TablerForm):
    """A one-time link, for browsers without the script that reads it from the address."""

    link = forms.CharField(
        max_length=300,
        label="One-time link",
        widget=forms.TextInput(attrs={"autocomplete": "off", "spellcheck": "false"}),
        help_text="Paste the whole link.",
    )
    code = forms.CharField(
        required=False,
        max_length=CODE_MAX,
        label="Code of the recovery",
        help_text="The administrator who requested it has it.",
        widget=forms.TextInput(attrs={"autocomplete": "off", "spellcheck": "false"}),
    )


class NewPasswordForm(TablerForm):
    """A password, and the code of a new authenticator app where roles require one."""

    password = forms.CharField(
        max_length=PASSWORD_MAX,
        label="New password",
        widget=forms.PasswordInput(attrs={"autocomplete": "new-password"}),
        help_text="At least 12 characters.",
    )
    again = forms.CharField(
        max_length=PASSWORD_MAX,
        label="Repeat the new password",
        widget=forms.PasswordInput(attrs={"autocomplete": "new-password"}),
    )
    code = forms.CharField(
        required=False,
        max_length=CODE_MAX,
        label="Authenticator code",
        widget=forms.TextInput(attrs={"autocomplete": "one-time-code", "inputmode": "numeric"}),
    )

    def clean(self) -> dict[str, Any]:
        """Reject two passwords that differ."""
        values: dict[str, Any] = super().clean() or {}
        if {"password", "again"} <= values.keys() and values["password"] != values["again"]:
            self.add_error("again", "The two passwords differ.")
        return values


class PasswordForm(TablerForm):
    """A new password for the person's own account."""

    current = forms.CharField(
        max_length=PASSWORD_MAX,
        label="Current password",
        widget=forms.PasswordInput(attrs={"autocomplete": "current-password"}),
    )
    new = forms.CharField(
        max_length=PASSWORD_MAX,
        label="New password",
        widget=forms.PasswordInput(attrs={"autocomplete": "new-password"}),
        help_text="At least 12 characters. Your other sessions will end.",
    )
