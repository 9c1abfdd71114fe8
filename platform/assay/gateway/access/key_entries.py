"""Credentials of the gateway's callers."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta

from django.db.models import Q, QuerySet
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
_serials = itertools.count()
logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class KeyEntry:
    """One credential of the gateway's callers. `department` is None for a personal token.

    A playground token has the `person` who uses it, the department that pays, and the digest of the
    `session` whose cookie must accompany it.

    `allowed_deployments` (names) and `networks` (CIDRs) restrict it; empty means any. `limits` are
    those of its `subjects`: the organization, the department and the key, widest first.
    `counted_as` is the public ID that its use is charged to. `serial` differs for each entry, so
    that decisions about it can be cached.
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
    subjects: frozenset[str] = frozenset()
    serial: int = field(default_factory=_serials.__next__, init=False, compare=False, repr=False)
    # Digest of the verified secret, set by `authenticate`; dropped at the next reading.
    proved: list[bytes] = field(default_factory=list, init=False, compare=False, repr=False)
    _recorded: list[Part] = field(default_factory=list, init=False, compare=False, repr=False)

    @property
    def recorded(self) -> Part:
        """The principal in the form that decision records use, computed once."""
        if not self._recorded:
            self._recorded.append(principal_part(self.principal))
        return self._recorded[0]

    def limited(self, limits: Mapping[str, tuple[Limit, ...]]) -> KeyEntry:
        """Return the entry with the limits of its subjects."""
        return replace(self, limits=_applying(self.department, self.counted_as, limits))

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


def known_ids() -> list[str]:
    """Return the public IDs of all departments' keys that are not long dead, and of all playground
    tokens.

    There are far more personal tokens than keys, and `/v1` accepts none of them.
    """
    keys = _remembered().filter(department__isnull=False).values_list("public_id", flat=True)
    return [*keys, *PlaygroundToken.objects.values_list("public_id", flat=True)]


def key_entries(
    limits: Mapping[str, tuple[Limit, ...]], public_ids: Collection[str]
) -> dict[str, KeyEntry]:
    """Read the credentials with these public IDs, by ID, leaving out those that do not exist.

    They include personal tokens, so that the error can say why they are refused.
    """
    rows = _remembered().filter(public_id__in=public_ids).select_related("department", "root")
    keys = {}
    for row in rows:
        try:
            keys[row.public_id] = _key_entry(row, limits)
        except Exception:
            # Leave this one out, so that it is refused; the others are unaffected.
            logger.exception("Key %s cannot be read; it is refused", row.public_id)
    # Most IDs are of keys; they differ from those of tokens.
    others = set(public_ids) - keys.keys()
    for token in playground_tokens_alive(others) if others else ():
        entry = _playground_entry(token, limits)
        # People who left the department that pays can no longer use the token.
        if entry.department in entry.principal.departments:
            keys[token.public_id] = entry
    return keys


def playground_ids(people: Collection[int]) -> set[str]:
    """Return the public IDs of these people's playground tokens."""
    rows = PlaygroundToken.objects.filter(person__in=people)
    return set(rows.values_list("public_id", flat=True))


def _remembered() -> QuerySet[ApiKey]:
    since = timezone.now() - _REMEMBERED
    return ApiKey.objects.filter(
        Q(revoked_at__isnull=True) | Q(revoked_at__gt=since), expires_at__gt=since
    )


def _applying(
    department: str | None, key: str, limits: Mapping[str, tuple[Limit, ...]]
) -> tuple[Limit, ...]:
    subjects = subjects_of(department=department or "", key=key)
    return tuple(limit for subject in subjects for limit in limits.get(subject, ()))


def _key_entry(row: ApiKey, limits: Mapping[str, tuple[Limit, ...]]) -> KeyEntry:
    slug = None if row.department is None else row.department.slug
    # Two secrets of one application share the limits of the first.
    first = row.public_id if row.root is None else row.root.public_id
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
        limits=_applying(slug, first, limits),
        subjects=frozenset(subjects_of(department=slug or "", key=first)),
        allowed_deployments=frozenset(row.allowed_deployments),
        networks=tuple(row.networks),
        counted_as=first,
    )


def _playground_entry(token: PlaygroundToken, limits: Mapping[str, tuple[Limit, ...]]) -> KeyEntry:
    """Return the entry of a playground token. Its principal is the person with their current roles
    in the department that pays. That department stores the answers, so roles elsewhere must not
    bring another department's documents into them.
    """
    slug = token.department.slug
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
        # The end of its session is no change of a row.
        expires_at=min(token.expires_at, token.session_ends).timestamp(),  # type: ignore[attr-defined]
        revoked_at=None,
        principal=Principal(
            kind=PrincipalKind.PERSON,
            id=str(token.person_id),
            name=token.person.name,
            roles=roles,
            scopes=frozenset({Action.DEPLOYMENT_INVOKE.value, Action.KNOWLEDGE_SEARCH.value}),
            person_id=token.person_id,
        ),
        limits=_applying(slug, PLAYGROUND_SUBJECT, limits),
        subjects=frozenset(subjects_of(department=slug, key=PLAYGROUND_SUBJECT)),
        allowed_deployments=frozenset({token.deployment}),
        networks=(token.address,) if token.address else (),
        counted_as=PLAYGROUND_SUBJECT,
        person=token.person_id,
        session=session_digest(token.session.session_key),
    )
