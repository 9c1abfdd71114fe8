"""Review of a release: threads, the caller's drafts of comments, and assignees."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from assay.api.documentation import operation
from assay.api.endpoint import Endpoint
from assay.api.idempotency import idempotent
from assay.api.representations.common import PersonReference
from assay.api.representations.releases import ReleaseDetail
from assay.api.routes import Routes
from assay.api.views.releases import release_detail
from governance.principals import Principal
from governance.reviews.assignments.services import review_assign, review_unassign
from governance.reviews.models import Review
from governance.reviews.threads.drafts import draft_discard, draft_edit
from governance.reviews.threads.models import Anchor, CommentDraft, ReviewThread
from governance.reviews.threads.schemas import (
    CommentDraftChange,
    NewAssignee,
    NewCommentDraft,
    NewThread,
    ThreadFilter,
    ThreadNote,
    ThreadReply,
)
from governance.reviews.threads.selectors import drafts_of, thread_get, threads_of, voice_of
from governance.reviews.threads.services import thread_reopen, thread_reply, thread_resolve
from governance.schemas import Schema
from registry.releases.anchors import places_of
from registry.releases.models import Release
from registry.releases.selectors import release_get
from registry.releases.threads import release_draft_add, release_review_get, release_thread_open


class AnchorAnswer(serializers.Serializer[Any]):
    """A place in the release. The key of `general` is empty; of `item` it is a checklist code, of
    `metric` an evaluation's ID and a name (`12/accuracy`), of `card` the slug of a heading, of
    `file` a path, of `answer` the name of a risk answer, of `dossier` the name of a section."""

    kind = serializers.CharField()
    key = serializers.CharField(allow_blank=True)


class ThreadEntryAnswer(serializers.Serializer[Any]):
    """A comment in a thread, or its resolution or reopening, with the digest of the dossier at that
    time. `text` has `@person-12` where it mentions one of `mentions`; `decision` is the decision
    that it was submitted with.
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
    """A thread at one place of the release. While it is open and `blocking`, the release cannot be
    approved. `digest` and `round` are those of its beginning; `why_not` is the reason why the
    caller cannot resolve or reopen it, empty if they can."""

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
    """A comment that only the caller sees until they submit it with a decision. It starts a thread
    at `anchor`, or replies in `thread`. `outdated`: the dossier no longer has this place."""

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


def _anchored(body: NewThread) -> dict[str, Any]:
    """Return the fields that are set, with the place as an `Anchor`."""
    values = {name: value for name, value in dict(body).items() if value is not None}
    if body.anchor is not None:
        values["anchor"] = Anchor(body.anchor.kind, body.anchor.key)
    return values


class ThreadEndpoint(Endpoint):
    """Base of the views of threads."""

    def review(self, release_id: int) -> Review:
        return release_review_get(actor=self.actor, release_id=release_id)

    def with_obstacles(self, review: Review) -> Callable[[Iterable[Any]], list[ReviewThread]]:
        """Return a function that adds to threads why the caller cannot resolve them."""
        voice = voice_of(self.actor, review)

        def complete(threads: Iterable[Any]) -> list[ReviewThread]:
            rows = list(threads)
            for row in rows:
                obstacle = voice.resolving(row)
                row.why_not = obstacle.message if obstacle else ""
            return rows

        return complete

    def thread(self, release_id: int, thread_id: int, *, status: int = 200) -> Response:
        review = self.review(release_id)
        (thread,) = self.with_obstacles(review)([thread_get(review, thread_id)])
        return self.answer(thread, ThreadAnswer, status=status)

    def drafts(
        self, release_id: int, review: Review
    ) -> Callable[[Iterable[Any]], list[CommentDraft]]:
        """Return a function that marks drafts whose place no longer exists."""
        places = places_of(release_get(actor=self.actor, id=release_id), review)

        def complete(drafts: Iterable[Any]) -> list[CommentDraft]:
            rows = list(drafts)
            for row in rows:
                row.outdated = row.anchor not in places
            return rows

        return complete


class ThreadsView(ThreadEndpoint):
    """Threads of one release."""

    @operation(
        "Reviews",
        "List the threads of a release's review, newest first",
        query=ThreadFilter,
        answer=ThreadAnswer,
        paged=True,
    )
    def get(self, request: Request, release_id: int) -> Response:
        query, review = self.query_as(ThreadFilter), self.review(release_id)
        threads = query.applied(threads_of(review))
        return self.page(threads, ThreadAnswer, prepared=self.with_obstacles(review))

    @operation(
        "Reviews",
        "Start a thread at a place in the release",
        body=NewThread,
        answer=ThreadAnswer,
        status=201,
    )
    @idempotent
    def post(self, request: Request, release_id: int) -> Response:
        values = _anchored(self.body_as(NewThread))
        comment = release_thread_open(actor=self.actor, release_id=release_id, **values)
        return self.thread(release_id, comment.thread_id, status=201)


class ThreadView(ThreadEndpoint):
    """One thread."""

    @operation("Reviews", "One thread with its comments", answer=ThreadAnswer)
    def get(self, request: Request, release_id: int, thread_id: int) -> Response:
        self.query_as(Schema)
        return self.thread(release_id, thread_id)


class ThreadCommentsView(ThreadEndpoint):
    """Replies in a thread."""

    @operation("Reviews", "Reply in a thread", body=ThreadReply, answer=ThreadAnswer, status=201)
    @idempotent
    def post(self, request: Request, release_id: int, thread_id: int) -> Response:
        text, review = self.body_as(ThreadReply).text, self.review(release_id)
        thread_reply(actor=self.actor, review_id=review.pk, thread_id=thread_id, text=text)
        return self.thread(release_id, thread_id, status=201)


class ThreadResolveView(ThreadEndpoint):
    """Resolution of a thread."""

    @operation(
        "Reviews",
        "Resolve a thread, as the person who started it or as another reviewer",
        body=ThreadNote,
        answer=ThreadAnswer,
    )
    @idempotent
    def post(self, request: Request, release_id: int, thread_id: int) -> Response:
        text, review = self.body_as(ThreadNote).text, self.review(release_id)
        thread_resolve(actor=self.actor, review_id=review.pk, thread_id=thread_id, text=text)
        return self.thread(release_id, thread_id)


class ThreadReopenView(ThreadEndpoint):
    """Reopening of a thread."""

    @operation("Reviews", "Reopen a thread", body=ThreadNote, answer=ThreadAnswer)
    @idempotent
    def post(self, request: Request, release_id: int, thread_id: int) -> Response:
        text, review = self.body_as(ThreadNote).text, self.review(release_id)
        thread_reopen(actor=self.actor, review_id=review.pk, thread_id=thread_id, text=text)
        return self.thread(release_id, thread_id)


class DraftsView(ThreadEndpoint):
    """The caller's drafts of comments."""

    @operation(
        "Reviews",
        "List your drafts of comments, newest first",
        answer=CommentDraftAnswer,
        paged=True,
    )
    def get(self, request: Request, release_id: int) -> Response:
        self.query_as(Schema)
        review = self.review(release_id)
        drafts = drafts_of(self.actor, review)
        return self.page(drafts, CommentDraftAnswer, prepared=self.drafts(release_id, review))

    @operation(
        "Reviews",
        "Draft a comment, to be submitted with your decision",
        body=NewCommentDraft,
        answer=CommentDraftAnswer,
        status=201,
    )
    @idempotent
    def post(self, request: Request, release_id: int) -> Response:
        values = _anchored(self.body_as(NewCommentDraft))
        values["thread_id"] = values.pop("thread", None)
        added = release_draft_add(actor=self.actor, release_id=release_id, **values)
        (draft,) = self.drafts(release_id, self.review(release_id))([added])
        return self.answer(draft, CommentDraftAnswer, status=201)


class DraftView(ThreadEndpoint):
    """One of the caller's drafts of comments."""

    @operation(
        "Reviews", "Change a draft of your own", body=CommentDraftChange, answer=CommentDraftAnswer
    )
    def patch(self, request: Request, release_id: int, draft_id: int) -> Response:
        values = self.body_as(CommentDraftChange).model_dump(exclude_unset=True)
        review = self.review(release_id)
        changed = draft_edit(actor=self.actor, review_id=review.pk, draft_id=draft_id, **values)
        (draft,) = self.drafts(release_id, review)([changed])
        return self.answer(draft, CommentDraftAnswer)

    @operation("Reviews", "Discard a draft of your own", answer=None, status=204)
    def delete(self, request: Request, release_id: int, draft_id: int) -> Response:
        review = self.review(release_id)
        draft_discard(actor=self.actor, review_id=review.pk, draft_id=draft_id)
        return Response(status=204)


assignees = Routes("Reviews", ReleaseDetail)


@assignees.create(
    "releases/<id:release_id>/assignees",
    "Assign a release's review to a person who could decide on it",
    name="assignees_post",
    judged=True,
)
def assign(actor: Principal, release_id: int, body: NewAssignee) -> Release:
    review = release_review_get(actor=actor, release_id=release_id)
    review_assign(actor=actor, review_id=review.pk, person_id=body.person)
    return release_detail(actor, release_id)


@assignees.delete(
    "releases/<id:release_id>/assignees/<id:person_id>",
    "Unassign a person from a release's review",
    name="assignee_delete",
)
def unassign(actor: Principal, release_id: int, person_id: int) -> None:
    review = release_review_get(actor=actor, release_id=release_id)
    review_unassign(actor=actor, review_id=review.pk, person_id=person_id)
