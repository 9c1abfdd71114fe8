"""Single sign-on: an OpenID Connect provider identifies a person and their groups.

allauth implements the authorization code flow (with state, PKCE, and a nonce that is checked here).
The account is found by the provider's identifier of the person, the first time by a verified e-mail
address, or else created.
"""

from __future__ import annotations

from typing import Any

from allauth.socialaccount.models import SocialAccount, SocialLogin
from allauth.socialaccount.providers.openid_connect.views import OpenIDConnectOAuth2Adapter
from django.conf import settings
from django.db import transaction
from django.http import HttpRequest
from django.urls import reverse
from django.utils import timezone

from governance.audit.services import Subject, audit_record
from governance.errors import (
    DomainError,
    InvalidInput,
    NotAuthenticated,
    Unavailable,
    WrongState,
)
from governance.people.groups import roles_from_groups
from governance.people.models import Person
from governance.people.proof import proof_facts
from governance.people.recoveries.services import checked_reason
from governance.people.selectors import person_get, person_resource
from governance.people.services import person_create
from governance.people.sessions import sessions_end
from governance.people.signing_in import sign_in_attempt
from governance.permissions import Action
from governance.policy.services import authorize_binding
from governance.principals import Principal, service_principal

ACTOR = service_principal("sso")
NONCE = "nonce"


class SignOnAdapter(OpenIDConnectOAuth2Adapter):  # type: ignore[misc]
    """Uses our own callback URL, which does not name the provider because there is only one."""

    def get_callback_url(self, request: HttpRequest, app: Any) -> str:
        return request.build_absolute_uri(reverse("portal:sso_callback"))


def admit(login: SocialLogin) -> None:
    """Set the account of `login`, and update its roles from the person's groups.

    Raises:
        NotAuthenticated: the provider's answer is not for this sign-in or has no verified address,
            or the account is inactive or linked to another person at the provider.
        InvalidInput: there are too many groups.
    """
    claims = _claims(login)
    with transaction.atomic():
        person = _person(login, claims)
        if not person.is_active:
            raise _refused(f"The account of {person.name} is inactive.", person)
        roles_from_groups(actor=ACTOR, person=person, groups=_groups(claims), source="sso")
        account, _ = SocialAccount.objects.update_or_create(
            provider=login.account.provider,
            uid=login.account.uid,
            # The claims are no longer needed, and must not leak.
            defaults={"user": person, "extra_data": {}},
        )
    # The provider is not called again, so its token is not kept, not even until a second factor.
    login.account, login.user, login.token = account, person, None


def link_end(*, actor: Principal, person_id: int, reason: str) -> Person:
    """Remove a person's link with the identity provider, and end their sessions. The next sign-in
    there with their verified address links the account again.

    Raises:
        NotFound, NotPermitted: the actor may not see or change that person, or has no fresh second
            factor.
        InvalidInput: there is no reason.
        WrongState: the person is not linked.
    """
    with transaction.atomic():
        person = person_get(actor=actor, person_id=person_id)
        decision = authorize_binding(
            actor=actor,
            action=Action.PERSON_UPDATE,
            resource=person_resource(person),
            doing=f"ending the single sign-on link of {person.name}",
        )
        reason = checked_reason(reason)
        removed, _ = SocialAccount.objects.filter(user=person).delete()
        if not removed:
            raise WrongState(f"{person.name} is not linked with an identity provider.")
        # The next sign-in may be by another person, so the account's votes must wait.
        person.empowered_at = timezone.now()
        person.save(update_fields=["empowered_at", "changed_at"])
        audit_record(
            actor=actor,
            action="person:unlink",
            subject=Subject("person", str(person.pk), person.name),
            reason=reason,
            data={
                "sessions_ended": sessions_end(person_id=person.pk),
                **proof_facts(actor.proof),
            },
            decision=decision,
        )
    return person


def failure(error: Any, exception: Exception | None) -> DomainError:
    """Return the error for a failure at the provider, without details for visitors."""
    if str(getattr(error, "value", error)) == "cancelled":
        return NotAuthenticated(
            f"Signing in with {settings.OIDC_NAME} was canceled.",
            attempt=sign_in_attempt(person=None),
        )
    if exception is not None and _is_network(exception):
        return unavailable()
    return _refused(f"{settings.OIDC_NAME} did not confirm who you are.")


def unkeepable() -> DomainError:
    """Return the error for a provider's identifier that is longer than its column."""
    return _refused(
        f"The identifier that {settings.OIDC_NAME} sends for you is too long.",
        hint="Configure the identity provider to send a `sub` of at most 191 characters.",
    )


def unavailable() -> Unavailable:
    """Return the error for a provider that does not answer."""
    return Unavailable(
        f"{settings.OIDC_NAME} does not answer, so you cannot sign in with it now.",
        hint="Check ASSAY_OIDC_ISSUER and the network path to it, or sign in with a password.",
        retry_after=30,
    )


def _is_network(exception: Exception) -> bool:
    import requests

    return isinstance(exception, requests.RequestException)


def _refused(reason: str, person: Person | None = None, hint: str = "") -> NotAuthenticated:
    return NotAuthenticated(
        f"{reason} You are not signed in.",
        code="single_sign_on_refused",
        hint=hint or "Start again from the sign-in page.",
        attempt=sign_in_attempt(person=person),
    )


def _claims(login: SocialLogin) -> dict[str, Any]:
    """Merge the claims of the ID token and the user info; the token's take precedence.

    The token came directly from the provider over TLS; allauth checks issuer, audience and expiry.
    User info must be about the same person (OpenID Connect Core, 5.3.2).
    """
    answer: dict[str, Any] = login.account.extra_data
    token = answer.get("id_token") or {}
    info = answer.get("userinfo") or {}
    if not token or token.get(NONCE) != login.state.get(NONCE) or not login.state.get(NONCE):
        raise _refused("The identity provider's answer is not for this sign-in.")
    if info and info.get("sub") != token.get("sub"):
        raise _refused("The identity provider names two different people.")
    return {**info, **token}


def _groups(claims: dict[str, Any]) -> list[str]:
    """Return the person's groups; a missing claim means none.

    Raises:
        NotAuthenticated: the provider sends a link instead of a list (Entra, over 200 groups). An
            empty list would remove roles that the person should keep.
    """
    name = settings.OIDC_GROUPS_CLAIM
    linked = claims.get("_claim_names")
    if isinstance(linked, dict) and name in linked:
        raise _refused(
            f"You are in more groups than the identity provider puts into the claim {name}.",
            hint="Let the provider send only the groups that are assigned to this application.",
        )
    groups = claims.get(name) or []
    if isinstance(groups, str):
        groups = [groups]
    if not isinstance(groups, list) or not all(isinstance(group, str) for group in groups):
        raise _refused(f"The claim {name} is not a list of names.")
    return groups


def _person(login: SocialLogin, claims: dict[str, Any]) -> Person:
    linked = SocialAccount.objects.filter(
        provider=login.account.provider, uid=login.account.uid
    ).select_related("user")
    if (account := linked.first()) is not None:
        person: Person = account.user
        return person
    email = _verified_email(claims)
    # Of two first sign-ins with the same address at once, the second waits and sees the first.
    owner = Person.objects.select_for_update(no_key=True).filter(email=email).first()
    if owner is None:
        owner = _created_person(email, claims)
    elif SocialAccount.objects.filter(provider=login.account.provider, user=owner).exists():
        # The account is linked to another identifier: the address now belongs to another person.
        raise _refused(
            f"The account of your address belongs to another person at {settings.OIDC_NAME}.",
            owner,
            hint="If it is yours, an administrator ends its link under People → the person → "
            "Sign-in; else they correct the account's address.",
        )
    audit_record(
        actor=ACTOR,
        action="person:link",
        subject=Subject("person", str(owner.pk), owner.name),
        data={"issuer": settings.OIDC_ISSUER, "subject": login.account.uid[:200]},
    )
    return owner


def _verified_email(claims: dict[str, Any]) -> str:
    """Return the verified address by which a person is first matched to an account.

    An unverified address is user input and must not open another person's account. Entra ID does
    not mark addresses as verified: configure the domains in which only your directory assigns them.
    """
    email = str(claims.get("email") or "").strip()
    # Lowercase turns a Kelvin sign into a k, which would be another person's address.
    email = email.lower() if email.isascii() else ""
    verified = claims.get("email_verified") is True
    if email.partition("@")[2] in settings.OIDC_EMAIL_DOMAINS:
        verified = True
    if not email or not verified:
        raise _refused(
            "The identity provider does not say that your e-mail address is verified.",
            hint="Verify it there; or an administrator names its domain in "
            "ASSAY_OIDC_EMAIL_DOMAINS.",
        )
    return email


def _created_person(email: str, claims: dict[str, Any]) -> Person:
    if not settings.OIDC_CREATE_PEOPLE:
        raise _refused(
            "There is no account for your address.", hint="Ask an administrator to make one."
        )
    name = " ".join(str(claims.get("name") or "").split())[:120]
    try:
        return person_create(actor=ACTOR, email=email, name=name or email)
    except InvalidInput as error:
        raise _refused(f"No account can be made for your address: {error.message}") from error
