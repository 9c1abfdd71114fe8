"""Credentials in the gateway's snapshot."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import timedelta

from django.db.models import Q
from django.utils import timezone

from governance.keys.models import ApiKey, PlaygroundToken
from governance.keys.playground import PLAYGROUND_SUBJECT, playground_tokens_alive, session_digest
from governance.permissions import Action
from governance.policy.decisions import Part, principal_part
from governance.principals import ActorRole, Principal, PrincipalKind
from governance.quotas.kinds import subjects_of
from governance.quotas.wire import Limit

# Period in which a revoked or expired key is refused with that reason, rather than as unknown.
_REMEMBERED = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class KeyEntry:
    """One credential of the gateway's callers. `department` is None for a personal token.

    A playground token has the `person` who uses it, the department that pays, and the digest of the
    `session` whose cookie must accompany it.

    `allowed_deployments` (names) and `networks` (CIDRs) restrict it; empty means any. `limits` are
    those of the organization, the department and the key, widest first. `counted_as` is the public
    ID that its use is charged to.
    """

    public_id: str
    secret_hmac: bytes
    pepper_version: int
    name: str
    department: str | None
    expires_at: float
    revoked_at: float | None
    principal: Principal
    limits: tuple[Limit, ...]
    allowed_deployments: frozenset[str] = frozenset()
    networks: tuple[str, ...] = ()
    counted_as: str = ""
    person: int | None = None
    session: bytes = b""
    # Digest of the verified secret, set by `authenticate`; dropped at the next reading.
    proved: list[bytes] = field(default_factory=list, init=False, compare=False, repr=False)
    _recorded: list[Part] = field(default_factory=list, init=False, compare=False, repr=False)

    @property
    def recorded(self) -> Part:
        """The principal in the form that decision records use, computed once."""
        if not self._recorded:
            self._recorded.append(principal_part(self.principal))
        return self._recorded[0]

    @property
    def title(self) -> str:
        """Name of the credential at the start of a sentence."""
        return f"API key {self.name}" if self.person is None else "A token of the playground"

    @property
    def owner(self) -> str:
        """Owner of the work: a person with all their tokens, or a key with its successors."""
        return self.counted_as or self.public_id if self.person is None else f"person {self.person}"

    @property
    def recorded_as(self) -> str:
        """The key's ID in the ledger; all playground tokens share one."""
        return self.public_id if self.person is None else self.counted_as


def key_entries(
    limits: dict[str, list[Limit]], public_ids: Collection[str] | None = None
) -> dict[str, KeyEntry]:
    """Read all departments' keys and all playground tokens; or only the credentials `public_ids`,
    including personal tokens.

    There are far more personal tokens than keys, and `/v1` accepts none of them. One is looked up
    when it is sent, so that the error can say why it is refused.
    """
    since = timezone.now() - _REMEMBERED
    rows = ApiKey.objects.filter(
        Q(revoked_at__isnull=True) | Q(revoked_at__gt=since), expires_at__gt=since
    ).select_related("department", "root")
    if public_ids is None:
        rows = rows.filter(department__isnull=False)
    else:
        rows = rows.filter(public_id__in=public_ids)
    keys = {row.public_id: _key_entry(row, limits) for row in rows}
    for token in playground_tokens_alive(public_ids):
        entry = _playground_entry(token, limits)
        # People who left the department that pays can no longer use the token.
        if entry.department in entry.principal.departments:
            keys[token.public_id] = entry
    return keys


def _key_entry(row: ApiKey, limits: dict[str, list[Limit]]) -> KeyEntry:
    slug = None if row.department is None else row.department.slug
    # Two secrets of one application share the limits of the first.
    first = row.public_id if row.root is None else row.root.public_id
    subjects = subjects_of(department=slug or "", key=first)
    applying = tuple(limit for subject in subjects for limit in limits.get(subject, ()))
    return KeyEntry(
        public_id=row.public_id,
        secret_hmac=bytes(row.secret_hmac),
        pepper_version=row.pepper_version,
        name=row.name,
        department=slug,
        expires_at=row.expires_at.timestamp(),
        revoked_at=None if row.revoked_at is None else row.revoked_at.timestamp(),
        principal=Principal(
            kind=PrincipalKind.KEY,
            id=str(row.pk),
            name=row.name,
            department=slug,
            scopes=frozenset(row.scopes),
            key_id=row.pk,
        ),
        limits=applying,
        allowed_deployments=frozenset(row.allowed_deployments),
        networks=tuple(row.networks),
        counted_as=first,
    )


def _playground_entry(token: PlaygroundToken, limits: dict[str, list[Limit]]) -> KeyEntry:
    """Return the entry of a playground token. Its principal is the person with their current roles
    in the department that pays. That department stores the answers, so roles elsewhere must not
    bring another department's documents into them.
    """
    slug = token.department.slug
    subjects = subjects_of(department=slug, key=PLAYGROUND_SUBJECT)
    roles = frozenset(
        ActorRole(
            assignment.role,
            assignment.department.slug if assignment.department else None,
            assignment.specialty,
        )
        for assignment in token.person.role_assignments.all()
        if assignment.department is None or assignment.department.slug == slug
    )
    return KeyEntry(
        public_id=token.public_id,
        secret_hmac=bytes(token.secret_hmac),
        pepper_version=token.pepper_version,
        name="playground",
        department=slug,
        expires_at=token.expires_at.timestamp(),
        revoked_at=None,
        principal=Principal(
            kind=PrincipalKind.PERSON,
            id=str(token.person_id),
            name=token.person.name,
            roles=roles,
            scopes=frozenset({Action.DEPLOYMENT_INVOKE.value, Action.KNOWLEDGE_SEARCH.value}),
            person_id=token.person_id,
        ),
        limits=tuple(limit for subject in subjects for limit in limits.get(subject, ())),
        allowed_deployments=frozenset({token.deployment}),
        networks=(token.address,) if token.address else (),
        counted_as=PLAYGROUND_SUBJECT,
        person=token.person_id,
        session=session_digest(token.session.session_key),
    )
