"""Departments, the people in them, and the roles they hold."""

from __future__ import annotations

from typing import ClassVar

from django.contrib.auth.base_user import AbstractBaseUser, BaseUserManager
from django.db import models
from django.db.models import Q
from django.db.models.functions import Upper
from django.utils.crypto import salted_hmac

from governance.bounds import DEPARTMENT_MAX, EMAIL_MAX, GROUP_MAX, TITLE_MAX

REASON_MAX = 300
JOBS_AT_ONCE_MAX = 1_000
# The name of a person or a group at the identity provider.
EXTERNAL_ID_MAX = 255


class Department(models.Model):
    """A tenant that owns keys, datasets, fine-tunes and budgets.

    At most `jobs_at_once` of its jobs run at the same time; None means `ASSAY_JOBS_AT_ONCE`.
    """

    slug = models.SlugField(max_length=DEPARTMENT_MAX, unique=True)
    name = models.CharField(max_length=TITLE_MAX)
    jobs_at_once = models.PositiveSmallIntegerField(null=True, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ("slug",)

    def __str__(self) -> str:
        return self.slug


class PersonManager(BaseUserManager["Person"]):
    """Manager that finds people by the e-mail address that they sign in with."""

    def get_by_natural_key(self, username: str | None) -> Person:
        return self.get(email=(username or "").lower())


class Person(AbstractBaseUser):
    """A human being with an account. A person who becomes inactive loses access, not the record."""

    email = models.EmailField(unique=True)
    name = models.CharField(max_length=TITLE_MAX)
    given_name = models.CharField(max_length=TITLE_MAX, blank=True, default="")
    family_name = models.CharField(max_length=TITLE_MAX, blank=True, default="")
    # Names at the identity provider; both are empty for a person who was added by hand.
    user_name = models.CharField(max_length=EMAIL_MAX, blank=True, default="")
    external_id = models.CharField(max_length=EXTERNAL_ID_MAX, blank=True, default="")
    is_active = models.BooleanField(default=True)
    deactivated_at = models.DateTimeField(null=True, blank=True)
    deactivation_reason = models.CharField(max_length=REASON_MAX, blank=True, default="")
    # Deletion by the identity provider, which no longer sees the account and may create it again.
    deprovisioned_at = models.DateTimeField(null=True, blank=True)
    # Erasure of the personal data, which cannot be undone.
    erased_at = models.DateTimeField(null=True, blank=True)
    # Last reactivation of the account, or replacement of its second factors.
    empowered_at = models.DateTimeField(null=True, blank=True)
    # Sign-in set up by one administrator, or the owner, alone. Until two parties confirm it,
    # its second factors do not authorize decisions for others.
    unconfirmed_at = models.DateTimeField(null=True, blank=True)
    # Incremented to end all sessions; a session carries the epoch in which it began.
    session_epoch = models.PositiveIntegerField(default=0)
    created_at = models.DateTimeField(auto_now_add=True)
    changed_at = models.DateTimeField(auto_now=True)

    objects: ClassVar[PersonManager] = PersonManager()

    USERNAME_FIELD = "email"
    REQUIRED_FIELDS: ClassVar[list[str]] = ["name"]

    class Meta:
        ordering = ("email",)
        constraints = (
            models.UniqueConstraint(
                Upper("user_name"), condition=~Q(user_name=""), name="user_name_used_once"
            ),
            models.UniqueConstraint(
                fields=("external_id",),
                condition=~Q(external_id=""),
                name="external_id_used_once",
            ),
            models.CheckConstraint(
                name="who_is_deactivated_is_not_active",
                condition=Q(is_active=False)
                | Q(deactivated_at__isnull=True, deprovisioned_at__isnull=True),
            ),
            models.CheckConstraint(
                name="who_is_erased_is_gone",
                condition=Q(erased_at__isnull=True)
                | Q(is_active=False, deprovisioned_at__isnull=False),
            ),
        )

    def __str__(self) -> str:
        return self.name

    def _get_session_auth_hash(self, secret: str | bytes | None = None) -> str:
        """Return Django's hash over password and session epoch; raising the epoch ends sessions."""
        epoch = f":{self.session_epoch}" if self.session_epoch else ""
        salt = "django.contrib.auth.models.AbstractBaseUser.get_session_auth_hash"
        value = f"{self.password}{epoch}"
        return salted_hmac(salt, value, secret=secret, algorithm="sha256").hexdigest()


class Role(models.TextChoices):
    """Role of a person, platform-wide or inside a department."""

    ADMIN = "admin"
    OPERATOR = "operator"
    AUDITOR = "auditor"
    REVIEWER = "reviewer"
    LEAD = "lead"
    DEVELOPER = "developer"
    VIEWER = "viewer"


PLATFORM_ROLES = (Role.ADMIN, Role.OPERATOR, Role.AUDITOR, Role.REVIEWER)
# Holders of these roles decide about others; a second administrator approves each grant.
PRIVILEGED_ROLES = (Role.ADMIN, Role.REVIEWER)
DEPARTMENT_ROLES = (Role.LEAD, Role.DEVELOPER, Role.VIEWER)


class Specialty(models.TextChoices):
    """Subject that a reviewer reviews."""

    COMPLIANCE = "compliance"
    SECURITY = "security"
    MODEL_RISK = "model-risk", "model risk"
    PRIVACY = "privacy"


class RoleSource(models.TextChoices):
    """Source of a role: an administrator by hand, or an identity provider through its groups."""

    MANUAL = "manual", "by hand"
    SSO = "sso", "single sign-on"
    SCIM = "scim", "provisioning"


DEPARTMENT_ROLE_NAMES_DEPARTMENT = Q(role__in=DEPARTMENT_ROLES, department__isnull=False) | Q(
    role__in=PLATFORM_ROLES, department__isnull=True
)
SPECIALTY_BELONGS_TO_REVIEWERS = (Q(role=Role.REVIEWER) & ~Q(specialty="")) | (
    ~Q(role=Role.REVIEWER) & Q(specialty="")
)


class RoleAssignment(models.Model):
    """One role held by one person: platform-wide, or in one department."""

    person = models.ForeignKey(Person, on_delete=models.CASCADE, related_name="role_assignments")
    role = models.CharField(max_length=20, choices=Role.choices)
    department = models.ForeignKey(
        Department, on_delete=models.PROTECT, null=True, blank=True, related_name="role_assignments"
    )
    specialty = models.CharField(max_length=20, choices=Specialty.choices, blank=True)
    granted_by = models.ForeignKey(
        Person, on_delete=models.PROTECT, null=True, related_name="+", blank=True
    )
    # The second administrator, for a role that takes two.
    approved_by = models.ForeignKey(
        Person, on_delete=models.PROTECT, null=True, related_name="+", blank=True
    )
    source = models.CharField(max_length=10, choices=RoleSource.choices, default=RoleSource.MANUAL)
    # The group that gave the role; empty if it was granted by hand.
    group = models.CharField(max_length=GROUP_MAX, blank=True, default="")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ("id",)
        constraints = (
            models.UniqueConstraint(
                fields=("person", "role", "department", "specialty"),
                nulls_distinct=False,
                name="role_held_once",
            ),
            models.CheckConstraint(
                name="department_role_names_its_department",
                condition=DEPARTMENT_ROLE_NAMES_DEPARTMENT,
            ),
            models.CheckConstraint(
                name="specialty_belongs_to_reviewers",
                condition=SPECIALTY_BELONGS_TO_REVIEWERS,
            ),
            models.CheckConstraint(
                name="role_from_a_group_names_it",
                condition=Q(source="manual", group="") | (~Q(source="manual") & ~Q(group="")),
            ),
        )

    def __str__(self) -> str:
        return f"{self.person_id}:{self.role}:{self.department_id or '*'}"


class RoleRequestState(models.TextChoices):
    """States of a request for a privileged role. Only a pending one can change."""

    PENDING = "pending"
    APPROVED = "approved"
    REJECTED = "rejected"
    WITHDRAWN = "withdrawn"
    EXPIRED = "expired"


class RoleRequest(models.Model):
    """A request to make a person, or everyone in a group, administrator or reviewer. It has no
    effect until a second administrator approves it."""

    # One of the two: the person, or the name of the group.
    person = models.ForeignKey(
        Person, on_delete=models.PROTECT, null=True, blank=True, related_name="role_requests"
    )
    group = models.CharField(max_length=GROUP_MAX, blank=True, default="")
    role = models.CharField(max_length=20, choices=Role.choices)
    specialty = models.CharField(max_length=20, choices=Specialty.choices, blank=True)
    state = models.CharField(
        max_length=10, choices=RoleRequestState.choices, default=RoleRequestState.PENDING
    )
    requested_by = models.ForeignKey(Person, on_delete=models.PROTECT, related_name="+")
    requested_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField()
    decided_by = models.ForeignKey(
        Person, on_delete=models.PROTECT, null=True, blank=True, related_name="+"
    )
    decided_at = models.DateTimeField(null=True, blank=True)
    reason = models.CharField(max_length=REASON_MAX, blank=True, default="")

    class Meta:
        ordering = ("-id",)
        constraints = (
            models.CheckConstraint(
                name="role_request_is_for_a_person_or_a_group",
                condition=Q(person__isnull=False, group="") | (Q(person=None) & ~Q(group="")),
            ),
            models.CheckConstraint(
                name="role_request_is_for_a_privileged_role",
                condition=Q(role__in=PRIVILEGED_ROLES) & SPECIALTY_BELONGS_TO_REVIEWERS,
            ),
            models.CheckConstraint(
                name="nobody_requests_a_role_for_themselves",
                condition=Q(person=None) | ~Q(requested_by=models.F("person")),
            ),
            models.CheckConstraint(
                name="second_administrator_approves_a_role",
                condition=~Q(state=RoleRequestState.APPROVED)
                | (
                    Q(decided_by__isnull=False, decided_at__isnull=False)
                    & ~Q(decided_by=models.F("requested_by"))
                    & (Q(person=None) | ~Q(decided_by=models.F("person")))
                ),
            ),
            models.UniqueConstraint(
                fields=("person", "group", "role", "specialty"),
                condition=Q(state=RoleRequestState.PENDING),
                nulls_distinct=False,
                name="role_requested_once",
            ),
        )

    def __str__(self) -> str:
        return f"role request {self.pk}"


class DirectoryGroup(models.Model):
    """A group of people that an identity provider maintains; mappings give it roles."""

    name = models.CharField(max_length=GROUP_MAX)
    external_id = models.CharField(max_length=EXTERNAL_ID_MAX, blank=True, default="")
    members = models.ManyToManyField(Person, related_name="directory_groups", blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    changed_at = models.DateTimeField(auto_now=True)

    class Meta:
        ordering = ("name", "id")
        constraints = (
            models.UniqueConstraint(Upper("name"), name="group_name_used_once"),
            models.UniqueConstraint(
                fields=("external_id",),
                condition=~Q(external_id=""),
                name="group_external_id_used_once",
            ),
        )

    def __str__(self) -> str:
        return self.name


class GroupMapping(models.Model):
    """A rule that gives a role to members of the group with this name, at any identity provider."""

    group = models.CharField(max_length=GROUP_MAX)
    role = models.CharField(max_length=20, choices=Role.choices)
    department = models.ForeignKey(
        Department, on_delete=models.PROTECT, null=True, blank=True, related_name="group_mappings"
    )
    specialty = models.CharField(max_length=20, choices=Specialty.choices, blank=True)
    created_by = models.ForeignKey(
        Person, on_delete=models.PROTECT, null=True, blank=True, related_name="+"
    )
    # The second administrator, for a role that takes two.
    approved_by = models.ForeignKey(
        Person, on_delete=models.PROTECT, null=True, blank=True, related_name="+"
    )
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ("group", "id")
        constraints = (
            models.UniqueConstraint(
                fields=("group", "role", "department", "specialty"),
                nulls_distinct=False,
                name="group_mapped_once",
            ),
            models.CheckConstraint(
                name="mapped_department_role_names_its_department",
                condition=DEPARTMENT_ROLE_NAMES_DEPARTMENT,
            ),
            models.CheckConstraint(
                name="mapped_specialty_belongs_to_reviewers",
                condition=SPECIALTY_BELONGS_TO_REVIEWERS,
            ),
        )

    def __str__(self) -> str:
        return f"{self.group}: {self.specialty} {self.role}".replace(":  ", ": ")


class LinkPurpose(models.TextChoices):
    """The single use of a one-time link."""

    PASSWORD = "password"  # noqa: S105 (the purpose's name)
    FACTOR = "factor", "second factor"


class OneTimeLink(models.Model):
    """A link that works once, for one person: to set a password, or to add a first second factor.

    Its secret is shown or mailed once, and stored as an HMAC under the pepper of `pepper_version`.
    A link of a `recovery` also requires the recovery's code.
    """

    person = models.ForeignKey(Person, on_delete=models.CASCADE, related_name="one_time_links")
    purpose = models.CharField(max_length=10, choices=LinkPurpose.choices)
    public_id = models.CharField(max_length=12, unique=True)
    secret_hmac = models.BinaryField(max_length=32)
    pepper_version = models.PositiveSmallIntegerField()
    # Empty for a link that was made from a shell on the server.
    created_by = models.ForeignKey(
        Person, on_delete=models.PROTECT, null=True, blank=True, related_name="+"
    )
    created_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField()
    used_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True)
    recovery = models.ForeignKey(
        "governance.AccountRecovery",
        on_delete=models.CASCADE,
        null=True,
        blank=True,
        related_name="links",
    )

    class Meta:
        ordering = ("-pk",)
        constraints = (
            models.UniqueConstraint(
                fields=("person", "purpose"),
                condition=Q(used_at=None, revoked_at=None),
                name="one_open_link_per_purpose",
            ),
            models.CheckConstraint(
                name="one_time_link_ends_once",
                condition=Q(used_at=None) | Q(revoked_at=None),
            ),
            models.CheckConstraint(
                name="one_time_link_is_made_by_another_person",
                condition=Q(created_by=None) | ~Q(created_by=models.F("person")),
            ),
        )

    def __str__(self) -> str:
        return f"{self.purpose} link {self.public_id}"


class AccessRequest(models.Model):
    """A request for a role, by a person without one, in their own words."""

    person = models.ForeignKey(Person, on_delete=models.CASCADE, related_name="access_requests")
    text = models.CharField(max_length=REASON_MAX)
    created_at = models.DateTimeField(auto_now_add=True)
    # Set when an administrator declines it, or when the person makes another request.
    closed_at = models.DateTimeField(null=True, blank=True)
    closed_by = models.ForeignKey(
        Person, on_delete=models.PROTECT, null=True, blank=True, related_name="+"
    )

    class Meta:
        ordering = ("created_at", "pk")
        constraints = (
            models.UniqueConstraint(
                fields=("person",), condition=Q(closed_at=None), name="one_open_access_request"
            ),
            models.CheckConstraint(
                name="access_request_is_declined_by_another",
                condition=Q(closed_by=None) | ~Q(closed_by=models.F("person")),
            ),
        )

    def __str__(self) -> str:
        return f"access request {self.pk}"
