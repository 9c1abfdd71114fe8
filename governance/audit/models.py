"""Tables of the transparency log: events, signed checkpoints, and subtree roots for proofs."""

from __future__ import annotations

from django.db import models
from django.db.models import Q

from governance.bounds import DEPARTMENT_MAX, REQUEST_ID_MAX


class AuditEvent(models.Model):
    """An append-only record, inserted in the transaction of the change that it records.

    `canonical` holds the exact bytes that `leaf_hash` was computed over; other columns repeat their
    content for search. It is empty for old events whose bytes are in the second place: read it by
    `outside.bodies.canonical_of`. `sequence` is the leaf's index in the Merkle tree (0-based,
    without gaps); the sealer sets it, null before. A database trigger forbids every other UPDATE,
    every DELETE and TRUNCATE. `delivery` is the request ID of an event from the usage stream,
    otherwise empty: an event that is delivered twice is recorded once.
    """

    sequence = models.BigIntegerField(null=True, blank=True)
    occurred_at = models.DateTimeField()
    actor_kind = models.CharField(max_length=12)
    actor_id = models.CharField(max_length=64)
    actor_name = models.CharField(max_length=200)
    department = models.CharField(max_length=DEPARTMENT_MAX, blank=True)
    action = models.CharField(max_length=60)
    outcome = models.CharField(max_length=12)
    subject_type = models.CharField(max_length=40)
    subject_id = models.CharField(max_length=80)
    subject_name = models.CharField(max_length=200)
    reason = models.CharField(max_length=2000, blank=True)
    request_id = models.CharField(max_length=REQUEST_ID_MAX, blank=True)
    policy_version = models.PositiveIntegerField(null=True, blank=True)
    delivery = models.CharField(max_length=64, blank=True, default="")
    canonical = models.BinaryField()
    leaf_hash = models.BinaryField(max_length=32)

    class Meta:
        ordering = ("-id",)
        constraints = (
            models.UniqueConstraint(
                fields=("delivery",), condition=~Q(delivery=""), name="delivered_event_counts_once"
            ),
            models.UniqueConstraint(fields=("sequence",), name="one_event_per_sequence_number"),
            models.CheckConstraint(
                name="sequence_is_not_negative",
                condition=Q(sequence__isnull=True) | Q(sequence__gte=0),
            ),
        )
        indexes = (
            models.Index(
                fields=("id",), condition=Q(sequence__isnull=True), name="audit_unsealed_events"
            ),
            models.Index(fields=("department", "-id"), name="audit_by_department"),
            models.Index(fields=("subject_type", "subject_id", "-id"), name="audit_by_subject"),
            models.Index(fields=("actor_kind", "actor_id", "-id"), name="audit_by_actor"),
            models.Index(fields=("action", "-id"), name="audit_by_action"),
            # Partial, to stay small: most events are allowed, and most requests are deliveries.
            models.Index(
                fields=("outcome", "-id"), condition=~Q(outcome="allowed"), name="audit_by_outcome"
            ),
            models.Index(
                fields=("request_id", "-id"),
                condition=~Q(request_id="") & Q(delivery=""),
                name="audit_by_request",
            ),
        )

    def __str__(self) -> str:
        return f"{self.action} {self.subject_type} {self.subject_id}"


class AuditOffload(models.Model):
    """Progress of moving bodies of old events to the second place, in one row: those of the first
    `size` events have left the database. `error` is why the last attempt failed, or empty."""

    size = models.BigIntegerField(default=0)
    error = models.CharField(max_length=500, blank=True, default="")
    tried_at = models.DateTimeField(auto_now=True)

    def __str__(self) -> str:
        return f"{self.size} events"


class AuditPersonKey(models.Model):
    """The key that encrypts a person's personal data in the log.

    A database trigger creates it with the person. Its only change is to null: that erases the
    person from the log without changing a hash.
    """

    person = models.OneToOneField(
        "governance.Person", on_delete=models.PROTECT, primary_key=True, related_name="+"
    )
    key = models.BinaryField(max_length=32, null=True)
    erased_at = models.DateTimeField(null=True)

    class Meta:
        constraints = (
            models.CheckConstraint(
                name="a_person_has_a_key_or_is_erased",
                condition=Q(key__isnull=False, erased_at__isnull=True)
                | Q(key__isnull=True, erased_at__isnull=False),
            ),
        )

    def __str__(self) -> str:
        return f"key of person {self.person_id}"


class AuditCheckpoint(models.Model):
    """A signed tree head: `note` is the C2SP checkpoint as published.

    `frontier` is the concatenation of the 32-byte roots of the tree's perfect subtrees, largest
    first; the sealer needs it to append.
    """

    tree_size = models.BigIntegerField(unique=True)
    root_hash = models.BinaryField(max_length=32)
    frontier = models.BinaryField()
    note = models.TextField()
    created_at = models.DateTimeField(auto_now_add=True)
    published_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ("-tree_size",)
        indexes = (
            models.Index(
                fields=("tree_size",),
                condition=Q(published_at__isnull=True),
                name="audit_unpublished_heads",
            ),
        )

    def __str__(self) -> str:
        return f"checkpoint {self.tree_size}"


class AuditCosignature(models.Model):
    """A witness's verified signature of a checkpoint, as a line of a note.

    `witness` is the witness's name with the ID of its key, `cosigned_at` the signed time.
    """

    checkpoint = models.ForeignKey(
        AuditCheckpoint, on_delete=models.PROTECT, related_name="cosignatures"
    )
    witness = models.CharField(max_length=200)
    line = models.CharField(max_length=500)
    cosigned_at = models.DateTimeField()
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ("witness",)
        constraints = (
            models.UniqueConstraint(
                fields=("checkpoint", "witness"), name="one_cosignature_per_witness_and_head"
            ),
        )

    def __str__(self) -> str:
        return f"{self.witness} under checkpoint {self.checkpoint_id}"


class AuditKeeper(models.Model):
    """A keeper of checkpoints outside this installation, with the result of the last contact.

    `size` is the largest tree that the keeper is known to have. `fault` is the error of the last
    contact, or empty; `contradicts` is True if the keeper's history differs from the database's.
    """

    class Kind(models.TextChoices):
        """Kind of keeper."""

        PLACE = "place"
        WITNESS = "witness"

    key = models.CharField(max_length=500, primary_key=True)
    kind = models.CharField(max_length=10, choices=Kind.choices)
    size = models.BigIntegerField(default=0)
    fault = models.CharField(max_length=500, blank=True)
    contradicts = models.BooleanField(default=False)
    tried_at = models.DateTimeField()
    reached_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ("kind", "key")

    def __str__(self) -> str:
        return f"{self.kind} {self.key}"


class AuditAlarm(models.Model):
    """A raised alarm; the row is deleted when it clears. Both are audit events."""

    name = models.CharField(max_length=60, primary_key=True)
    title = models.CharField(max_length=100)
    critical = models.BooleanField()
    message = models.CharField(max_length=1000)
    raised_at = models.DateTimeField()

    class Meta:
        ordering = ("-critical", "raised_at")

    def __str__(self) -> str:
        return self.name


class AuditSubtree(models.Model):
    """The root over events `256 * index` to `256 * index + 255`; proofs read it instead of leaves.

    Derived from the leaf hashes, but not trusted: each proof is checked before it is returned.
    """

    index = models.BigIntegerField(primary_key=True)
    root_hash = models.BinaryField(max_length=32)

    def __str__(self) -> str:
        return f"subtree {self.index}"
