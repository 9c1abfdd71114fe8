"""One-time links: opened by their recipient, made by an administrator on a person's page."""

from __future__ import annotations

import base64
from typing import Any

from allauth.mfa.adapter import get_adapter
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.cache import add_never_cache_headers
from django.utils.decorators import method_decorator
from django.views import View
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters

from assay.accounts import crypto
from assay.accounts.factors import factors_of, new_secret
from assay.accounts.links import (
    link_forget,
    link_opened,
    link_remember,
    needs_first_factor,
    password_set,
)
from assay.portal.forms.account import LinkForm, NewPasswordForm
from assay.portal.http import cleaned
from assay.portal.views.sessions import PersonSignIn
from assay.portal.views.sign_in import leave
from governance.audit.refusals import refusal_record
from governance.errors import DomainError
from governance.people.credentials import has_factor
from governance.people.links import TEXT_MAX, is_mailed, not_valid, password_link_create
from governance.people.models import LinkPurpose, OneTimeLink, Person
from governance.people.recoveries.opening import one_time_link_open

SECRET = "assay_totp_secret"  # noqa: S105 (a name in the session)


def app_secret(request: HttpRequest) -> str:
    """Return the secret that this session offers to an authenticator app; new with each GET."""
    if request.method == "GET" or SECRET not in request.session:
        request.session[SECRET] = crypto.encrypt(new_secret())
    return crypto.decrypt(request.session[SECRET])


def authenticator_setup(person: Person, secret: str) -> dict[str, str]:
    """Return the QR code of a secret, and the secret in groups of four."""
    address = get_adapter().build_totp_url(person, secret)
    picture = base64.b64encode(get_adapter().build_totp_svg(address).encode()).decode()
    return {
        "picture": f"data:image/svg+xml;base64,{picture}",
        "secret": " ".join(secret[at : at + 4] for at in range(0, len(secret), 4)),
    }


@method_decorator([never_cache, sensitive_post_parameters("link", "code")], name="dispatch")
class LinkOpen(View):
    """The page behind a one-time link. Its script posts the text after the `#`."""

    def get(self, request: HttpRequest) -> HttpResponse:
        return self.page(request)

    def post(self, request: HttpRequest) -> HttpResponse:
        try:
            link = one_time_link_open(
                text=request.POST.get("link", ""), code=request.POST.get("code", "")
            )
        except DomainError as error:
            refusal_record(error)
            return self.page(request, error)
        of_password = link.purpose == LinkPurpose.PASSWORD
        # A recovery may have ended this very session.
        if of_password or not request.session.exists(request.session.session_key or ""):
            leave(request)
        link_remember(request, link)
        return redirect("portal:link_password" if of_password else "portal:account_authenticator")

    def page(self, request: HttpRequest, error: DomainError | None = None) -> HttpResponse:
        needs_code = getattr(error, "code", "") in {"recovery_code_needed", "wrong_recovery_code"}
        typed = {"link": request.POST.get("link", "")[:TEXT_MAX]} if needs_code else None
        form = LinkForm(initial=typed)
        form.fields["code"].required = needs_code
        context = {"form": form, "error": error, "needs_code": needs_code}
        status = 200 if error is None else error.status
        response = render(request, "portal/account/link.html", context, status=status)
        if error is not None and error.retry_after is not None:
            response.headers["Retry-After"] = str(int(error.retry_after))
        return response


@method_decorator(
    [never_cache, sensitive_post_parameters("password", "again", "code")], name="dispatch"
)
class LinkPassword(View):
    """Set a password by an opened link, with a first second factor where roles require one."""

    def get(self, request: HttpRequest) -> HttpResponse:
        return self.page(request)

    def post(self, request: HttpRequest) -> HttpResponse:
        link_id = link_opened(request, LinkPurpose.PASSWORD)
        try:
            values = cleaned(NewPasswordForm(request.POST))
            link, codes = password_set(
                link_id=link_id,
                password=values["password"],
                secret=app_secret(request),
                code=values["code"],
            )
        except DomainError as error:
            refusal_record(error)
            return self.page(request, error)
        link_forget(request)
        request.session.pop(SECRET, None)
        context = {"person": link.person, "codes": codes}
        return render(request, "portal/account/link_used.html", context)

    def page(self, request: HttpRequest, error: DomainError | None = None) -> HttpResponse:
        link_id = link_opened(request, LinkPurpose.PASSWORD)
        link = OneTimeLink.objects.select_related("person").filter(pk=link_id or 0).first()
        if link is None or getattr(error, "code", "") == "link_not_valid":
            gone = error or not_valid(None)
            context: dict[str, Any] = {"form": LinkForm(), "error": gone}
            return render(request, "portal/account/link.html", context, status=gone.status)
        person = link.person
        form = NewPasswordForm(request.POST or None)
        context = {"person": person, "form": form, "error": error}
        if has_factor(person.pk):
            form.fields["code"].label = "Code"
            context["factors"] = factors_of(person.pk)
        elif needs_first_factor(person):
            context |= {"needs_factor": True, **authenticator_setup(person, app_secret(request))}
        form.fields["code"].required = "factors" in context or "needs_factor" in context
        status = 200 if error is None else error.status
        return render(request, "portal/account/link_password.html", context, status=status)


class PersonLink(PersonSignIn):
    """Make a one-time link with which a person sets their password, and show it once."""

    def act(self, *, id: int, **kwargs: Any) -> HttpResponse:  # noqa: A002
        link, address = password_link_create(actor=self.actor, person_id=id)
        return link_page(self.request, link, address)


def link_page(request: HttpRequest, link: OneTimeLink, address: str) -> HttpResponse:
    """Return the page that shows a new link, once only."""
    context = {
        "link": link,
        "person": link.person,
        "address": address,
        "mailed": is_mailed(),
        "for_password": link.purpose == LinkPurpose.PASSWORD,
    }
    return secret_page(request, "portal/account/link_made.html", context)


def secret_page(request: HttpRequest, template: str, context: dict[str, Any]) -> HttpResponse:
    """Return a page with a secret that is shown once only and never cached."""
    response = render(request, template, context, status=201)
    add_never_cache_headers(response)
    return response
