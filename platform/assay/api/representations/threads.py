"""Threads of a review, and drafts of comments."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from assay.api.representations.common import PersonReference


class AnchorAnswer(serializers.Serializer[Any]):
    """A place: `general` has no key; `item` a checklist code, `metric` an evaluation's id and a
    name (`12/accuracy`), `card` the slug of a heading, `file` a path, `answer` the name of a risk
    answer, `dossier` the name of a section."""

    kind = serializers.CharField()
    key = serializers.CharField(allow_blank=True)


class ThreadEntryAnswer(serializers.Serializer[Any]):
    """A comment in a thread, or its resolving or reopening, with the dossier it was made on. `text`
    has `@person-12` where it mentions one of `mentions`; `decision` is the one that it was
    submitted with.
    """

    id = serializers.IntegerField()
    said = serializers.CharField()
    text = serializers.CharField(allow_blank=True)
    person = PersonReference()
    mentions = PersonReference(many=True, source="people")
    digest = serializers.CharField()
    round = serializers.IntegerField()
    decision = serializers.IntegerField(source="decision_id", allow_null=True)
    created_at = serializers.DateTimeField()


class ThreadAnswer(serializers.Serializer[Any]):
    """A conversation at one place of the release. While it is open and `blocking`, the release
    cannot be approved. `digest` and `round` are of the dossier that it was begun on; `why_not` is
    what keeps the caller from resolving or reopening it, empty when nothing does."""

    id = serializers.IntegerField()
    anchor = AnchorAnswer()
    state = serializers.CharField()
    blocking = serializers.BooleanField()
    digest = serializers.CharField()
    round = serializers.IntegerField()
    opened_by = PersonReference()
    opened_at = serializers.DateTimeField()
    resolved_by = PersonReference(allow_null=True)
    resolved_at = serializers.DateTimeField(allow_null=True)
    why_not = serializers.CharField(allow_blank=True)
    entries = ThreadEntryAnswer(many=True, source="comments")


class CommentDraftAnswer(serializers.Serializer[Any]):
    """A comment that only the caller sees until they submit it with a decision. It begins a thread
    at `anchor`, or answers in `thread`; `outdated` when the dossier has no such place any more."""

    id = serializers.IntegerField()
    anchor = AnchorAnswer()
    thread = serializers.IntegerField(source="thread_id", allow_null=True)
    text = serializers.CharField()
    blocking = serializers.BooleanField()
    digest = serializers.CharField()
    round = serializers.IntegerField()
    outdated = serializers.BooleanField()
    created_at = serializers.DateTimeField()
    updated_at = serializers.DateTimeField()
