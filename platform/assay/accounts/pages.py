"""The sign-in page, which also shows why a sign-in was refused."""

from __future__ import annotations

from typing import Any

from django import forms
from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils.cache import add_never_cache_headers
from django.utils.http import url_has_allowed_host_and_scheme

from assay.accounts.personas import personas_allowed
from assay.forms import TablerForm
from governance.audit.refusals import refusal_record
from governance.errors import DomainError
from governance.people.models import Person
from governance.people.signing_in import PASSWORD_MAX, sign_in_attempt


class SignInForm(TablerForm):
    """Email address and password."""

    email = forms.EmailField(
        label="E-mail",
        widget=forms.EmailInput(attrs={"autocomplete": "username"}),
    )
    password = forms.CharField(
        max_length=PASSWORD_MAX,
        widget=forms.PasswordInput(attrs={"autocomplete": "current-password"}),
    )


def destination(request: HttpRequest) -> str:
    """Return the URL in `next` if it is on this site; otherwise the overview."""
    target = request.POST.get("next") or request.GET.get("next") or ""
    if url_has_allowed_host_and_scheme(
        target, allowed_hosts={request.get_host()}, require_https=request.is_secure()
    ):
        return target
    return reverse("portal:overview")


def sign_in_page(
    request: HttpRequest,
    form: SignInForm | None = None,
    *,
    status: int = 200,
    error: DomainError | None = None,
) -> HttpResponse:
    """Return the page with password, passkey, single sign-on, and the demonstration's personas."""
    context: dict[str, Any] = {"form": form or SignInForm(), "error": error, "personas": []}
    context["next"] = request.POST.get("next") or request.GET.get("next") or ""
    context["sso"] = settings.OIDC_NAME if settings.OIDC_ISSUER else ""
    if personas_allowed(request):
        people = Person.objects.filter(is_active=True)
        context["personas"] = people.prefetch_related("role_assignments__department")[:30]
    else:
        # After a wrong password, the address is filled in.
        field = context["form"].fields["email" if form is None else "password"]
        field.widget.attrs["autofocus"] = True
    response = render(request, "portal/login.html", context, status=status)
    if error is not None and error.retry_after is not None:
        response.headers["Retry-After"] = str(int(error.retry_after))
    add_never_cache_headers(response)
    return response


def refusal(request: HttpRequest, error: DomainError) -> HttpResponse:
    """Audit the refusal and return the sign-in page with it; call it outside any transaction."""
    if error.attempt is None:
        # A service refused a known person; that is still a sign-in attempt.
        error.attempt = sign_in_attempt(person=None)
    refusal_record(error)
    return sign_in_page(request, status=error.status, error=error)
