"""Departments, the people in them, and the roles they hold."""

from __future__ import annotations

from typing import ClassVar

from django.contrib.auth.base_user import AbstractBaseUser, BaseUserManager
from django.db import models
from django.db.models import Q


class Department(models.Model):
    """The tenant. Owns keys, datasets, adaptations and budgets."""

    slug = models.SlugField(max_length=40, unique=True)
    name = models.CharField(max_length=120)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ("slug",)

    def __str__(self) -> str:
        return self.slug


class PersonManager(BaseUserManager["Person"]):
    """Finds a person by the e-mail address they sign in with."""

    def get_by_natural_key(self, username: str | None) -> Person:
        return self.get(email=(username or "").lower())


class Person(AbstractBaseUser):
    """A human being with an account. An inactive person's record stays; their access does not."""

    email = models.EmailField(unique=True)
    name = models.CharField(max_length=120)
    is_active = models.BooleanField(default=True)
    created_at = models.DateTimeField(auto_now_add=True)

    objects: ClassVar[PersonManager] = PersonManager()

    USERNAME_FIELD = "email"
    REQUIRED_FIELDS: ClassVar[list[str]] = ["name"]

    class Meta:
        ordering = ("email",)

    def __str__(self) -> str:
        return self.name


class Role(models.TextChoices):
    """What a person may be, platform-wide or inside a department."""

    ADMIN = "admin"
    OPERATOR = "operator"
    AUDITOR = "auditor"
    REVIEWER = "reviewer"
    LEAD = "lead"
    DEVELOPER = "developer"
    VIEWER = "viewer"


PLATFORM_ROLES = (Role.ADMIN, Role.OPERATOR, Role.AUDITOR, Role.REVIEWER)
DEPARTMENT_ROLES = (Role.LEAD, Role.DEVELOPER, Role.VIEWER)


class Speciality(models.TextChoices):
    """What a reviewer reviews for."""

    COMPLIANCE = "compliance"
    SECURITY = "security"
    MODEL_RISK = "model-risk", "model risk"
    PRIVACY = "privacy"


class RoleAssignment(models.Model):
    """One role held by one person: platform-wide, or in one department."""

    person = models.ForeignKey(Person, on_delete=models.CASCADE, related_name="role_assignments")
    role = models.CharField(max_length=20, choices=Role.choices)
    department = models.ForeignKey(
        Department, on_delete=models.PROTECT, null=True, blank=True, related_name="role_assignments"
    )
    speciality = models.CharField(max_length=20, choices=Speciality.choices, blank=True)
    granted_by = models.ForeignKey(
        Person, on_delete=models.PROTECT, null=True, related_name="+", blank=True
    )
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ("id",)
        constraints = (
            models.UniqueConstraint(
                fields=("person", "role", "department", "speciality"),
                nulls_distinct=False,
                name="role_held_once",
            ),
            models.CheckConstraint(
                name="department_role_names_its_department",
                condition=Q(role__in=DEPARTMENT_ROLES, department__isnull=False)
                | Q(role__in=PLATFORM_ROLES, department__isnull=True),
            ),
            models.CheckConstraint(
                name="speciality_belongs_to_reviewers",
                condition=(Q(role=Role.REVIEWER) & ~Q(speciality=""))
                | (~Q(role=Role.REVIEWER) & Q(speciality="")),
            ),
        )

    def __str__(self) -> str:
        return f"{self.person_id}:{self.role}:{self.department_id or '*'}"
