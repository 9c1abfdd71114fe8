"""The second factor of a form: checked before the form takes effect, and requested on a page that
carries the typed fields.
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

# Field of a form that carries a second factor.
MARK = "step_up"
# Fields of the second factor; all others belong to the form itself.
_OWN = frozenset({MARK, "code", "credential", "local", "csrfmiddlewaretoken"})
# Never written into a page.
SECRETS = frozenset({"again", "code", "credential", "current", "new", "password", "secret"})


def give_second_factor(request: HttpRequest, actor: Principal) -> None:
    """Check the posted passkey or code, and record it in the session and the audit log.

    In the local demonstration, a click replaces the factor of a person who has none.

    Raises:
        NotAuthenticated, InvalidInput, QuotaExceeded, Unavailable: as either check.
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
    """Return true if the form was sent from the page that requests a second factor."""
    return request.method == "POST" and MARK in request.POST


def second_factor_taken(request: HttpRequest, actor: Principal) -> Principal:
    """Check the second factor that came with the form; return the actor with it.

    Runs in its own transaction: a code is used up even if the form is then refused.

    Raises:
        DomainError: as `give_second_factor`.
    """
    with scope(actor):
        give_second_factor(request, actor)
    proven = session_principal(request)
    request.principal = proven  # type: ignore[attr-defined]
    return proven


def second_factor_context(request: HttpRequest, actor: Principal) -> dict[str, Any]:
    """Return the context of `portal/parts/second_factor.html`."""
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
    """Return each value of each field of the posted form, without secrets."""
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
    """Return the page that requests a second factor and then sends the refused form again.

    The page itself carries the typed fields and posts them to the form's own address: no other
    session gets them, and they are gone with the page. A page cannot fill in a file input, so files
    must be chosen again.
    """
    context = {
        **second_factor_context(request, actor),
        # The heading says why a factor is needed; an alert says why the one just sent was refused.
        "why": refusal.message if refusal.code == STEP_UP_REQUIRED else "",
        "error": None if refusal.code == STEP_UP_REQUIRED else refusal,
        "action": request.get_full_path(),
        "hidden": [(MARK, "yes"), *typed_fields(request)],
        "lost": "files, which you choose again" if request.FILES else "",
    }
    response = render(request, "portal/account/step_up.html", context, status=refusal.status)
    add_never_cache_headers(response)
    return response
