"""Single sign-on: an OpenID Connect provider says who it is, and in which groups.

allauth carries the authorization code flow (with state, PKCE and a nonce that is checked here); an
account is found by the provider's own name for the person, by a verified e-mail address once, or
made.
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
    """Comes back to our own address, which names no provider: there is one."""

    def get_callback_url(self, request: HttpRequest, app: Any) -> str:
        return request.build_absolute_uri(reverse("portal:sso_callback"))


def admit(login: SocialLogin) -> None:
    """Point `login` at the account that it signs in to, with the roles that its groups give.

    Raises:
        NotAuthenticated: the provider's answer is not for this sign-in, says no verified address,
            or the account is inactive or linked to another person there.
        InvalidInput: more groups than any directory's.
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
            # The claims have done their work; what is not kept cannot leak.
            defaults={"user": person, "extra_data": {}},
        )
    # Nothing calls the provider again, so its token is not kept, not even until a second factor.
    login.account, login.user, login.token = account, person, None


def link_end(*, actor: Principal, person_id: int, reason: str) -> Person:
    """Forget who a person is at the identity provider, and end their sessions. The next who signs
    in there with their address, verified, is taken for them.

    Raises:
        NotFound, NotPermitted: the actor may not see or change that person, or has no fresh second
            factor.
        InvalidInput: no reason.
        WrongState: they are not linked.
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
        gone, _ = SocialAccount.objects.filter(user=person).delete()
        if not gone:
            raise WrongState(f"{person.name} is not linked with an identity provider.")
        # Whoever signs in there next may be another person: their votes wait.
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
    """Return the reason that the provider's part failed, as far as a visitor may know it."""
    if str(getattr(error, "value", error)) == "cancelled":
        return NotAuthenticated(
            f"Signing in with {settings.OIDC_NAME} was canceled.",
            attempt=sign_in_attempt(person=None),
        )
    if exception is not None and _is_network(exception):
        return unavailable()
    return _refused(f"{settings.OIDC_NAME} did not confirm who you are.")


def unkeepable() -> DomainError:
    """The provider's identifier of a person is longer than the column that stores it."""
    return _refused(
        f"{settings.OIDC_NAME} calls you by more characters than can be kept.",
        hint="Let the identity provider send a `sub` of at most 191 characters.",
    )


def unavailable() -> Unavailable:
    """The provider does not answer."""
    return Unavailable(
        f"{settings.OIDC_NAME} does not answer; signing in with it is not possible just now.",
        hint="Check ASSAY_OIDC_ISSUER and the way to it, or sign in with a password.",
        retry_after=30,
    )


def _is_network(exception: Exception) -> bool:
    import requests

    return isinstance(exception, requests.RequestException)


def _refused(why: str, person: Person | None = None, hint: str = "") -> NotAuthenticated:
    return NotAuthenticated(
        f"{why} You are not signed in.",
        code="single_sign_on_refused",
        hint=hint or "Start again from the sign-in page.",
        attempt=sign_in_attempt(person=person),
    )


def _claims(login: SocialLogin) -> dict[str, Any]:
    """Merge the claims of the ID token and the user info; the token's take precedence.

    The token came straight from the provider over TLS; issuer, audience and expiry are checked by
    allauth. User info must be about the same person (OpenID Connect Core, 5.3.2).
    """
    told: dict[str, Any] = login.account.extra_data
    token = told.get("id_token") or {}
    info = told.get("userinfo") or {}
    if not token or token.get(NONCE) != login.state.get(NONCE) or not login.state.get(NONCE):
        raise _refused("The identity provider's answer is not for this sign-in.")
    if info and info.get("sub") != token.get("sub"):
        raise _refused("The identity provider names two different people.")
    return {**info, **token}


def _groups(claims: dict[str, Any]) -> list[str]:
    """The groups; none when the claim is missing, for then they are in none.

    Raises:
        NotAuthenticated: the provider sends a link instead of a list (Entra, over 200 groups);
            roles would be removed from a person who should keep them.
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
    known = SocialAccount.objects.filter(
        provider=login.account.provider, uid=login.account.uid
    ).select_related("user")
    if (account := known.first()) is not None:
        person: Person = account.user
        return person
    email = _verified_email(claims)
    # Of two strangers who come at once with the same address the second waits, and sees the first.
    found = Person.objects.select_for_update(no_key=True).filter(email=email).first()
    if found is None:
        found = _made(email, claims)
    elif SocialAccount.objects.filter(provider=login.account.provider, user=found).exists():
        # The provider has another identifier for them: the address now belongs to another person.
        raise _refused(
            f"The account of your address belongs to another person at {settings.OIDC_NAME}.",
            found,
            hint="If it is yours, an administrator ends its link under People → the person → "
            "Sign-in; else they correct the account's address.",
        )
    audit_record(
        actor=ACTOR,
        action="person:link",
        subject=Subject("person", str(found.pk), found.name),
        data={"issuer": settings.OIDC_ISSUER, "subject": login.account.uid[:200]},
    )
    return found


def _verified_email(claims: dict[str, Any]) -> str:
    """The address by which a person of the provider is first matched to an account.

    An unverified address is whatever its owner typed; it must not open another person's account.
    Entra ID does not state that it verified one: name the domains in which only your directory
    gives out addresses.
    """
    email = str(claims.get("email") or "").strip()
    # In lowercase a Kelvin sign is a k: another person's address.
    email = email.lower() if email.isascii() else ""
    believed = claims.get("email_verified") is True
    if email.partition("@")[2] in settings.OIDC_EMAIL_DOMAINS:
        believed = True
    if not email or not believed:
        raise _refused(
            "The identity provider does not say that your e-mail address is verified.",
            hint="Verify it there; or an administrator names its domain in "
            "ASSAY_OIDC_EMAIL_DOMAINS.",
        )
    return email


def _made(email: str, claims: dict[str, Any]) -> Person:
    if not settings.OIDC_CREATE_PEOPLE:
        raise _refused(
            "There is no account for your address.", hint="Ask an administrator to make one."
        )
    name = " ".join(str(claims.get("name") or "").split())[:120]
    try:
        return person_create(actor=ACTOR, email=email, name=name or email)
    except InvalidInput as error:
        raise _refused(f"No account can be made for your address: {error.message}") from error
