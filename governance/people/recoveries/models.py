"""Recoveries of accounts, and the notices that announce them."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.db.models import F, Q

from governance.outgoing import Outgoing
from governance.people.models import REASON_MAX, LinkPurpose


class RecoveryState(models.TextChoices):
    """States of a recovery. `opened`: its link was opened; former second factors are deleted."""

    PENDING = "pending"
    APPROVED = "approved"
    OPENED = "opened"
    REJECTED = "rejected"
    EXPIRED = "expired"


LIVE = (RecoveryState.PENDING, RecoveryState.APPROVED)


class AccountRecovery(models.Model):
    """A request to replace an account's password and second factors, by a one-time link.

    It needs two parties, and neither can use it alone: the requester gets a code, and the approver
    gets the link, unless it is mailed to the account's address. On the server, a command replaces
    the approver, or both.
    """

    person = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="recoveries"
    )
    purpose = models.CharField(max_length=10, choices=LinkPurpose.choices)
    reason = models.CharField(max_length=REASON_MAX)
    state = models.CharField(
        max_length=10, choices=RecoveryState.choices, default=RecoveryState.PENDING
    )
    # Empty for a recovery that began on the server.
    requested_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, null=True, blank=True, related_name="+"
    )
    requested_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField()
    # HMAC of the requester's code under the pepper of `pepper_version`; empty without a requester.
    code_hmac = models.BinaryField(max_length=32, default=b"")
    pepper_version = models.PositiveSmallIntegerField()
    # Empty for a recovery that was approved on the server.
    approved_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, null=True, blank=True, related_name="+"
    )
    on_server = models.BooleanField(default=False)
    approved_at = models.DateTimeField(null=True, blank=True)
    # The link works from this time on.
    effective_at = models.DateTimeField(null=True, blank=True)
    opened_at = models.DateTimeField(null=True, blank=True)
    ended_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, null=True, blank=True, related_name="+"
    )
    ended_at = models.DateTimeField(null=True, blank=True)
    end_reason = models.CharField(max_length=REASON_MAX, blank=True, default="")

    class Meta:
        ordering = ("-id",)
        constraints = (
            models.UniqueConstraint(
                fields=("person",), condition=Q(state__in=LIVE), name="one_live_recovery"
            ),
            models.CheckConstraint(
                name="recovery_is_requested_by_another_person",
                condition=Q(requested_by=None) | ~Q(requested_by=F("person")),
            ),
            models.CheckConstraint(
                name="recovery_takes_two_parties",
                condition=~Q(state__in=(RecoveryState.APPROVED, RecoveryState.OPENED))
                | Q(on_server=True, approved_by=None, effective_at__isnull=False)
                | (
                    Q(
                        on_server=False,
                        requested_by__isnull=False,
                        approved_by__isnull=False,
                        effective_at__isnull=False,
                    )
                    & ~Q(approved_by=F("requested_by"))
                    & ~Q(approved_by=F("person"))
                ),
            ),
            models.CheckConstraint(
                name="recovery_with_a_requester_has_a_code",
                condition=Q(requested_by=None, code_hmac=b"")
                | (Q(requested_by__isnull=False) & ~Q(code_hmac=b"")),
            ),
        )

    def __str__(self) -> str:
        return f"recovery {self.pk}"


class NoticeKind(models.TextChoices):
    """Subject of a notice about an account."""

    REQUESTED = "requested"
    APPROVED = "approved"
    OPENED = "opened"
    ENDED = "ended"
    ADDRESS = "address"


class AccountNotice(Outgoing):
    """A mail about an account, to be sent to one person."""

    kind = models.CharField(max_length=10, choices=NoticeKind.choices)
    about = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+")
    person = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+")
    recovery = models.ForeignKey(AccountRecovery, on_delete=models.CASCADE, null=True, blank=True)
    # The former address, for a notice about its change.
    address = models.EmailField(blank=True, default="")

    class Meta:
        ordering = ("id",)
        indexes = (
            models.Index(
                fields=("next_at",),
                condition=Q(next_at__isnull=False),
                name="account_notices_to_send",
            ),
        )

    def __str__(self) -> str:
        return f"{self.kind} notice {self.pk}"
