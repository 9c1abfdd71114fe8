"""Signing in and out, and the demonstration's personas."""

from __future__ import annotations

import ipaddress
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.contrib.auth import login, logout
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.decorators import method_decorator
from django.utils.http import url_has_allowed_host_and_scheme
from django.views import View
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters

from assay.portal.forms import SignInForm
from governance.audit.services import audit_refusal
from governance.errors import DomainError
from governance.people.models import Person
from governance.people.services import sign_in

BACKEND = "django.contrib.auth.backends.ModelBackend"


def is_loopback(host: str) -> bool:
    """Whether a host name or address means this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def personas_allowed(request: HttpRequest) -> bool:
    """Only in the demonstration, only from this machine, only asked for by its loopback name.

    A reverse proxy would make every client look local, so a forwarded request is refused.
    """
    forwarded = "HTTP_X_FORWARDED_FOR" in request.META or "HTTP_FORWARDED" in request.META
    host = urlsplit(f"//{request.get_host()}").hostname or ""
    return (
        settings.DEMO
        and not settings.PRODUCTION
        and not forwarded
        and is_loopback(request.META.get("REMOTE_ADDR", ""))
        and is_loopback(host)
    )


def destination(request: HttpRequest) -> str:
    """Where `next` points, when that is a page of this site; else the overview."""
    target = request.POST.get("next") or request.GET.get("next") or ""
    if url_has_allowed_host_and_scheme(
        target, allowed_hosts={request.get_host()}, require_https=request.is_secure()
    ):
        return target
    return "portal:overview"


@method_decorator([never_cache, sensitive_post_parameters("password")], name="dispatch")
class SignIn(View):
    """E-mail and password; in the demonstration also one click."""

    def get(self, request: HttpRequest) -> HttpResponse:
        if request.user.is_authenticated:
            return redirect(destination(request))
        return self._page(request, SignInForm())

    def post(self, request: HttpRequest) -> HttpResponse:
        form = SignInForm(request.POST)
        if not form.is_valid():
            return self._page(request, form, status=400)
        try:
            person = sign_in(
                email=form.cleaned_data["email"], password=form.cleaned_data["password"]
            )
        except DomainError as error:
            audit_refusal(error)
            return self._page(request, form, status=error.status, error=error)
        login(request, person, backend=BACKEND)
        return redirect(destination(request))

    def _page(
        self,
        request: HttpRequest,
        form: SignInForm,
        status: int = 200,
        error: DomainError | None = None,
    ) -> HttpResponse:
        context: dict[str, Any] = {"form": form, "error": error, "personas": []}
        context["next"] = request.POST.get("next") or request.GET.get("next") or ""
        if personas_allowed(request):
            people = Person.objects.filter(is_active=True)
            context["personas"] = people.prefetch_related("role_assignments__department")[:30]
        return render(request, "portal/login.html", context, status=status)


@method_decorator(never_cache, name="dispatch")
class SignOut(View):
    """Ends the session."""

    def post(self, request: HttpRequest) -> HttpResponseRedirect:
        logout(request)
        return redirect("portal:login")


class DemoSignIn(View):
    """One click becomes a person of the demonstration. Does not exist anywhere else."""

    def post(self, request: HttpRequest) -> HttpResponse:
        if not personas_allowed(request):
            raise Http404
        wanted = request.POST.get("person", "")
        if not wanted.isdecimal():
            raise Http404
        person = get_object_or_404(Person, pk=int(wanted[:12]), is_active=True)
        login(request, person, backend=BACKEND)
        return redirect(destination(request))

    def get(self, request: HttpRequest) -> HttpResponse:
        if not personas_allowed(request):
            raise Http404
        return redirect("portal:login")
