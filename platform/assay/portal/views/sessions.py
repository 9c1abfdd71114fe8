"""Another person's sessions and second factors, for those who may end them."""

from __future__ import annotations

from typing import Any

from allauth.socialaccount.models import SocialAccount
from django.conf import settings
from django.http import HttpRequest, HttpResponse

from assay.accounts.devices import device_words
from assay.accounts.factors import factors_of, factors_reset
from assay.accounts.single_sign_on import link_end
from assay.portal.access import may
from assay.portal.forms.account import ReasonForm, RecoveryForm
from assay.portal.http import ActionScreen, cleaned, number_in, page_of, posted
from governance.english import counted
from governance.people.credentials import is_privileged
from governance.people.models import Person
from governance.people.recoveries.selectors import recoveries_live
from governance.people.selectors import person_get, sees_everyone
from governance.people.sessions import session_revoke, sessions_revoke, sessions_visible_to
from governance.permissions import Action
from governance.policy.engine import Resource
from governance.policy.services import authorize


def session_row(row: Any, request: HttpRequest) -> dict[str, Any]:
    """Return a session as a page shows it."""
    return {
        "id": row.pk,
        "device": device_words(row.user_agent),
        "user_agent": row.user_agent,
        "address": "" if row.ip == "0.0.0.0" else row.ip,  # noqa: S104
        "begun": row.created_at,
        "seen": row.last_seen_at,
        "here": row.session_key == request.session.session_key,
    }


class PersonSignIn(ActionScreen):
    """One person's sessions, second factors and identity provider link; a POST ends the link."""

    template_name = "portal/account/person.html"

    def context(self, *, id: int, **kwargs: Any) -> dict[str, Any]:  # noqa: A002
        person = person_get(actor=self.actor, person_id=id)
        owned = {"owner": person.pk}
        authorize(
            actor=self.actor,
            action=Action.SESSION_VIEW,
            resource=Resource("session", name=f"of person {person.pk}", attributes=owned),
        )
        page = page_of(self.request, sessions_visible_to(self.actor, person_id=person.pk))
        may_reset = may(self.actor, Action.PERSON_UPDATE, kind="person", attributes=owned)
        return {
            "person": person,
            "everyone": sees_everyone(self.actor),
            "factors": factors_of(person.pk),
            "page": page,
            "sessions": [session_row(row, self.request) for row in page],
            "may_end": may(self.actor, Action.SESSION_REVOKE, kind="session", attributes=owned),
            "form": ReasonForm(posted(self.request, "person_factors"))
            if may_reset and person.pk != self.actor.person_id
            else None,
            "privileged": is_privileged(person),
            "recovery_form": self.recovery_form(person),
            "recovery": recoveries_live(self.actor).filter(person=person).first(),
            "sso": settings.OIDC_NAME,
            "link_form": ReasonForm(posted(self.request, "person_sign_in"), auto_id="link_%s")
            if may_reset and SocialAccount.objects.filter(user=person).exists()
            else None,
        }

    def recovery_form(self, person: Person) -> RecoveryForm | None:
        """Return the form that requests a recovery, for people who may request one."""
        if person.pk == self.actor.person_id or not (person.is_active and is_privileged(person)):
            return None
        if not may(self.actor, Action.ROLE_GRANT, kind="person"):
            return None
        return RecoveryForm(posted(self.request, "person_recover"), prefix=RecoveryForm.PREFIX)

    def act(self, *, id: int, **kwargs: Any) -> HttpResponse:  # noqa: A002
        reason = cleaned(ReasonForm(self.request.POST))["reason"]
        person = link_end(actor=self.actor, person_id=id, reason=reason)
        return self.done(
            f"The link and the sessions of {person.name} have ended.",
            "portal:person_sign_in",
            id=person.pk,
        )


class PersonSessionEnd(PersonSignIn):
    """End one session of a person, or all."""

    def act(self, *, id: int, **kwargs: Any) -> HttpResponse:  # noqa: A002
        person = person_get(actor=self.actor, person_id=id)
        choice = self.request.POST.get("session", "")
        if choice == "all":
            ended = sessions_revoke(actor=self.actor, person_id=person.pk)
            sentence = f"{counted(ended, 'session')} ended."
        else:
            session_revoke(
                actor=self.actor, session_id=number_in(self.request.POST, "session") or 0
            )
            sentence = "The session ended."
        return self.done(sentence, "portal:person_sign_in", id=person.pk)


class PersonFactorsReset(PersonSignIn):
    """Remove every second factor of a person who lost theirs."""

    def act(self, *, id: int, **kwargs: Any) -> HttpResponse:  # noqa: A002
        reason = cleaned(ReasonForm(self.request.POST))["reason"]
        person = factors_reset(actor=self.actor, person_id=id, reason=reason)
        return self.done(
            f"{person.name} signs in without a second factor, and adds a new one.",
            "portal:person_sign_in",
            id=person.pk,
        )
