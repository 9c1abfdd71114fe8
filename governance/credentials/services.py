"""Create, rotate, revoke and use credentials. Only the sealed form of a secret is stored."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.db import connection, transaction
from django.utils import timezone

from governance.audit.services import Subject, audit_record
from governance.credentials.models import (
    HOSTS_MAX,
    Credential,
    CredentialKind,
    CredentialState,
)
from governance.credentials.schemas import EnteredSecret, secret_of
from governance.credentials.sealing import fingerprint, key_from_text, seal, secret_context
from governance.credentials.secrets import Secret
from governance.errors import InvalidInput, NotPermitted, Unavailable, WrongState
from governance.people.models import Department
from governance.people.proof import proof_facts
from governance.permissions import Action
from governance.policy.decisions import Authorization
from governance.policy.engine import Resource
from governance.policy.services import authorize, authorize_binding
from governance.principals import Principal
from governance.rowsecurity import exists_anywhere
from governance.state_machine import StateMachine

CREDENTIAL_STATES = StateMachine(
    model=Credential,
    noun="credential",
    table={
        CredentialState.ACTIVE: frozenset({CredentialState.ACTIVE, CredentialState.REVOKED}),
        CredentialState.REVOKED: frozenset({CredentialState.ACTIVE}),
    },
    related=("department",),
    label=lambda row: row.name,
)
# The latest use of a credential by a deployment; returns a row for the first one in an hour.
_USED = """
INSERT INTO governance_credentialuse AS last (credential_id, deployment, used_at)
VALUES (%s, %s, now()) ON CONFLICT (credential_id, deployment) DO UPDATE SET used_at = now()
 WHERE date_trunc('hour', last.used_at, 'UTC') < date_trunc('hour', now(), 'UTC')
RETURNING 1
"""


def credential_resource(credential: Credential) -> Resource:
    """Return a credential as policy decisions see it."""
    return Resource(
        type="credential",
        id=str(credential.pk),
        name=credential.name,
        department=credential.department.slug,
        attributes={"kind": credential.kind},
    )


@transaction.atomic
def credential_create(
    *,
    actor: Principal,
    department: Department,
    name: str,
    kind: CredentialKind,
    hosts: list[str],
    entered: EnteredSecret,
) -> Credential:
    """Create a credential of the department. Its secret may be sent only to `hosts`.

    Raises:
        InvalidInput: the secret does not fit its kind, or there are too many hosts.
        NotFound, NotPermitted: as `authorize_binding`.
        Unavailable: this installation has no key to seal secrets to.
        WrongState: the department has a credential of this name.
    """
    decision = authorize_binding(
        actor=actor,
        action=Action.CREDENTIAL_CREATE,
        resource=Resource(
            "credential", name=name, department=department.slug, attributes={"kind": kind}
        ),
        doing=f"entering the credential {name}",
    )
    secret = secret_of(kind, entered)
    person_id = _person_id(actor)
    public = _public_key()
    if exists_anywhere(Credential, department=department, name=name):
        raise WrongState(
            f"{department.slug} already has a credential {name}, which was not changed.",
            code="credential_exists",
            hint="Rotate that credential, or choose another name.",
        )
    credential = Credential(
        department=department, name=name, kind=kind, created_by_id=person_id, version=1
    )
    _put_secret(credential, secret, hosts, public)
    credential.save(force_insert=True)
    _record(actor, Action.CREDENTIAL_CREATE, credential, decision)
    return credential


@transaction.atomic
def credential_rotate(
    *,
    actor: Principal,
    credential_id: int,
    entered: EnteredSecret,
    hosts: list[str] | None = None,
    version: int | None = None,
) -> Credential:
    """Replace a credential's secret, and with `hosts` its hosts. Workers use the new secret within
    seconds. A revoked credential becomes active again.

    With `version`, the rotation is refused unless that version is the current one.

    Raises:
        InvalidInput: the secret does not fit its kind, or there are too many hosts.
        NotFound, NotPermitted: it does not exist, or as `authorize_binding`.
        Unavailable: this installation has no key to seal secrets to.
        WrongState: `version` is not the current version.
    """
    credential = CREDENTIAL_STATES.locked(credential_id)
    decision = authorize_binding(
        actor=actor,
        action=Action.CREDENTIAL_ROTATE,
        resource=credential_resource(credential),
        doing=f"rotating the credential {credential.name}",
    )
    secret = secret_of(credential.kind, entered)
    person_id = _person_id(actor)
    public = _public_key()
    if version is not None and version != credential.version:
        raise WrongState(
            f"Credential {credential.name} has version {credential.version} and not {version}: "
            "another person has rotated it. It was not changed.",
            code="credential_rotated",
            hint="Check who rotated it and when. To replace that secret too, rotate version "
            f"{credential.version}.",
        )
    credential.version += 1
    _put_secret(credential, secret, credential.hosts if hosts is None else hosts, public)
    credential.rotated_by_id, credential.rotated_at = person_id, timezone.now()
    credential.revoked_by, credential.revoked_at = None, None
    CREDENTIAL_STATES.save_state(credential, CredentialState.ACTIVE)
    _record(actor, Action.CREDENTIAL_ROTATE, credential, decision)
    return credential


@transaction.atomic
def credential_revoke(*, actor: Principal, credential_id: int) -> Credential:
    """Revoke a credential and delete its secret. New requests are refused within seconds; running
    answers end by themselves.

    Raises:
        NotFound, NotPermitted: it does not exist, or the policy denies it.
        WrongState: it is already revoked.
    """
    credential = CREDENTIAL_STATES.locked(credential_id)
    decision = authorize(
        actor=actor, action=Action.CREDENTIAL_REVOKE, resource=credential_resource(credential)
    )
    credential.sealed, credential.sealed_to = b"", ""
    credential.revoked_by_id, credential.revoked_at = actor.person_id, timezone.now()
    CREDENTIAL_STATES.save_state(credential, CredentialState.REVOKED)
    _record(actor, Action.CREDENTIAL_REVOKE, credential, decision)
    return credential


@transaction.atomic
def credential_use(
    *,
    actor: Principal,
    department: Department,
    name: str,
    host: str,
    deployment: str,
    worker: str,
) -> Credential:
    """Return a department's active credential for a worker, and record its use for the deployment
    once an hour.

    Raises:
        Unavailable: the department has no such credential, or it is revoked, or may not be sent to
            `host` (code `credential_unavailable`).
    """
    row = Credential.objects.select_related("department").filter(department=department, name=name)
    credential = row.first()
    if credential is None:
        reason = f"{department.slug} has no credential {name}"
    elif credential.state != CredentialState.ACTIVE:
        reason = f"the credential {name} of {department.slug} is revoked"
    elif host not in credential.hosts:
        reason = f"the credential {name} of {department.slug} may not be sent to {host}"
    else:
        if _first_in_the_hour(credential, deployment):
            audit_record(
                actor=actor,
                action="credential:use",
                subject=_subject(credential),
                department=department.slug,
                data={
                    "deployment": deployment,
                    "host": host,
                    "version": credential.version,
                    "worker": worker,
                },
            )
        return credential
    raise Unavailable(
        f"The provider cannot be called: {reason}.",
        code="credential_unavailable",
        hint="A lead of the department corrects the credential on the page Credentials.",
    )


def _first_in_the_hour(credential: Credential, deployment: str) -> bool:
    with connection.cursor() as cursor:
        cursor.execute(_USED, [credential.pk, deployment])
        return cursor.fetchone() is not None


def _put_secret(credential: Credential, secret: Secret, hosts: list[str], public: bytes) -> None:
    """Seal a secret into a row whose other columns are set."""
    # A secret is sent to its token endpoint, too.
    permitted = sorted({*hosts, *filter(None, [secret.token_host])})
    if len(permitted) > HOSTS_MAX:
        raise InvalidInput(
            f"The credential has {len(permitted)} hosts, including its token endpoint; at most "
            f"{HOSTS_MAX} are accepted.",
            fields={"hosts": [f"Use at most {HOSTS_MAX} hosts."]},
        )
    credential.hosts = permitted
    context = secret_context(
        department=credential.department.slug,
        name=credential.name,
        kind=credential.kind,
        hosts=permitted,
        version=credential.version,
    )
    credential.sealed = seal(secret.sealable(), public=public, context=context)
    credential.sealed_to = fingerprint(public)


def _public_key() -> bytes:
    """Return the public key of the egress workers. Raises Unavailable if it is not set."""
    if not settings.EGRESS_PUBLIC_KEY:
        raise Unavailable(
            "Secrets cannot be entered: this installation has no ASSAY_EGRESS_PUBLIC_KEY.",
            code="egress_key_missing",
            hint="An operator runs `assay manage egress_public_key` where ASSAY_EGRESS_KEY is set, "
            "and sets ASSAY_EGRESS_PUBLIC_KEY of the web processes to its output.",
        )
    return key_from_text(settings.EGRESS_PUBLIC_KEY)


def _person_id(actor: Principal) -> int:
    if actor.person_id is None:
        raise NotPermitted(
            f"{actor.name} is not a person; only a person may enter a secret.",
            code="person_required",
        )
    return actor.person_id


def _subject(credential: Credential) -> Subject:
    return Subject("credential", str(credential.pk), credential.name)


def _record(
    actor: Principal, action: Action, credential: Credential, decision: Authorization
) -> None:
    data: dict[str, Any] = {
        "kind": credential.kind,
        "hosts": credential.hosts,
        "version": credential.version,
    }
    if action is not Action.CREDENTIAL_REVOKE:
        data |= {"sealed_to": credential.sealed_to, **proof_facts(actor.proof)}
    audit_record(
        actor=actor,
        action=action,
        subject=_subject(credential),
        department=credential.department.slug,
        data=data,
        decision=decision,
    )
