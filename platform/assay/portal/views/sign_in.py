"""Signing in and out: password and second factor, passkey, single sign-on, personas."""

from __future__ import annotations

import secrets
from typing import Any

import redis
import requests
from allauth.account.internal.flows.login import (
    perform_login,
    perform_password_login,
    record_authentication,
)
from allauth.account.models import Login
from allauth.account.stages import LoginStageController
from allauth.core.exceptions import ImmediateHttpResponse
from allauth.mfa.stages import AuthenticateStage
from allauth.socialaccount.adapter import get_adapter
from allauth.socialaccount.models import SocialApp
from allauth.socialaccount.providers.base.constants import AuthProcess
from allauth.socialaccount.providers.oauth2.views import OAuth2CallbackView
from django.conf import settings
from django.contrib.auth import logout
from django.core.exceptions import ImproperlyConfigured
from django.http import (
    Http404,
    HttpRequest,
    HttpResponse,
    HttpResponseBase,
    HttpResponseRedirect,
    JsonResponse,
)
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.decorators import method_decorator
from django.views import View
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters

from assay.accounts import single_sign_on
from assay.accounts.factors import code_check, factors_of
from assay.accounts.freshness import DEMONSTRATION
from assay.accounts.pages import SignInForm, destination, refusal, sign_in_page
from assay.accounts.passkeys import authentication_options, passkey_check
from assay.accounts.personas import personas_allowed
from assay.accounts.single_sign_on import SignOnAdapter
from assay.middleware import principal_of
from assay.portal.forms.account import CodeForm
from assay.portal.http import number_in
from governance.audit.refusals import refusal_record
from governance.errors import DomainError, Unavailable
from governance.people.models import Person
from governance.people.sessions import sign_out
from governance.people.signing_in import password_check


@method_decorator([never_cache, sensitive_post_parameters("password")], name="dispatch")
class SignIn(View):
    """Sign-in with e-mail and password; in the demonstration also with one click."""

    def get(self, request: HttpRequest) -> HttpResponse:
        if request.user.is_authenticated:
            return redirect(destination(request))
        return sign_in_page(request)

    def post(self, request: HttpRequest) -> HttpResponse:
        form = SignInForm(request.POST)
        if not form.is_valid():
            return sign_in_page(request, form, status=400)
        try:
            person = password_check(
                email=form.cleaned_data["email"], password=form.cleaned_data["password"]
            )
        except DomainError as error:
            refusal_record(error)
            return sign_in_page(request, form, status=error.status, error=error)
        leave(request)
        login = Login(user=person, redirect_url=destination(request))
        response: HttpResponse = perform_password_login(request, {}, login)
        return response


def leave(request: HttpRequest) -> None:
    """Sign out the person who is signed in here, before another person signs in."""
    if request.user.is_authenticated:
        sign_out(actor=principal_of(request), key=request.session.session_key)
        logout(request)


@method_decorator([never_cache, sensitive_post_parameters("code", "credential")], name="dispatch")
class SecondFactor(View):
    """The step after the password: a code, or a passkey."""

    stage: Any

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        if request.user.is_authenticated:
            return redirect("portal:overview")
        self.stage = LoginStageController.enter(request, AuthenticateStage.key)
        if self.stage is None or self.stage.login.user is None:
            return redirect("portal:login")
        return super().dispatch(request, *args, **kwargs)

    def get(self, request: HttpRequest) -> HttpResponse:
        return self.page()

    def post(self, request: HttpRequest) -> HttpResponse:
        person = self.stage.login.user
        try:
            if "credential" in request.POST:
                factor = passkey_check(person=person, credential=request.POST["credential"])
            else:
                factor = code_check(person=person, code=request.POST.get("code", ""))
        except DomainError as error:
            refusal_record(error)
            return self.page(status=error.status, error=error)
        record_authentication(request, person, "mfa", id=factor.pk, type=factor.type)
        response: HttpResponse = self.stage.exit()
        return response

    def page(self, *, status: int = 200, error: DomainError | None = None) -> HttpResponse:
        factors = factors_of(self.stage.login.user.pk)
        context = {"form": CodeForm(), "factors": factors, "error": error}
        return render(self.request, "portal/account/second_factor.html", context, status=status)


@method_decorator([never_cache], name="dispatch")
class SecondFactorOptions(SecondFactor):
    """Return the challenge for a passkey as the second factor."""

    def get(self, request: HttpRequest) -> HttpResponse:
        return JsonResponse(authentication_options(person=self.stage.login.user))

    http_method_names = ("get",)


@method_decorator([never_cache, sensitive_post_parameters("credential")], name="dispatch")
class PasskeySignIn(View):
    """A passkey alone: it verifies its user, so it is both factors."""

    def get(self, request: HttpRequest) -> HttpResponse:
        return JsonResponse(authentication_options(person=None))

    def post(self, request: HttpRequest) -> HttpResponse:
        try:
            factor = passkey_check(person=None, credential=request.POST.get("credential", ""))
        except DomainError as error:
            return refusal(request, error)
        leave(request)
        person = factor.user
        record_authentication(
            request, person, "mfa", id=factor.pk, type=factor.type, passwordless=True
        )
        login = Login(user=person, redirect_url=destination(request))
        response: HttpResponse = perform_login(request, login)
        return response


@method_decorator(never_cache, name="dispatch")
class SingleSignOn(View):
    """Redirect to the identity provider.

    A GET, because `form-action` would block a form to another site. A person tricked into
    following this link signs in as themselves. Only `next` of the query is passed on.
    """

    def get(self, request: HttpRequest) -> HttpResponse:
        if not settings.OIDC_ISSUER:
            raise Http404
        again = {"prompt": "login"} if "again" in request.GET else {}
        nonce = secrets.token_urlsafe(24)
        try:
            provider = get_adapter().get_provider(request, provider=settings.OIDC_PROVIDER)
            provider.oauth2_adapter_class = SignOnAdapter
            response: HttpResponse = provider.redirect(
                request,
                process=AuthProcess.LOGIN,
                next_url=destination(request),
                auth_params={single_sign_on.NONCE: nonce, **again},
                nonce=nonce,
            )
        except (requests.RequestException, ValueError, KeyError):
            return refusal(request, single_sign_on.unavailable())
        return response


@method_decorator(never_cache, name="dispatch")
class SingleSignOnCallback(View):
    """Handle the return from the identity provider, with a code."""

    def get(self, request: HttpRequest) -> HttpResponseBase:
        if not settings.OIDC_ISSUER:
            raise Http404
        try:
            view = OAuth2CallbackView.adapter_view(SignOnAdapter(request, settings.OIDC_PROVIDER))
            response: HttpResponseBase = view(request)
        except ImmediateHttpResponse as answered:
            refused: HttpResponseBase = answered.response
            return refused
        except SocialApp.DoesNotExist as error:
            raise Http404 from error
        except ImproperlyConfigured:
            return refusal(request, single_sign_on.unkeepable())
        except redis.RedisError:
            down = Unavailable(
                "Signing in is not possible: Redis, which keeps used answers, does not answer.",
                hint="Check REDIS_URL and that the server runs.",
                retry_after=5,
            )
            return refusal(request, down)
        except (requests.RequestException, ValueError, KeyError):
            return refusal(request, single_sign_on.failure(None, None))
        return response


@method_decorator(never_cache, name="dispatch")
class SignOut(View):
    """End the session."""

    def post(self, request: HttpRequest) -> HttpResponseRedirect:
        leave(request)
        return redirect("portal:login")


class DemoSignIn(View):
    """Sign in as a persona with one click; exists only in the demonstration."""

    def post(self, request: HttpRequest) -> HttpResponse:
        if not personas_allowed(request):
            raise Http404
        person = get_object_or_404(Person, pk=number_in(request.POST, "person"), is_active=True)
        leave(request)
        # The demonstration needs no password, but still asks for a second factor that was set up.
        record_authentication(request, person, DEMONSTRATION)
        response: HttpResponse = perform_login(
            request, Login(user=person, redirect_url=destination(request))
        )
        return response

    def get(self, request: HttpRequest) -> HttpResponse:
        if not personas_allowed(request):
            raise Http404
        return redirect("portal:login")
