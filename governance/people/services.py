"""Create departments and people, and end or restore a person's access."""

from __future__ import annotations

import re

from django.core.exceptions import ValidationError
from django.core.validators import validate_email
from django.db import IntegrityError, transaction
from django.utils import timezone

from governance.audit.services import Subject, audit_record
from governance.bounds import DEPARTMENT, EMAIL_MAX, TITLE_MAX
from governance.database.locks import lock
from governance.errors import (
    InvalidInput,
    NotFound,
    NotPermitted,
    WrongState,
)
from governance.notify import notify
from governance.people.credentials import access_tokens_revoke
from governance.people.groups import members_sync
from governance.people.links import BOOTSTRAP, links_revoke
from governance.people.models import (
    JOBS_AT_ONCE_MAX,
    REASON_MAX,
    Department,
    Person,
    Role,
    RoleAssignment,
)
from governance.people.proof import proof_facts
from governance.people.recoveries.services import recoveries_end
from governance.people.roles import another_admin_remains, person_subject
from governance.people.roles import role_grant as role_grant
from governance.people.roles import role_revoke as role_revoke
from governance.people.selectors import person_resource
from governance.people.sessions import sessions_end
from governance.permissions import Action
from governance.policy.engine import Resource
from governance.policy.services import SNAPSHOT_CHANNEL, authorize, authorize_binding
from governance.principals import Principal, background

_SLUG = re.compile(DEPARTMENT)
_SLUG_FORM = "2 to 40 lowercase letters, digits and hyphens, starting with a letter"
REASON_INACTIVE = "The identity provider set the account inactive."
REASON_DELETED = "The identity provider deleted the account."
# The provider can undo a deactivation for these reasons, until an administrator deactivates the
# account too.
BY_PROVIDER = frozenset({REASON_INACTIVE, REASON_DELETED})
_ACCESS_FIELDS = (
    "is_active",
    "deactivated_at",
    "deactivation_reason",
    "deprovisioned_at",
    "empowered_at",
    "session_epoch",
    "changed_at",
)


def check_name(name: str) -> str:
    """Return the name in the form that is stored.

    Raises:
        InvalidInput: it is empty, too long or not printable.
    """
    name = name.strip()
    if not name or len(name) > TITLE_MAX or not name.isprintable():
        raise InvalidInput(
            f"A name has 1 to {TITLE_MAX} printable characters.",
            fields={"name": ["is empty, too long or not printable"]},
        )
    return name


def check_email(email: str) -> str:
    """Return the address in the form that is stored, in lowercase.

    Raises:
        InvalidInput: it is not an e-mail address, or too long.
    """
    email = email.strip().lower()
    try:
        if len(email) > EMAIL_MAX:
            raise ValidationError(f"An e-mail address has {EMAIL_MAX} characters at most.")
        validate_email(email)
    except ValidationError as error:
        raise InvalidInput(
            "This is not an e-mail address.", fields={"email": list(error.messages)}
        ) from error
    return email


def department_create(*, actor: Principal, slug: str, name: str) -> Department:
    """Create a department, the tenant of the platform.

    Raises:
        InvalidInput: the slug or the name has the wrong form.
        NotPermitted: the policy denies it.
        WrongState: the slug is taken.
    """
    with transaction.atomic():
        decision = authorize(
            actor=actor,
            action=Action.DEPARTMENT_CREATE,
            resource=Resource("department", name=slug[:40]),
        )
        if _SLUG.fullmatch(slug) is None:
            raise InvalidInput(
                f"The short name {slug[:40]!r} is not valid.",
                hint=f"Use {_SLUG_FORM}.",
                fields={"slug": [f"Use {_SLUG_FORM}."]},
            )
        name = check_name(name)
        try:
            with transaction.atomic():
                department = Department.objects.create(slug=slug, name=name)
        except IntegrityError as error:
            raise WrongState(
                f"Department {slug} already exists; choose another identifier."
            ) from error
        audit_record(
            actor=actor,
            action=Action.DEPARTMENT_CREATE,
            subject=Subject("department", slug, name),
            department=slug,
            decision=decision,
        )
        transaction.on_commit(lambda: notify(SNAPSHOT_CHANNEL))
    return department


def department_limit_jobs(
    *, actor: Principal, department: Department, jobs_at_once: int | None
) -> Department:
    """Set the most jobs of a department that run at the same time; None is the platform's default.

    Running jobs continue.

    Raises:
        InvalidInput: the number is not from 1 to 1,000.
        NotPermitted: the policy denies it, or the actor has no fresh second factor.
    """
    with transaction.atomic():
        decision = authorize_binding(
            actor=actor,
            action=Action.QUOTA_SET,
            resource=Resource("quota", name="jobs at once", department=department.slug),
            doing=f"setting how many jobs of {department.slug} run at once",
        )
        if jobs_at_once is not None and not 1 <= jobs_at_once <= JOBS_AT_ONCE_MAX:
            raise InvalidInput(
                f"A department can run 1 to {JOBS_AT_ONCE_MAX:,} jobs at once.",
                fields={"jobs_at_once": [f"is not from 1 to {JOBS_AT_ONCE_MAX:,}"]},
            )
        department = Department.objects.select_for_update(no_key=True).get(pk=department.pk)
        before, department.jobs_at_once = department.jobs_at_once, jobs_at_once
        department.save(update_fields=["jobs_at_once"])
        audit_record(
            actor=actor,
            action="department:limit_jobs",
            subject=Subject("department", department.slug, department.name),
            department=department.slug,
            data={"before": before, "after": jobs_at_once, **proof_facts(actor.proof)},
            decision=decision,
        )
    return department


def person_create(*, actor: Principal, email: str, name: str) -> Person:
    """Create an account without roles. Its owner sets the password through a one-time link.

    Raises:
        InvalidInput: the e-mail address or the name is not valid.
        NotPermitted: the policy denies it, or the actor has no fresh second factor.
        WrongState: the address already has an account.
    """
    with transaction.atomic():
        decision = authorize_binding(
            actor=actor,
            action=Action.PERSON_CREATE,
            resource=Resource("person"),
            doing="creating an account",
        )
        person = _person_make(email=email, name=name)
        audit_record(
            actor=actor,
            action=Action.PERSON_CREATE,
            subject=person_subject(person),
            data={"email": person.email, **proof_facts(actor.proof)},
            decision=decision,
        )
    return person


def _person_make(*, email: str, name: str) -> Person:
    person = Person(email=check_email(email), name=check_name(name))
    person.set_unusable_password()
    try:
        with transaction.atomic():
            person.save(force_insert=True)
    except IntegrityError as error:
        raise WrongState(
            "This address already has an account; a second one was not created."
        ) from error
    return person


def first_admin_create(*, email: str, name: str) -> Person:
    """Create the first administrator, while there is none.

    Raises:
        InvalidInput: as `person_create`.
        WrongState: an administrator exists, or the address has an account.
    """
    with transaction.atomic():
        # Of two calls at once, the second waits here, and then sees the administrator of the first.
        lock("first-administrator")
        if RoleAssignment.objects.filter(role=Role.ADMIN).exists():
            raise WrongState(
                "There is already an administrator; this command creates only the first one.",
                hint="An administrator adds others in the portal or through the management API.",
            )
        person = _person_make(email=email, name=name)
        RoleAssignment.objects.create(person=person, role=Role.ADMIN)
        for action in (Action.PERSON_CREATE, Action.ROLE_GRANT):
            with background("bootstrap", BOOTSTRAP):
                audit_record(
                    actor=BOOTSTRAP,
                    action=action,
                    subject=person_subject(person),
                    data={"email": person.email, "role": Role.ADMIN.value},
                )
    return person


def person_deactivate(*, actor: Principal, person_id: int, reason: str) -> Person:
    """End a person's access at once: end their sessions, revoke their tokens, keep their record.

    Raises:
        InvalidInput: no reason, or one over its bound.
        NotFound, NotPermitted: the person does not exist, the policy denies it, the actor has no
            fresh second factor, or it is their own account.
        WrongState: the account is already inactive, or is the last administrator's.
    """
    with transaction.atomic():
        person = _person_locked(person_id)
        decision = authorize_binding(
            actor=actor,
            action=Action.PERSON_DEACTIVATE,
            resource=person_resource(person),
            doing=f"deactivating the account of {person.name}",
        )
        reason = _check_reason(reason)
        if actor.person_id == person.pk:
            raise NotPermitted(
                f"{person.name} may not deactivate their own account.",
                hint="Another administrator can.",
            )
        overrides = actor.person_id is not None and person.deactivation_reason in BY_PROVIDER
        if not person.is_active and not overrides:
            raise WrongState(
                f"The account of {person.name} is inactive; it cannot be deactivated again."
            )
        is_admin = person.role_assignments.filter(role=Role.ADMIN).exists()
        if is_admin and not another_admin_remains(person.pk):
            raise WrongState(
                f"{person.name} is the last administrator; the account cannot be deactivated.",
                hint="Make another administrator first.",
            )
        person.is_active = False
        person.deactivated_at = timezone.now()
        person.deactivation_reason = reason
        person.session_epoch += 1
        person.save(update_fields=_ACCESS_FIELDS)
        audit_record(
            actor=actor,
            action=Action.PERSON_DEACTIVATE,
            subject=person_subject(person),
            reason=reason,
            data={
                "tokens_revoked": access_tokens_revoke(
                    actor=actor,
                    person=person,
                    reason="The account of its owner is deactivated.",
                    decision=decision,
                ),
                "sessions_ended": sessions_end(person_id=person.pk),
                "links_revoked": links_revoke(person_id=person.pk),
                "recoveries_ended": recoveries_end(
                    actor=actor, person=person, reason="The account is deactivated."
                ),
                **proof_facts(actor.proof),
            },
            decision=decision,
        )
        transaction.on_commit(lambda: notify(SNAPSHOT_CHANNEL))
    return person


def person_reactivate(*, actor: Principal, person_id: int, reason: str = "") -> Person:
    """Restore a person's access and roles; they sign in again and create new tokens.

    Raises:
        InvalidInput: a reason over its bound.
        NotFound, NotPermitted: the person does not exist, the policy denies it, or the actor has
            no fresh second factor.
        WrongState: the account is active.
    """
    with transaction.atomic():
        person = _person_locked(person_id)
        decision = authorize_binding(
            actor=actor,
            action=Action.PERSON_DEACTIVATE,
            resource=person_resource(person),
            doing=f"reactivating the account of {person.name}",
        )
        reason = _check_reason(reason, needed=False)
        if person.is_active:
            raise WrongState(
                f"The account of {person.name} is active; it cannot be activated again."
            )
        if person.erased_at is not None:
            raise WrongState(
                f"{person.name} cannot be activated again.",
                hint="Their personal data is erased. Create a new account.",
            )
        person.is_active = True
        person.empowered_at = timezone.now()
        person.deactivated_at = person.deprovisioned_at = None
        person.deactivation_reason = ""
        person.save(update_fields=_ACCESS_FIELDS)
        audit_record(
            actor=actor,
            action="person:reactivate",
            subject=person_subject(person),
            reason=reason,
            data=proof_facts(actor.proof),
            decision=decision,
        )
        if person.directory_groups.exists():
            # Mappings of their groups may have changed while they were inactive.
            members_sync(actor=actor, people=[person])
        transaction.on_commit(lambda: notify(SNAPSHOT_CHANNEL))
    return person


def _person_locked(person_id: int) -> Person:
    person = Person.objects.select_for_update(no_key=True).filter(pk=person_id).first()
    if person is None:
        raise NotFound("There is no such person.")
    return person


def _check_reason(reason: str, *, needed: bool = True) -> str:
    reason = reason.strip()
    if (needed and not reason) or len(reason) > REASON_MAX or not reason.isprintable():
        raise InvalidInput(
            f"A reason has 1 to {REASON_MAX} printable characters.",
            fields={"reason": ["is empty, too long or not printable"]},
        )
    return reason
