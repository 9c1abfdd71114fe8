"""The person's own account: password, second factors, passkeys, step-up, and sessions."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, cast
from urllib.parse import urlencode

from allauth.account.internal.flows.login import record_authentication
from allauth.mfa.models import Authenticator
from allauth.socialaccount.models import SocialAccount
from django.conf import settings
from django.contrib import messages
from django.contrib.auth import update_session_auth_hash
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseBase, JsonResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils import timezone
from django.utils.cache import add_never_cache_headers
from django.utils.decorators import method_decorator
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters

from assay.accounts import crypto, passkeys
from assay.accounts.factor_requirement import factor_added
from assay.accounts.factors import (
    factor_remove,
    factors_of,
    first_factor_refused,
    recovery_codes_renew,
    totp_activate,
)
from assay.accounts.freshness import is_fresh
from assay.accounts.links import link_forget, link_opened
from assay.accounts.pages import destination
from assay.middleware import principal_of
from assay.portal.forms.account import CodeForm, ConfirmForm, PasskeyForm, PasswordForm, TokenForm
from assay.portal.http import ActionScreen, Screen, cleaned, number_in, page_of, posted
from assay.portal.second_factor import (
    MARK,
    SECRETS,
    brings_second_factor,
    give_second_factor,
    second_factor_context,
    typed_fields,
)
from assay.portal.views.one_time_links import SECRET, app_secret, authenticator_setup
from assay.portal.views.sessions import session_row
from governance.english import counted
from governance.errors import DomainError, InvalidInput, NotFound, NotPermitted
from governance.keys.models import ApiKey
from governance.keys.selectors import key_get, keys_visible_to
from governance.keys.services import access_token_create, key_revoke
from governance.people.credentials import STRONG
from governance.people.models import LinkPurpose, Person
from governance.people.proof import FRESH, proof_fresh
from governance.people.sessions import (
    session_renamed,
    session_revoke,
    sessions_revoke,
    sessions_visible_to,
)
from governance.people.signing_in import own_account, password_change, password_check
from governance.principals import Principal
from governance.rowsecurity import scope

TOKENS_SHOWN = 50
STALE = "confirmation_required"


@method_decorator(never_cache, name="dispatch")
class Account(ActionScreen):
    """The person's sign-in methods, sessions and access tokens."""

    template_name = "portal/account/account.html"

    def context(self, **kwargs: Any) -> dict[str, Any]:
        person = own_account(self.actor)
        mine = sessions_visible_to(self.actor, person_id=person.pk)
        page = page_of(self.request, mine)
        factors = factors_of(person.pk)
        may_add = factors.any or link_of(self.request, person) is not None
        return {
            "person": person,
            "factors": factors,
            "unconfirmed": self.actor.unconfirmed,
            "factor_refused": None if may_add else first_factor_refused(person),
            "page": page,
            "sessions": [session_row(row, self.request) for row in page],
            "linked": SocialAccount.objects.filter(user=person).exists(),
            "sso": settings.OIDC_NAME if settings.OIDC_ISSUER else "",
            "password_form": PasswordForm(posted(self.request, "account_password"))
            if person.has_usable_password()
            else None,
            "passkey_form": PasskeyForm(posted(self.request, "account_passkey")),
            "tokens": tokens_of(self.actor, person),
            "token_form": TokenForm(posted(self.request, "account_token"), auto_id="token_%s"),
            "fresh": is_fresh(self.request),
        }


class FreshScreen(Account):
    """A screen that requires a recent identity check. A form without one gets a page that makes the
    check and sends the form again; a form with a password or a code is not kept.
    """

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        if not request.user.is_authenticated or is_fresh(request) or brings_second_factor(request):
            return super().dispatch(request, *args, **kwargs)
        if request.method == "POST" and SECRETS.isdisjoint(request.POST):
            self.actor = principal_of(request)
            with scope(self.actor):
                return self.asking(self.stale())
        back = request.path if request.method == "GET" else reverse("portal:account")
        if request.method == "POST":
            messages.info(request, "Type it again: passwords and codes are not kept.")
        return redirect(f"{reverse('portal:account_confirm')}?{urlencode({'next': back})}")

    def verified(self) -> Principal:
        person = own_account(self.actor)
        if factors_of(person.pk).any:
            return super().verified()
        password_confirmed(self.request, person)
        return self.actor

    def stale(self) -> DomainError:
        return NotPermitted(
            "Verify your identity first: the next step changes how you sign in.",
            code=STALE,
        )

    def asking(self, refusal: DomainError) -> HttpResponse:
        context = {
            **confirm_context(self.request, self.actor),
            "action": self.request.get_full_path(),
            "hidden": [(MARK, "yes"), *typed_fields(self.request)],
            "next": reverse("portal:account"),
            "kept": True,
            "error": None if refusal.code == STALE else refusal,
        }
        response = render(self.request, Confirm.template_name, context, status=refusal.status)
        add_never_cache_headers(response)
        return response


def password_confirmed(request: HttpRequest, person: Person) -> None:
    """Check the posted password, and record in the session that it was correct.

    Raises:
        NotAuthenticated, QuotaExceeded, Unavailable: as `password_check`.
    """
    password_check(email=person.email, password=request.POST.get("password", ""))
    record_authentication(request, request.user, "password", reauthenticated=True)


def confirm_context(request: HttpRequest, actor: Principal) -> dict[str, Any]:
    """Return the context of the page on which a person verifies their identity."""
    person = own_account(actor)
    return {
        "person": person,
        "factors": factors_of(person.pk),
        "form": ConfirmForm(),
        "code_form": CodeForm(),
        "sso": settings.OIDC_NAME if settings.OIDC_ISSUER else "",
        "linked": SocialAccount.objects.filter(user=person).exists(),
    }


@method_decorator(sensitive_post_parameters("current", "new"), name="dispatch")
class PasswordChange(FreshScreen):
    """Set a new password; requires the old one."""

    def act(self, **kwargs: Any) -> HttpResponse:
        values = cleaned(PasswordForm(self.request.POST))
        person = password_change(
            actor=self.actor,
            current=values["current"],
            new=values["new"],
            keep_session=self.request.session.session_key,
        )
        old_key = self.request.session.session_key
        update_session_auth_hash(self.request, person)
        follow_session(self.request, old_key)
        return self.done("Your password is changed; your other sessions ended.", "portal:account")


def follow_session(request: HttpRequest, old_key: str | None) -> None:
    """Move the session's row to its new key."""
    request.session.save()
    session_renamed(old=old_key, new=request.session.session_key)


@method_decorator(
    [never_cache, sensitive_post_parameters("password", "code", "credential")], name="dispatch"
)
class Confirm(ActionScreen):
    """Verify the person's identity again: by second factor if there is one, else by password."""

    template_name = "portal/account/confirm.html"

    def context(self, **kwargs: Any) -> dict[str, Any]:
        target = destination(self.request)
        return {
            **confirm_context(self.request, self.actor),
            "action": reverse("portal:account_confirm"),
            "hidden": [("next", target)],
            "next": target,
        }

    def act(self, **kwargs: Any) -> HttpResponse:
        person, data = own_account(self.actor), self.request.POST
        has_more = factors_of(person.pk).any
        if "credential" in data or "code" in data:
            give_second_factor(self.request, self.actor)
        elif has_more:
            raise InvalidInput(
                "This account has a second factor; a password alone does not confirm who you are.",
                hint="Use the code of your app, a recovery code or a passkey.",
            )
        else:
            password_confirmed(self.request, person)
        return redirect(destination(self.request))


@method_decorator(sensitive_post_parameters("code"), name="dispatch")
class AuthenticatorAdd(FreshScreen):
    """Add an authenticator app: show its QR code, and check its first code."""

    template_name = "portal/account/authenticator.html"

    def context(self, **kwargs: Any) -> dict[str, Any]:
        person = own_account(self.actor)
        refused = first_factor_refused(person)
        if refused is not None and link_of(self.request, person) is None:
            raise refused
        return {"person": person, "form": CodeForm()} | authenticator_setup(
            person, app_secret(self.request)
        )

    def act(self, **kwargs: Any) -> HttpResponse:
        sealed = self.request.session.get(SECRET)
        if not sealed:
            raise InvalidInput("There is no new authenticator app to confirm; begin again.")
        codes = totp_activate(
            actor=self.actor,
            secret=crypto.decrypt(sealed),
            code=self.request.POST.get("code", ""),
            link_id=link_of(self.request, own_account(self.actor)),
        )
        del self.request.session[SECRET]
        return added(self.request, codes, "The authenticator app is added.")


def link_of(request: HttpRequest, person: Person) -> int | None:
    """Return the opened one-time link with which this person may add a first second factor."""
    return link_opened(request, LinkPurpose.FACTOR, person_id=person.pk)


def added(request: HttpRequest, codes: list[str], sentence: str) -> HttpResponse:
    """Finish adding a second factor; show new recovery codes, if any, this once.

    Adding the factor used it, so it also counts as given in this session.
    """
    person = cast(Person, request.user)
    newest = Authenticator.objects.filter(user=person, type__in=STRONG).latest("pk")
    record_authentication(
        request, person, "mfa", id=newest.pk, type=newest.type, reauthenticated=True
    )
    factor_added(request)
    link_forget(request)
    messages.success(request, sentence)
    return codes_page(request, codes) if codes else redirect("portal:account")


def codes_page(request: HttpRequest, codes: list[str]) -> HttpResponse:
    """Return the page with recovery codes, which are shown only once."""
    return render(request, "portal/account/recovery_codes.html", {"codes": codes})


class FactorRemove(FreshScreen):
    """Remove an authenticator app or a passkey."""

    def act(self, *, id: int, **kwargs: Any) -> HttpResponse:  # noqa: A002
        factor_remove(actor=self.actor, factor_id=id)
        return self.done("The second factor is removed.", "portal:account")


class RecoveryCodes(FreshScreen):
    """Make new recovery codes; the old ones stop working."""

    def act(self, **kwargs: Any) -> HttpResponse:
        return codes_page(self.request, recovery_codes_renew(actor=self.actor))


class PasskeyOptions(FreshScreen):
    """Return the challenge for a new passkey."""

    def get(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        return JsonResponse(passkeys.registration_options(actor=self.actor))

    http_method_names = ("get",)


@method_decorator(sensitive_post_parameters("credential"), name="dispatch")
class PasskeyAdd(FreshScreen):
    """Add a passkey."""

    def act(self, **kwargs: Any) -> HttpResponse:
        values = cleaned(PasskeyForm(self.request.POST))
        codes = passkeys.passkey_add(
            actor=self.actor,
            name=values["name"],
            credential=self.request.POST.get("credential", ""),
            link_id=link_of(self.request, own_account(self.actor)),
        )
        return added(self.request, codes, f"The passkey {values['name']} is added.")


@method_decorator(never_cache, name="dispatch")
class PasskeyConfirmOptions(Screen):
    """Return the challenge for a passkey that verifies the person's identity."""

    def get(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        person = own_account(self.actor)
        return JsonResponse(passkeys.authentication_options(person=person))


def tokens_of(actor: Principal, person: Person) -> QuerySet[ApiKey]:
    """Return the person's valid access tokens, newest first; the page of keys lists all."""
    alive = keys_visible_to(actor).filter(
        person=person, revoked_at=None, expires_at__gt=timezone.now()
    )
    return alive.order_by("-pk")[:TOKENS_SHOWN]


class TokenAdd(FreshScreen):
    """Create an access token, and show it once."""

    def act(self, **kwargs: Any) -> HttpResponse:
        values = cleaned(TokenForm(self.request.POST))
        key, token = access_token_create(
            person=own_account(self.actor),
            name=values["name"],
            expires_at=timezone.now() + timedelta(days=values["days"]),
        )
        root = f"{self.request.scheme}://{self.request.get_host()}"
        context = {"key": key, "token": token, "root": root}
        return render(self.request, "portal/account/token.html", context, status=201)


class TokenRevoke(Account):
    """Revoke one of the person's own access tokens at once."""

    def act(self, *, id: int, **kwargs: Any) -> HttpResponse:  # noqa: A002
        key = key_get(actor=self.actor, key_id=id)
        if key.person_id != self.actor.person_id:
            raise NotFound(f"There is no access token {id} on your account.")
        key_revoke(actor=self.actor, key_id=key.pk)
        return self.done(f"The token {key.name} is revoked.", "portal:account")


class SessionEnd(Account):
    """End one of the person's own sessions, or all others."""

    def act(self, **kwargs: Any) -> HttpResponse:
        here = self.request.session.session_key
        choice = self.request.POST.get("session", "")
        if choice == "others":
            person = own_account(self.actor)
            ended = sessions_revoke(actor=self.actor, person_id=person.pk, keep=here)
            sentence = f"{counted(ended, 'other session')} ended."
        else:
            session_revoke(
                actor=self.actor, session_id=number_in(self.request.POST, "session") or 0
            )
            sentence = "The session ended."
        return self.done(sentence, "portal:account")


@method_decorator([never_cache, sensitive_post_parameters("code", "credential")], name="dispatch")
class Prove(ActionScreen):
    """Verify the person's identity by a second factor, which decisions require."""

    template_name = "portal/account/prove.html"

    def context(self, **kwargs: Any) -> dict[str, Any]:
        target = destination(self.request)
        return {
            **second_factor_context(self.request, self.actor),
            "action": reverse("portal:account_prove"),
            "hidden": [("next", target)],
            "next": target,
            "proven": proof_fresh(self.actor),
            "minutes": FRESH.seconds // 60,
        }

    def act(self, **kwargs: Any) -> HttpResponse:
        give_second_factor(self.request, self.actor)
        return redirect(destination(self.request))
