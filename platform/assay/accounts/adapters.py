"""Hooks of allauth: the client's identity, the steps of a sign-in, and its end.

allauth carries a sign-in through its steps in the session; every step's check, count and audit
event is ours (`governance.people.signing_in`, `assay.accounts.factors`).
"""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any, cast

from allauth.account.adapter import DefaultAccountAdapter
from allauth.account.internal.flows.login import get_authentication_records
from allauth.account.internal.stagekit import clear_login
from allauth.core.exceptions import ImmediateHttpResponse
from allauth.mfa.adapter import DefaultMFAAdapter
from allauth.socialaccount.adapter import DefaultSocialAccountAdapter
from allauth.socialaccount.models import SocialLogin
from allauth.usersessions.models import UserSession
from django.conf import settings
from django.contrib.auth import logout
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils import timezone

from assay.accounts import crypto, single_sign_on
from assay.accounts.factor_requirement import require_second_factor
from assay.accounts.pages import refusal
from assay.middleware import client_address
from governance.errors import DomainError, NotAuthenticated
from governance.people.models import Person
from governance.people.signing_in import sign_in_attempt, sign_in_record

# In a session: when its last use was recorded, in seconds since the epoch.
SEEN = "assay_seen_at"
UNKNOWN_ADDRESS = "0.0.0.0"  # noqa: S104 (the column is not nullable; no socket binds to it)


def methods_of(request: HttpRequest, person: Person) -> list[str]:
    """By what the person proved who they are in this session, in order."""
    named = []
    for record in get_authentication_records(request, person):
        method = str(record.get("type") if record["method"] == "mfa" else record["method"])
        named.append({"socialaccount": "sso"}.get(method, method))
    return list(dict.fromkeys(named))


class AccountAdapter(DefaultAccountAdapter):  # type: ignore[misc]
    """Accounts are made by administrators and identity providers, never by visitors."""

    def is_open_for_signup(self, request: HttpRequest) -> bool:
        return False

    def get_client_ip(self, request: HttpRequest) -> str:
        """By the trusted proxies that the rest of the platform trusts."""
        return client_address(request) or UNKNOWN_ADDRESS

    def get_login_stages(self) -> list[str]:
        return ["allauth.mfa.stages.AuthenticateStage"]

    def respond_user_inactive(self, request: HttpRequest, user: Any) -> HttpResponse:
        error = NotAuthenticated(
            f"The account of {user.name} is inactive and cannot sign in.",
            attempt=sign_in_attempt(person=user),
        )
        return refusal(request, error)

    def login(self, request: HttpRequest, user: Any) -> None:
        """Every factor was given: the audit event, then the session."""
        person = cast(Person, user)
        methods = methods_of(request, person)
        try:
            sign_in_record(person=person, methods=methods)
        except DomainError as error:
            clear_login(request)
            logout(request)
            raise ImmediateHttpResponse(refusal(request, error)) from error
        super().login(request, person)
        require_second_factor(request, person)
        begin_session(request)

    def post_login(self, request: HttpRequest, user: Any, **more: Any) -> HttpResponse:
        """No message, no signal: where to go is all that is left to say."""
        target = more.get("redirect_url")
        return redirect(target if target and self.is_safe_url(target) else "portal:overview")


def begin_session(request: HttpRequest) -> None:
    """Keep whose session it is, from which device and address; its end is set, used or not."""
    request.session.set_expiry(timezone.now() + timedelta(seconds=settings.SESSION_COOKIE_AGE))
    request.session[SEEN] = int(time.time())
    request.session.save()
    UserSession.objects.create_from_request(request)


class SecondFactorAdapter(DefaultMFAAdapter):  # type: ignore[misc]
    """Secrets are encrypted; codes and passkeys name the platform."""

    def encrypt(self, text: str) -> str:
        return crypto.encrypt(text)

    def decrypt(self, encrypted_text: str) -> str:
        return crypto.decrypt(encrypted_text)

    def get_public_key_credential_rp_entity(self) -> dict[str, str]:
        return {**super().get_public_key_credential_rp_entity(), "name": "Assay"}


class SingleSignOnAdapter(DefaultSocialAccountAdapter):  # type: ignore[misc]
    """The identity provider says who it is; we decide whose account that is."""

    def is_open_for_signup(self, request: HttpRequest, sociallogin: SocialLogin) -> bool:
        """`pre_social_login` has found or made the account, or refused."""
        return False

    def serialize_instance(self, instance: Any) -> dict[str, Any]:
        """Leave the password hash out of what waits in the session for a second factor."""
        kept: dict[str, Any] = super().serialize_instance(instance)
        kept.pop("password", None)
        return kept

    def pre_social_login(self, request: HttpRequest, sociallogin: SocialLogin) -> None:
        try:
            single_sign_on.admit(sociallogin)
        except DomainError as error:
            raise ImmediateHttpResponse(refusal(request, error)) from error

    def on_authentication_error(self, request: HttpRequest, provider: Any, **more: Any) -> None:
        error = single_sign_on.failure(more.get("error"), more.get("exception"))
        raise ImmediateHttpResponse(refusal(request, error))
