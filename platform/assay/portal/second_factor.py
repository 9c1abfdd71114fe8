"""The second factor that goes with a form: checked before the form is acted on, and requested on a
page that carries what was typed.
"""

from __future__ import annotations

from typing import Any

from allauth.account.internal.flows.login import record_authentication
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils.cache import add_never_cache_headers

from assay.accounts import passkeys
from assay.accounts.factors import code_check, factors_of, first_factor_refused
from assay.accounts.freshness import DEMONSTRATION
from assay.accounts.personas import personas_allowed
from assay.accounts.tokens import no_second_factor
from assay.middleware import session_principal
from assay.portal.forms.account import CodeForm
from governance.errors import DomainError
from governance.people.proof import CODE as STEP_UP_REQUIRED
from governance.people.proof import LOCAL
from governance.people.signing_in import own_account, step_up_record
from governance.principals import Principal
from governance.rowsecurity import scope

# In a form: a second factor comes with it.
MARK = "step_up"
# Fields of the request for a second factor; the rest is what the form itself says.
_OWN = frozenset({MARK, "code", "credential", "local", "csrfmiddlewaretoken"})
# Never written into a page.
SECRETS = frozenset({"again", "code", "credential", "current", "new", "password"})


def give_second_factor(request: HttpRequest, actor: Principal) -> None:
    """Check the passkey or code that was posted, and note in session and log that it was right.

    In the local demonstration, a click replaces the factor of a person who has none.

    Raises:
        NotAuthenticated, InvalidInput, QuotaExceeded, Unavailable: as the check of either.
        NotPermitted: the account has no second factor.
    """
    person = own_account(actor)
    if not factors_of(person.pk).any:
        if "local" not in request.POST or not personas_allowed(request):
            raise no_second_factor(person)
        step_up_record(actor=actor, method=LOCAL)
        record_authentication(request, request.user, DEMONSTRATION, reauthenticated=True)
        return
    if "credential" in request.POST:
        factor = passkeys.passkey_check(person=person, credential=request.POST["credential"])
    else:
        factor = code_check(person=person, code=request.POST.get("code", ""))
    step_up_record(actor=actor, method=str(factor.type))
    record_authentication(
        request, request.user, "mfa", id=factor.pk, type=factor.type, reauthenticated=True
    )


def brings_second_factor(request: HttpRequest) -> bool:
    """Return whether the form was sent from the page that asks for a second factor."""
    return request.method == "POST" and MARK in request.POST


def second_factor_taken(request: HttpRequest, actor: Principal) -> Principal:
    """The actor with the second factor that came with the form.

    It is taken in a transaction of its own: a code is used up even when the form is then refused.

    Raises:
        DomainError: as `give_second_factor`.
    """
    with scope(actor):
        give_second_factor(request, actor)
    proven = session_principal(request)
    request.principal = proven  # type: ignore[attr-defined]
    return proven


def second_factor_context(request: HttpRequest, actor: Principal) -> dict[str, Any]:
    """Context of `portal/parts/second_factor.html`."""
    person = own_account(actor)
    factors = factors_of(person.pk)
    return {
        "person": person,
        "factors": factors,
        "factor_refused": first_factor_refused(person),
        "code_form": CodeForm(),
        "local": not factors.any and personas_allowed(request),
    }


def typed_fields(request: HttpRequest) -> list[tuple[str, str]]:
    """Return what was typed into the posted form, without secrets: each value of each field."""
    left_out = _OWN | SECRETS
    return [
        (name, value)
        for name, values in request.POST.lists()
        if name not in left_out
        for value in values
    ]


def second_factor_page(
    request: HttpRequest, actor: Principal, refusal: DomainError
) -> HttpResponse:
    """The page that asks for a second factor, and then sends the refused form again.

    The page itself carries what was typed, to the address that it was typed for: no other session
    gets it, and it is gone with the page. A browser hands no file to a form, so files are chosen
    again.
    """
    context = {
        **second_factor_context(request, actor),
        # The heading says why a factor is needed; an alert, why the one that was given is refused.
        "why": refusal.message if refusal.code == STEP_UP_REQUIRED else "",
        "error": None if refusal.code == STEP_UP_REQUIRED else refusal,
        "action": request.get_full_path(),
        "hidden": [(MARK, "yes"), *typed_fields(request)],
        "lost": "files, which you choose again" if request.FILES else "",
    }
    response = render(request, "portal/account/step_up.html", context, status=refusal.status)
    add_never_cache_headers(response)
    return response
