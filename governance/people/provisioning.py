"""Accounts that an identity provider creates, changes, deactivates and deletes.

Deleting an account keeps its record, without access or roles, and hides it from the provider. If
the provider creates an account with the same address again, it gets the same record, but none of
the former credentials: the address may belong to another person by then.
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
    """Return the people whom the identity provider may see and has not deleted."""
    return people_visible_to(actor).filter(deprovisioned_at=None)


def provisioned_person_get(*, actor: Principal, person_id: int, hold: bool = False) -> Person:
    """Return one of `provisioned_people`. `hold` locks the row until the transaction ends, for a
    caller that computes the person's new values from the current ones.

    Raises:
        NotFound: the person does not exist, or the provider may not see them.
    """
    if hold:
        list(Person.objects.select_for_update(no_key=True).filter(pk=person_id))
    people = provisioned_people(actor).prefetch_related("directory_groups")
    person = people.filter(pk=person_id).first()
    if person is None:
        raise NotFound(f"There is no person {person_id}.")
    return person


def person_provision(*, actor: Principal, record: PersonRecord) -> Person:
    """Create an account, or restore one that the provider deleted, without its former roles,
    password, second factors and links.

    Raises:
        InvalidInput: a value is empty, too long or not printable, or not an e-mail address.
        NotPermitted: the policy denies it.
        WrongState: another person has this user name, address or external ID (code `uniqueness`).
    """
    with transaction.atomic():
        record = _checked(record)
        deleted = Person.objects.filter(deprovisioned_at__isnull=False, email=record.email)
        former = deleted.select_for_update(no_key=True).first()
        if former is None:
            _refuse_taken(record, None)
            person = person_create(actor=actor, email=record.email, name=record.name)
            return _apply(actor, person, record)
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
    """Update the account to the provider's record. An account that an administrator deactivated
    stays inactive.

    Raises:
        InvalidInput: as `person_provision`.
        NotFound, NotPermitted: the person does not exist, or the policy denies it.
        WrongState: as `person_provision`, or the last administrator would become inactive.
    """
    with transaction.atomic():
        person = provisioned_person_get(actor=actor, person_id=person_id, hold=True)
        return _apply(actor, person, _checked(record))


def person_deprovision(*, actor: Principal, person_id: int) -> None:
    """Remove the account's access, roles and groups, and hide its record from the provider.

    Raises:
        NotFound, NotPermitted: the person does not exist, or the policy denies it.
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
        InvalidInput: a field is wrong; the error names it.
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
    """Raise WrongState if another person has one of the unique identifiers."""
    others = Person.objects.exclude(pk=person.pk) if person else Person.objects.all()
    taken = {
        "user name": Q(user_name__iexact=record.user_name)
        # A person who was added by hand has no user name; their address stands in for it.
        | Q(user_name="", email=record.user_name.lower(), deprovisioned_at=None),
        "e-mail address": Q(email=record.email),
    }
    if record.external_id:
        taken["external id"] = Q(external_id=record.external_id)
    for field, query in taken.items():
        if others.filter(query).exists():
            raise _uniqueness(field)


def _uniqueness(field: str) -> WrongState:
    return WrongState(
        f"Another person has this {field}; the account was not saved.",
        code=UNIQUENESS,
        hint="Find that account by userName or externalId, and change it instead.",
    )


def _address_leaves(actor: Principal, person: Person) -> None:
    """Prepare a person, whose row is locked, for a change of e-mail address.

    The address receives the account's links and identifies it in single sign-on. So the provider
    may not change it if administrators gave the account roles that decide for others.

    Raises:
        WrongState: the account has such a role (code `privileged_address`).
    """
    privileged = person.role_assignments.filter(role__in=privileged_roles())
    if privileged.filter(source=RoleSource.MANUAL).exists():
        raise WrongState(
            f"{person.name} holds a role that decides for others and that administrators granted; "
            "the provider does not change the account's e-mail address.",
            code="privileged_address",
            hint="Revoke that role, change the address, and grant the role again.",
        )
    links_revoke(person_id=person.pk)
    recoveries_end(actor=actor, person=person, reason="The e-mail address is changed.")
    if privileged.exists():
        person.empowered_at = timezone.now()
        person.save(update_fields=["empowered_at"])
        account_tell(NoticeKind.ADDRESS, person, address=person.email)


def _apply(actor: Principal, person: Person, record: PersonRecord) -> Person:
    decision = authorize(actor=actor, action=Action.PERSON_UPDATE, resource=person_resource(person))
    values = {
        "user_name": record.user_name,
        "email": record.email,
        "name": record.name,
        "given_name": record.given_name,
        "family_name": record.family_name,
        "external_id": record.external_id,
    }
    changed = {field: value for field, value in values.items() if getattr(person, field) != value}
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
        # Every push says `active`; that must not undo an administrator's deactivation.
        return person_reactivate(actor=actor, person_id=person.pk)
    return person
