"""Reviews: people decide on one digest. Generic: the subject is a type, an ID and a name."""

from __future__ import annotations

from django.conf import settings
from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Q
from django.utils import timezone

from governance.bounds import TIER_MAX
from governance.people.proof import FRESH, METHODS

NOTE_MAX = 500
REASON_MAX = 4000


class ReviewState(models.TextChoices):
    """State of a review; the last four are final."""

    OPEN = "open"
    CHANGES_REQUESTED = "changes_requested", "changes requested"
    APPROVED = "approved"
    REJECTED = "rejected"
    WITHDRAWN = "withdrawn"
    VOIDED = "voided"


class Review(models.Model):
    """A review of one digest, under the policy in force when it was opened.

    `round` increases with each answer of the department; a decision belongs to one round and
    digest. `required_approvals` maps a specialty to the number of approvals that it needs.
    `excluded_people` had a part in the subject: they may comment but never decide.
    """

    subject_type = models.CharField(max_length=40)
    subject_id = models.CharField(max_length=80)
    subject_name = models.CharField(max_length=200)
    department = models.ForeignKey("governance.Department", on_delete=models.PROTECT)
    tier = models.CharField(max_length=TIER_MAX, default="limited")
    digest = models.CharField(max_length=64)
    round = models.PositiveIntegerField(default=1)
    required_approvals = models.JSONField()
    excluded_people = ArrayField(models.BigIntegerField(), default=list)
    policy_version = models.PositiveIntegerField()
    # Defines the requirements; null for a review without a review policy.
    review_policy = models.ForeignKey(
        "governance.ReviewPolicy", on_delete=models.PROTECT, null=True, blank=True, related_name="+"
    )
    state = models.CharField(
        max_length=20, choices=ReviewState.choices, default=ReviewState.OPEN, db_index=True
    )
    opened_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="reviews_opened"
    )
    opened_at = models.DateTimeField(auto_now_add=True)
    due_at = models.DateTimeField()
    closed_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ("-id",)
        indexes = (
            models.Index(
                fields=("due_at",),
                condition=Q(state__in=("open", "changes_requested")),
                name="waiting_reviews_by_due_time",
            ),
            models.Index(fields=("subject_type", "subject_id"), name="reviews_by_subject"),
        )
        constraints = (
            models.UniqueConstraint(
                fields=("subject_type", "subject_id"),
                condition=Q(state__in=("open", "changes_requested")),
                name="one_open_review_per_subject",
            ),
            # Target of a composite foreign key of decisions, which enforces separation of duties.
            models.UniqueConstraint(fields=("id", "opened_by"), name="review_and_its_submitter"),
        )

    def __str__(self) -> str:
        return f"review {self.pk} of {self.subject_name}"


class Verdict(models.TextChoices):
    """Verdict of a decision."""

    COMMENT = "comment"
    REQUEST_CHANGES = "request_changes", "request changes"
    APPROVE = "approve"
    REJECT = "reject"


class Decision(models.Model):
    """A person's comment or vote on one digest.

    `submitter` repeats the review's `opened_by`; a composite foreign key (migration) keeps the two
    equal, so that the check constraint below forbids decisions on one's own request. A vote stores
    the voter's fresh proof: `proof_method` and `proved_at`. Votes from before that requirement have
    none; rows never change, so the constraint does not apply to them.
    """

    review = models.ForeignKey(Review, on_delete=models.PROTECT, related_name="decisions")
    submitter = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+"
    )
    person = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="review_decisions"
    )
    verdict = models.CharField(max_length=20, choices=Verdict.choices)
    specialty = models.CharField(max_length=20, blank=True)
    # The absent reviewer whose deputy the person voted as; see `governance.reviews.absences`.
    in_place_of = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, null=True, blank=True, related_name="+"
    )
    reason = models.TextField(max_length=REASON_MAX)
    # Conditions of an approval; the subject's own context defines their content.
    conditions = models.JSONField(default=dict, blank=True)
    digest = models.CharField(max_length=64)
    round = models.PositiveIntegerField()
    proof_method = models.CharField(max_length=20, blank=True, default="")
    proved_at = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        ordering = ("id",)
        constraints = (
            models.CheckConstraint(
                name="vote_has_a_fresh_proof",
                condition=Q(verdict="comment")
                | (
                    Q(proof_method__in=METHODS, proved_at__isnull=False)
                    & Q(proved_at__lte=models.F("created_at"))
                    & Q(proved_at__gt=models.F("created_at") - FRESH)
                ),
            ),
            models.UniqueConstraint(
                fields=("review", "person", "round"),
                condition=~Q(verdict="comment"),
                name="one_vote_per_person_and_round",
            ),
            models.UniqueConstraint(
                fields=("review", "in_place_of", "round"),
                condition=Q(in_place_of__isnull=False),
                name="one_deputy_votes_for_whom_is_away",
            ),
            models.CheckConstraint(
                name="only_an_approval_has_conditions",
                condition=Q(verdict="approve") | Q(conditions={}),
            ),
            models.CheckConstraint(
                name="submitter_never_decides",
                condition=Q(verdict="comment") | ~Q(person=models.F("submitter")),
            ),
            models.CheckConstraint(
                name="vote_names_its_specialty",
                condition=Q(verdict="comment") | ~Q(specialty=""),
            ),
        )

    def __str__(self) -> str:
        return f"{self.verdict} by {self.person_id}"


class ChecklistState(models.TextChoices):
    """State of a checklist item. An open item needs a reviewer's judgment."""

    OPEN = "open", "needs judgment"
    SATISFIED = "satisfied"
    NOT_APPLICABLE = "not_applicable", "not applicable"
    FAILED = "failed"
    WAIVED = "waived"


# States that do not block an approval and need no waiver.
MET_STATES = (ChecklistState.SATISFIED, ChecklistState.NOT_APPLICABLE)


class ChecklistItem(models.Model):
    """A requirement for approval, checked by machine or attested by a reviewer.

    `digest` is the digest under review when it was checked (at `checked_at`) or attested. A
    `waived` item counts as met while its waiver is in force; `waivable`: it may be waived at all.
    """

    review = models.ForeignKey(Review, on_delete=models.CASCADE, related_name="checklist")
    code = models.SlugField(max_length=60)
    title = models.CharField(max_length=200)
    why = models.CharField(max_length=500, blank=True)
    automatic = models.BooleanField(default=False)
    waivable = models.BooleanField(default=True)
    state = models.CharField(
        max_length=20, choices=ChecklistState.choices, default=ChecklistState.OPEN
    )
    note = models.CharField(max_length=NOTE_MAX, blank=True)
    digest = models.CharField(max_length=64, blank=True)
    checked_at = models.DateTimeField(null=True, blank=True)
    attested_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, null=True, blank=True, related_name="+"
    )
    attested_at = models.DateTimeField(null=True, blank=True)
    # The earlier review from which the attestation was carried over.
    carried_from = models.ForeignKey(
        Review, on_delete=models.PROTECT, null=True, blank=True, related_name="+"
    )

    class Meta:
        ordering = ("id",)
        constraints = (
            models.CheckConstraint(
                name="only_what_was_attested_is_carried",
                condition=Q(carried_from__isnull=True)
                | Q(automatic=False, attested_by__isnull=False, state="satisfied"),
            ),
            models.UniqueConstraint(fields=("review", "code"), name="checklist_item_once"),
        )

    def __str__(self) -> str:
        return self.code
