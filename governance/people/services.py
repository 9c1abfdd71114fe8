"""Departments, people, their roles, and signing in."""

from __future__ import annotations

import re

from django.contrib.auth.hashers import make_password
from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.core.validators import validate_email
from django.db import IntegrityError, connection, transaction

from governance.audit.services import Attempt, Subject, audit_record
from governance.errors import (
    DomainError,
    InvalidInput,
    NotAuthenticated,
    NotFound,
    NotPermitted,
    WrongState,
)
from governance.notify import notify
from governance.people.attempts import forget_failures, refuse_when_locked
from governance.people.models import (
    DEPARTMENT_ROLES,
    PLATFORM_ROLES,
    Department,
    Person,
    Role,
    RoleAssignment,
    Speciality,
)
from governance.people.selectors import person_resource, principal_for_person
from governance.permissions import Action
from governance.policy.engine import Resource
from governance.policy.services import SNAPSHOT_CHANNEL, authorize
from governance.principals import ANONYMOUS, Principal, request_context, service_principal

_SLUG = re.compile(r"[a-z][a-z0-9-]{0,38}[a-z0-9]")
NAME_MAX = 120
PASSWORD_MAX = 256


def _subject(person: Person) -> Subject:
    return Subject("person", str(person.pk), person.name)


def _check_name(name: str) -> str:
    name = name.strip()
    if not name or len(name) > NAME_MAX or not name.isprintable():
        raise InvalidInput(
            f"A name has 1 to {NAME_MAX} printable characters.",
            fields={"name": ["is empty, too long or not printable"]},
        )
    return name


def department_create(*, actor: Principal, slug: str, name: str) -> Department:
    """A new tenant.

    Raises:
        InvalidInput: the slug or the name has the wrong form.
        NotPermitted: the policy refuses.
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
                "A department's slug has 2 to 40 small letters, digits and hyphens, "
                "and begins with a letter.",
                fields={"slug": ["has the wrong form"]},
            )
        name = _check_name(name)
        try:
            with transaction.atomic():
                department = Department.objects.create(slug=slug, name=name)
        except IntegrityError as error:
            raise WrongState(
                f"Department {slug} exists already; it cannot be made again."
            ) from error
        audit_record(
            actor=actor,
            action=Action.DEPARTMENT_CREATE,
            subject=Subject("department", slug, name),
            department=slug,
            policy_version=decision.policy_version,
        )
        transaction.on_commit(lambda: notify(SNAPSHOT_CHANNEL))
    return department


def person_create(
    *, actor: Principal, email: str, name: str, password: str | None = None
) -> Person:
    """A new account, without any role. Without a password they cannot sign in by one.

    Raises:
        InvalidInput: no e-mail address, no name, or a weak password.
        NotPermitted: the policy refuses.
        WrongState: the address has an account.
    """
    with transaction.atomic():
        decision = authorize(actor=actor, action=Action.PERSON_CREATE, resource=Resource("person"))
        person = _person_make(email=email, name=name, password=password)
        audit_record(
            actor=actor,
            action=Action.PERSON_CREATE,
            subject=_subject(person),
            data={"email": person.email},
            policy_version=decision.policy_version,
        )
    return person


def _person_make(*, email: str, name: str, password: str | None) -> Person:
    email = email.strip().lower()
    person = Person(email=email, name=_check_name(name))
    try:
        validate_email(email)
    except ValidationError as error:
        raise InvalidInput(
            "This is not an e-mail address.", fields={"email": list(error.messages)}
        ) from error
    if password is None:
        person.set_unusable_password()
    else:
        try:
            if len(password) > PASSWORD_MAX:
                raise ValidationError(f"A password has {PASSWORD_MAX} characters at most.")
            validate_password(password, person)
        except ValidationError as error:
            raise InvalidInput(
                "The password is too weak.", fields={"password": list(error.messages)}
            ) from error
        person.set_password(password)
    try:
        with transaction.atomic():
            person.save(force_insert=True)
    except IntegrityError as error:
        raise WrongState(f"{email} has an account already; no second one is made.") from error
    return person


def first_admin_create(*, email: str, name: str, password: str) -> Person:
    """The administrator who makes all others; only while there is none.

    Raises:
        InvalidInput: as `person_create`.
        WrongState: an administrator exists, or the address has an account.
    """
    bootstrap = service_principal("bootstrap")
    with transaction.atomic():
        # Two at once: the second waits here, and then sees the first one's.
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(hashtext('assay:first-admin'))")
        if RoleAssignment.objects.filter(role=Role.ADMIN).exists():
            raise WrongState(
                "There is an administrator already; no first one can be made.",
                hint="An administrator makes others in the portal or the management API.",
            )
        person = _person_make(email=email, name=name, password=password)
        RoleAssignment.objects.create(person=person, role=Role.ADMIN)
        for action in (Action.PERSON_CREATE, Action.ROLE_GRANT):
            audit_record(
                actor=bootstrap,
                action=action,
                subject=_subject(person),
                data={"email": person.email, "role": Role.ADMIN.value},
            )
    return person


def role_grant(
    *,
    actor: Principal,
    person: Person,
    role: str,
    department: Department | None = None,
    speciality: str = "",
) -> RoleAssignment:
    """Give a person a role: platform-wide, or in one department.

    Raises:
        InvalidInput: an unknown role, or one with or without a department or speciality it needs.
        NotPermitted: the policy refuses, or it is the actor's own account.
        WrongState: they hold it already, or their account is inactive.
    """
    with transaction.atomic():
        decision = authorize(
            actor=actor, action=Action.ROLE_GRANT, resource=person_resource(person)
        )
        words = _role_words(role, department, speciality)
        if actor.person_id == person.pk:
            raise NotPermitted(
                f"Separation of duties: {person.name} may not grant themselves {words}.",
                hint="Another administrator can.",
                attempt=Attempt(
                    actor=actor,
                    action=Action.ROLE_GRANT,
                    subject=_subject(person),
                    department=department.slug if department else "",
                    policy_version=decision.policy_version,
                ),
            )
        if not person.is_active:
            raise WrongState(f"The account of {person.name} is inactive; it gets no role.")
        try:
            with transaction.atomic():
                assignment = RoleAssignment.objects.create(
                    person=person,
                    role=role,
                    department=department,
                    speciality=speciality,
                    granted_by_id=actor.person_id,
                )
        except IntegrityError as error:
            raise WrongState(f"{person.name} is {words} already.") from error
        _record_role(actor, Action.ROLE_GRANT.value, assignment, decision.policy_version)
    return assignment


def _role_words(role: str, department: Department | None, speciality: str) -> str:
    """The role in words.

    Raises:
        InvalidInput: the parts do not fit together.
    """
    if role not in Role.values:
        raise InvalidInput(
            f"There is no role {role[:40]}.",
            fields={"role": [f"is one of {', '.join(Role.values)}"]},
        )
    if role in DEPARTMENT_ROLES and department is None:
        raise InvalidInput(
            f"The role {role} is held in a department; none was named.",
            fields={"department": ["is needed for this role"]},
        )
    if role in PLATFORM_ROLES and department is not None:
        raise InvalidInput(
            f"The role {role} is platform-wide; it is not held in {department.slug}.",
            fields={"department": ["must be left out for this role"]},
        )
    if (role == Role.REVIEWER) is (speciality not in Speciality.values):
        raise InvalidInput(
            f"A reviewer has one of the specialities {', '.join(Speciality.values)}; "
            "other roles have none.",
            fields={"speciality": ["does not fit the role"]},
        )
    if role != Role.REVIEWER and speciality:
        raise InvalidInput(
            f"The role {role} has no speciality.",
            fields={"speciality": ["must be left out for this role"]},
        )
    return f"{speciality} {role}".strip() + (f" in {department.slug}" if department else "")


def role_revoke(*, actor: Principal, assignment_id: int) -> None:
    """Take a role away, at once.

    Raises:
        NotFound, NotPermitted: there is no such assignment, or the policy refuses.
        WrongState: it is the last administrator's.
    """
    with transaction.atomic():
        assignment = (
            RoleAssignment.objects.select_related("person", "department")
            .filter(pk=assignment_id)
            .first()
        )
        if assignment is None:
            raise NotFound(f"There is no role assignment {assignment_id}.")
        decision = authorize(
            actor=actor, action=Action.ROLE_GRANT, resource=person_resource(assignment.person)
        )
        if assignment.role == Role.ADMIN:
            # Locks every admin's row in one order: of two revocations at once one waits.
            admins = RoleAssignment.objects.select_for_update(of=("self",)).order_by("pk")
            others = [
                held
                for held in admins.filter(role=Role.ADMIN, person__is_active=True)
                if held.pk != assignment.pk
            ]
            if not others:
                raise WrongState(
                    f"{assignment.person.name} is the last administrator; "
                    "the role cannot be taken away.",
                    hint="Make another administrator first.",
                )
        _record_role(actor, "role:revoke", assignment, decision.policy_version)
        assignment.delete()


def _record_role(
    actor: Principal, action: str, assignment: RoleAssignment, policy_version: int
) -> None:
    audit_record(
        actor=actor,
        action=action,
        subject=_subject(assignment.person),
        department=assignment.department.slug if assignment.department else "",
        data={"role": str(assignment.role), "speciality": str(assignment.speciality)},
        policy_version=policy_version,
    )
    # A person's access tokens may do what their roles allow.
    transaction.on_commit(lambda: notify(SNAPSHOT_CHANNEL))


def sign_in(*, email: str, password: str) -> Person:
    """The person of that address and password; the same refusal and work for any that is wrong.

    Raises:
        NotAuthenticated: the address or the password is not right, or the account is inactive.
        QuotaExceeded: too many failures from this client address.
        Unavailable: failures cannot be counted just now.
    """
    # PostgreSQL holds no NUL; an address with one is nobody's.
    email = email.replace("\x00", "").strip().lower()[:254]
    address = request_context.get().client_address
    person = Person.objects.filter(email=email).first()
    attempt = Attempt(
        actor=ANONYMOUS,
        action="person:sign_in",
        subject=Subject("person", str(person.pk) if person else "", email),
    )
    try:
        refuse_when_locked(email, address)
    except DomainError as error:
        error.attempt = attempt
        raise
    if len(password) > PASSWORD_MAX:
        password = ""
    if person is None:
        # As long as a real check takes, so that time does not tell who has an account.
        make_password(password)
        right = False
    else:
        right = person.check_password(password) and person.is_active
    if person is None or not right:
        raise NotAuthenticated("The e-mail address or the password is not right.", attempt=attempt)
    with transaction.atomic():
        audit_record(
            actor=principal_for_person(person),
            action="person:sign_in",
            subject=_subject(person),
        )
    forget_failures(email, address)
    return person
