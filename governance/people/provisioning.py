"""People as an identity provider keeps them: made, changed, deactivated and deleted from there.

A record is never removed: whoever the provider deletes has no access and no role, and it does not
see them any more; when it makes an account of the same address again, that is the same record, and
nothing that opened it before opens it now: the address may belong to another person by then.
"""

from __future__ import annotations

from dataclasses import dataclass

from allauth.mfa.models import Authenticator
from allauth.socialaccount.models import SocialAccount
from django.db import IntegrityError, transaction
from django.db.models import Q, QuerySet
from django.utils import timezone

from governance.audit.services import audit_record
from governance.bounds import EMAIL_MAX
from governance.errors import InvalidInput, NotFound, WrongState
from governance.people.credentials import privileged_roles
from governance.people.links import links_revoke
from governance.people.models import EXTERNAL_ID_MAX, Person, RoleSource
from governance.people.recoveries.models import NoticeKind
from governance.people.recoveries.notices import account_tell
from governance.people.recoveries.services import recoveries_end
from governance.people.roles import person_subject, record_role
from governance.people.selectors import people_visible_to, person_resource
from governance.people.services import (
    BY_PROVIDER,
    REASON_DELETED,
    REASON_INACTIVE,
    check_email,
    check_name,
    person_create,
    person_deactivate,
    person_reactivate,
)
from governance.permissions import Action
from governance.policy.decisions import Authorization
from governance.policy.services import authorize
from governance.principals import Principal

UNIQUENESS = "uniqueness"


@dataclass(frozen=True, slots=True)
class PersonRecord:
    """A person as an identity provider describes them."""

    user_name: str
    email: str
    name: str
    given_name: str = ""
    family_name: str = ""
    external_id: str = ""
    active: bool = True


def provisioned_people(actor: Principal) -> QuerySet[Person]:
    """Everyone that the identity provider may see; not those it has deleted."""
    return people_visible_to(actor).filter(deprovisioned_at=None)


def provisioned_person_get(*, actor: Principal, person_id: int, hold: bool = False) -> Person:
    """One of them. `hold` keeps others from changing them until the transaction ends, for whoever
    works out from the person what they are to become.

    Raises:
        NotFound: there is none, or the provider does not see them.
    """
    if hold:
        list(Person.objects.select_for_update(no_key=True).filter(pk=person_id))
    people = provisioned_people(actor).prefetch_related("directory_groups")
    found = people.filter(pk=person_id).first()
    if found is None:
        raise NotFound(f"There is no person {person_id}.")
    return found


def person_provision(*, actor: Principal, record: PersonRecord) -> Person:
    """A new account, or the one that the provider deleted before, without its former roles,
    password, second factors and links.

    Raises:
        InvalidInput: a value that is empty, too long or not printable, or no e-mail address.
        NotPermitted: the policy refuses.
        WrongState: another person has this user name, address or external id (code `uniqueness`).
    """
    with transaction.atomic():
        record = _checked(record)
        gone = Person.objects.filter(deprovisioned_at__isnull=False, email=record.email)
        former = gone.select_for_update(no_key=True).first()
        if former is None:
            _refuse_taken(record, None)
            made = person_create(actor=actor, email=record.email, name=record.name)
            return _apply(actor, made, record)
        decision = authorize(
            actor=actor, action=Action.PERSON_CREATE, resource=person_resource(former)
        )
        _forget_credentials(actor, former, decision)
        former.deprovisioned_at = None
        former.save(update_fields=["password", "unconfirmed_at", "deprovisioned_at", "changed_at"])
        return _apply(actor, former, record)


def _forget_credentials(actor: Principal, person: Person, decision: Authorization) -> None:
    person.set_unusable_password()
    person.unconfirmed_at = None
    audit_record(
        actor=actor,
        action="person:forget_credentials",
        subject=person_subject(person),
        data={
            "factors": Authenticator.objects.filter(user=person).delete()[0],
            "links": SocialAccount.objects.filter(user=person).delete()[0],
        },
        decision=decision,
    )


def person_change(*, actor: Principal, person_id: int, record: PersonRecord) -> Person:
    """Make the account what the provider says; active and inactive too, but not active whom an
    administrator deactivated.

    Raises:
        InvalidInput: as `person_provision`.
        NotFound, NotPermitted: there is no such person, or the policy refuses.
        WrongState: as `person_provision`, or the last administrator would become inactive.
    """
    with transaction.atomic():
        person = provisioned_person_get(actor=actor, person_id=person_id, hold=True)
        return _apply(actor, person, _checked(record))


def person_deprovision(*, actor: Principal, person_id: int) -> None:
    """End the account: no access, no role, no group; the record stays, and the provider does not
    see it any more.

    Raises:
        NotFound, NotPermitted: there is no such person, or the policy refuses.
        WrongState: it is the last administrator's.
    """
    with transaction.atomic():
        person = provisioned_person_get(actor=actor, person_id=person_id, hold=True)
        if person.is_active:
            person_deactivate(actor=actor, person_id=person.pk, reason=REASON_DELETED)
            person.refresh_from_db()
        decision = authorize(
            actor=actor, action=Action.PERSON_DEACTIVATE, resource=person_resource(person)
        )
        person.directory_groups.clear()
        roles = person.role_assignments.select_related("person", "department")
        for assignment in roles:
            record_role(actor, "role:revoke", assignment, decision)
        roles.all().delete()
        person.user_name = person.external_id = ""
        person.deprovisioned_at = timezone.now()
        person.save(update_fields=["user_name", "external_id", "deprovisioned_at", "changed_at"])
        audit_record(
            actor=actor,
            action="person:deprovision",
            subject=person_subject(person),
            decision=decision,
        )


def _checked(record: PersonRecord) -> PersonRecord:
    """Return the record in the form that is stored.

    Raises:
        InvalidInput: naming the field that is wrong.
    """
    texts = {
        "user_name": (record.user_name.strip(), EMAIL_MAX, True),
        "given_name": (record.given_name.strip(), 120, False),
        "family_name": (record.family_name.strip(), 120, False),
        "external_id": (record.external_id, EXTERNAL_ID_MAX, False),
    }
    for field, (text, longest, needed) in texts.items():
        if (needed and not text) or len(text) > longest or not text.isprintable():
            raise InvalidInput(
                f"A person's {field.replace('_', ' ')} has {int(needed)} to {longest} printable "
                "characters.",
                fields={field: ["is empty, too long or not printable"]},
            )
    return PersonRecord(
        user_name=texts["user_name"][0],
        email=check_email(record.email),
        name=check_name(record.name),
        given_name=texts["given_name"][0],
        family_name=texts["family_name"][0],
        external_id=record.external_id,
        active=record.active,
    )


def _refuse_taken(record: PersonRecord, person: Person | None) -> None:
    """Raises WrongState when another person has one of the unique identifiers."""
    others = Person.objects.exclude(pk=person.pk) if person else Person.objects.all()
    taken = {
        "user name": Q(user_name__iexact=record.user_name)
        # Who was added by hand is known by their address.
        | Q(user_name="", email=record.user_name.lower(), deprovisioned_at=None),
        "e-mail address": Q(email=record.email),
    }
    if record.external_id:
        taken["external id"] = Q(external_id=record.external_id)
    for what, query in taken.items():
        if others.filter(query).exists():
            raise _uniqueness(what)


def _uniqueness(what: str) -> WrongState:
    return WrongState(
        f"Another person has this {what}; the account was neither made nor changed.",
        code=UNIQUENESS,
        hint="Find them by userName or externalId, and change that account.",
    )


def _address_leaves(actor: Principal, person: Person) -> None:
    """Prepare a person, whose row is locked, for another e-mail address.

    Whoever has the address gets the account's links, and is matched to it by single sign-on. The
    provider does not move it where administrators gave the account roles that decide for others.

    Raises:
        WrongState: it does (code `privileged_address`).
    """
    held = person.role_assignments.filter(role__in=privileged_roles())
    if held.filter(source=RoleSource.MANUAL).exists():
        raise WrongState(
            f"{person.name} holds a role that decides for others and that administrators granted; "
            "the provider does not change the account's e-mail address.",
            code="privileged_address",
            hint="Revoke that role, change the address, and grant the role again.",
        )
    links_revoke(person_id=person.pk)
    recoveries_end(actor=actor, person=person, reason="The e-mail address is changed.")
    if held.exists():
        person.empowered_at = timezone.now()
        person.save(update_fields=["empowered_at"])
        account_tell(NoticeKind.ADDRESS, person, address=person.email)


def _apply(actor: Principal, person: Person, record: PersonRecord) -> Person:
    decision = authorize(actor=actor, action=Action.PERSON_UPDATE, resource=person_resource(person))
    wanted = {
        "user_name": record.user_name,
        "email": record.email,
        "name": record.name,
        "given_name": record.given_name,
        "family_name": record.family_name,
        "external_id": record.external_id,
    }
    changed = {field: value for field, value in wanted.items() if getattr(person, field) != value}
    if changed:
        _refuse_taken(record, person)
        if "email" in changed:
            _address_leaves(actor, person)
        before = {field: getattr(person, field) for field in changed}
        for field, value in changed.items():
            setattr(person, field, value)
        try:
            with transaction.atomic():
                person.save(update_fields=[*changed, "changed_at"])
        except IntegrityError as error:
            raise _uniqueness("user name, e-mail address or external id") from error
        audit_record(
            actor=actor,
            action=Action.PERSON_UPDATE,
            subject=person_subject(person),
            data={"before": before, "after": changed},
            decision=decision,
        )
    if person.is_active and not record.active:
        return person_deactivate(actor=actor, person_id=person.pk, reason=REASON_INACTIVE)
    if record.active and not person.is_active and person.deactivation_reason in BY_PROVIDER:
        # Only an administrator reactivates whom an administrator deactivated: every push says so.
        return person_reactivate(actor=actor, person_id=person.pk)
    return person
