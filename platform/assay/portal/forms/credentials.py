"""Forms for credentials."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from django import forms

from assay.forms import TablerForm
from assay.portal.forms.base import DepartmentScoped, NameField
from governance.credentials.models import CREDENTIAL_MAX, HOST_MAX, HOSTS_MAX
from governance.credentials.secrets import AUTHORIZATION, GOOGLE_SCOPE, SECRET_MAX, URL_MAX

# Label and help of the secret, by kind.
_SECRETS = {
    "header": (
        "Value of the header",
        "The whole value: for authorization, Bearer, a space and the key.",
    ),
    "oauth2": ("Client secret", "The provider shows it once, when you create it."),
    "google": ("JSON key file", "The whole content of the service account's key file."),
    "aws": ("Secret access key", "AWS shows it once, when you create the key."),
}
_FIELDS: dict[str, dict[str, forms.CharField]] = {
    "header": {
        "header": forms.CharField(
            label="Header",
            max_length=60,
            initial=AUTHORIZATION,
            help_text="Some providers use another header, such as api-key.",
        )
    },
    "oauth2": {
        "token_url": forms.CharField(
            label="Token URL",
            max_length=URL_MAX,
            help_text="For Entra: https://login.microsoftonline.com/TENANT/oauth2/v2.0/token.",
        ),
        "client_id": forms.CharField(label="Client ID", max_length=200),
        "scope": forms.CharField(label="Scope", max_length=1_000, required=False),
    },
    "google": {
        "scope": forms.CharField(label="Scope", max_length=1_000, initial=GOOGLE_SCOPE),
    },
    "aws": {
        "access_key_id": forms.CharField(label="Access key ID", max_length=128),
        "region": forms.CharField(
            label="Region", max_length=40, help_text="For example eu-west-1."
        ),
        "service": forms.CharField(label="Service", max_length=40, initial="bedrock"),
    },
}


class HostsField(forms.CharField):
    """Names of hosts, one per line."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(
            max_length=(HOST_MAX + 2) * HOSTS_MAX,
            help_text="One per line, for example api.openai.com. No other host gets the secret.",
            widget=forms.Textarea(attrs={"rows": 3, "spellcheck": "false"}),
            **kwargs,
        )

    def clean(self, value: Any) -> list[str]:
        """Return the lines that are not empty."""
        return (super().clean(value) or "").split()


class SecretForm(TablerForm):
    """A secret and the other fields of its kind. No page shows the secret again."""

    hosts = HostsField(label="Hosts")

    def __init__(self, *args: Any, kind: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        label, text = _SECRETS[kind]
        self.fields |= deepcopy(_FIELDS[kind])
        for name in _FIELDS[kind]:
            self.fields[name].widget.attrs["class"] = "form-control"
        self.fields["secret"] = forms.CharField(
            label=label,
            help_text=text,
            max_length=SECRET_MAX,
            widget=forms.PasswordInput(
                attrs={"class": "form-control", "autocomplete": "off", "spellcheck": "false"}
            ),
        )

    def entered(self) -> dict[str, Any]:
        """Return the cleaned values that were filled in."""
        return {name: value for name, value in self.cleaned_data.items() if value}


class CredentialForm(SecretForm, DepartmentScoped):
    name = NameField(max_length=CREDENTIAL_MAX)
    field_order = ("department", "name")


class CredentialRotateForm(SecretForm):
    """A new secret for the version that the page showed."""

    version = forms.IntegerField(min_value=1, widget=forms.HiddenInput)
