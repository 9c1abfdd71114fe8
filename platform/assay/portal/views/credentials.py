"""Credentials for providers: list, show, create, rotate and revoke."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from django.contrib import messages
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import redirect
from django.urls import reverse
from django.utils.decorators import method_decorator
from django.views.decorators.debug import sensitive_post_parameters

from assay.portal.access import departments_where, may
from assay.portal.forms.credentials import CredentialForm, CredentialRotateForm, SecretForm
from assay.portal.http import ActionScreen, add_refusal, cleaned
from assay.portal.lists import ListScreen, states
from governance.credentials.models import Credential, CredentialKind, CredentialState
from governance.credentials.schemas import CredentialFilter, CredentialRotation, NewCredential
from governance.credentials.selectors import (
    credential_get,
    credential_uses,
    credentials_visible_to,
)
from governance.credentials.services import (
    credential_create,
    credential_resource,
    credential_revoke,
    credential_rotate,
)
from governance.errors import DomainError, NotPermitted
from governance.people.proof import proof_fresh
from governance.permissions import Action
from governance.policy.services import authorize
from governance.schemas import parsed
from registry.versions.selectors import versions_naming_credential

LEAD = "Secrets for calls to hosted models. A saved secret is never shown again."


class Credentials(ListScreen):
    """Every credential that the person may see."""

    template_name = "portal/credentials/list.html"
    title = "Credentials"
    lead = LEAD
    columns = "Credential | State | Department | Hosts | Last used | Secret entered"
    filters = CredentialFilter
    toolbar = (states(CredentialState.choices),)
    creates = (Action.CREDENTIAL_CREATE, "credential")

    def rows(self) -> QuerySet[Credential]:
        return credentials_visible_to(self.actor)


class CredentialPage(ActionScreen):
    """One credential: its hosts, its uses, and the hosted versions that name it."""

    template_name = "portal/credentials/credential.html"

    def context(self, *, id: int, **kwargs: Any) -> dict[str, Any]:  # noqa: A002
        credential = credential_get(actor=self.actor, credential_id=id)

        def permitted(action: Action) -> bool:
            slug, kind = credential.department.slug, credential.kind
            return may(
                self.actor, action, kind="credential", department=slug, attributes={"kind": kind}
            )

        active = credential.state == CredentialState.ACTIVE
        return {
            "credential": credential,
            "uses": credential_uses(credential),
            "versions": versions_naming_credential(self.actor, credential),
            "may_rotate": permitted(Action.CREDENTIAL_ROTATE),
            "may_revoke": active and permitted(Action.CREDENTIAL_REVOKE),
        }


class CredentialRevoke(CredentialPage):
    def act(self, *, id: int, **kwargs: Any) -> HttpResponse:  # noqa: A002
        credential = credential_revoke(actor=self.actor, credential_id=id)
        return self.done(
            f"{credential.name} is revoked and its secret deleted.", "portal:credential", id=id
        )


@method_decorator(sensitive_post_parameters("secret"), name="dispatch")
class SecretScreen(ActionScreen):
    """A form with a secret. It opens only after a second factor: if the form were sent first, the
    page that requests a second factor would have to carry the secret."""

    template_name = "portal/credentials/form.html"

    def form(self) -> SecretForm:
        """Return the form of this request. Raises DomainError if the person may not send one."""
        raise NotImplementedError

    def get(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        if proof_fresh(self.actor):
            return super().get(request, *args, **kwargs)
        self.form()
        return self.proving()

    def asking(self, refusal: DomainError) -> HttpResponse:
        messages.info(self.request, "Verify your identity, then enter the secret again.")
        return self.proving()

    def proving(self) -> HttpResponse:
        """Redirect to the page that takes a second factor and returns here."""
        target = urlencode({"next": self.request.get_full_path()})
        return redirect(f"{reverse('portal:account_prove')}?{target}")


class CredentialNew(SecretScreen):
    """Enter a new credential of the kind in the query."""

    def kind(self) -> CredentialKind:
        kind = self.request.GET.get("kind", "")
        return CredentialKind(kind) if kind in CredentialKind.values else CredentialKind.HEADER

    def form(self) -> CredentialForm:
        departments = departments_where(self.actor, Action.CREDENTIAL_CREATE, kind="credential")
        if not departments.exists():
            raise NotPermitted(
                f"{self.actor.name} may not enter credentials.",
                hint="Ask a lead of your department or an administrator.",
            )
        return CredentialForm(self.request.POST or None, departments=departments, kind=self.kind())

    def context(self, **kwargs: Any) -> dict[str, Any]:
        form = self.form()
        add_refusal(form, self.acted)
        return {
            "form": form,
            "title": "New credential",
            "lead": LEAD,
            "submit": "Save credential",
            "kind": self.kind(),
            "kinds": CredentialKind.choices,
        }

    def act(self, **kwargs: Any) -> HttpResponse:
        form = self.form()
        department = cleaned(form)["department"]
        values = form.entered() | {"department": department.slug, "kind": self.kind()}
        body = parsed(NewCredential, values)
        credential = credential_create(
            actor=self.actor,
            department=department,
            name=body.name,
            kind=body.kind,
            hosts=body.hosts,
            entered=body,
        )
        return self.done(
            f"{credential.name} is saved. Its secret is never shown again.",
            "portal:credential",
            id=credential.pk,
        )


class CredentialRotate(SecretScreen):
    """Replace the secret of a credential, and its hosts."""

    def credential(self) -> Credential:
        return credential_get(actor=self.actor, credential_id=self.kwargs["id"])

    def form(self) -> CredentialRotateForm:
        credential = self.credential()
        if self.request.method != "POST":
            authorize(
                actor=self.actor,
                action=Action.CREDENTIAL_ROTATE,
                resource=credential_resource(credential),
            )
        initial = {"hosts": "\n".join(credential.hosts), "version": credential.version}
        return CredentialRotateForm(
            self.request.POST or None, kind=credential.kind, initial=initial
        )

    def context(self, **kwargs: Any) -> dict[str, Any]:
        credential, form = self.credential(), self.form()
        add_refusal(form, self.acted)
        return {
            "form": form,
            "credential": credential,
            "title": f"Rotate {credential.name}",
            "lead": "Egress workers use the new secret within seconds. Running answers are not "
            "interrupted.",
            "submit": "Replace secret",
        }

    def act(self, *, id: int, **kwargs: Any) -> HttpResponse:  # noqa: A002
        form = self.form()
        cleaned(form)
        body = parsed(CredentialRotation, form.entered())
        credential = credential_rotate(
            actor=self.actor,
            credential_id=id,
            entered=body,
            hosts=body.hosts,
            version=body.version,
        )
        return self.done(
            f"{credential.name} has a new secret.", "portal:credential", id=credential.pk
        )
