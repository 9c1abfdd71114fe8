"""The forms of one's own account, and of somebody else's sign-in."""

from __future__ import annotations

from django import forms

from assay.portal.forms import TablerForm


class CodeForm(TablerForm):
    """A code of an authenticator app, or a recovery code."""

    code = forms.CharField(
        max_length=32,
        widget=forms.TextInput(
            attrs={"autocomplete": "one-time-code", "inputmode": "numeric", "autofocus": True}
        ),
    )


class ConfirmForm(TablerForm):
    """The password again."""

    password = forms.CharField(
        max_length=256, widget=forms.PasswordInput(attrs={"autocomplete": "current-password"})
    )


class PasskeyForm(TablerForm):
    """A new passkey's name; the browser adds the rest."""

    name = forms.CharField(
        max_length=60, help_text="To tell it from others, such as “work laptop”."
    )


class TokenForm(TablerForm):
    """A new access token of one's own."""

    name = forms.CharField(
        max_length=120, help_text="Where it is used, such as “notebook on the lab server”."
    )
    days = forms.TypedChoiceField(
        label="Expires",
        choices=[(7, "in a week"), (30, "in 30 days"), (90, "in 90 days")],
        coerce=int,
        initial=30,
    )


class ReasonForm(TablerForm):
    """Why something is done to somebody's account."""

    reason = forms.CharField(max_length=300)


class PasswordForm(TablerForm):
    """A new password for oneself."""

    current = forms.CharField(
        max_length=256,
        label="Current password",
        widget=forms.PasswordInput(attrs={"autocomplete": "current-password"}),
    )
    new = forms.CharField(
        max_length=256,
        label="New password",
        widget=forms.PasswordInput(attrs={"autocomplete": "new-password"}),
        help_text="Twelve characters at least; your other sessions end.",
    )
