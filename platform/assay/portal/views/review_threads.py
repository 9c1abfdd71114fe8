"""Comments on a review, posted or drafted; replies to threads, which can be resolved."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from django.http import HttpRequest, HttpResponse, HttpResponseBase, JsonResponse

from assay.portal.http import Screen
from assay.portal.reviewing.threads import Place, typed_at
from assay.portal.views.reviews import TABS, ReviewPage, review_find
from governance.errors import InvalidInput
from governance.reviews.threads.drafts import draft_add, draft_discard, draft_edit
from governance.reviews.threads.mentions import mentions_offered
from governance.reviews.threads.services import thread_reopen, thread_reply, thread_resolve
from registry.releases.threads import release_draft_add, release_thread_open

DRAFTED = "Added to your review. Only you see it until you submit it with “Finish review”."


class ThreadScreen(ReviewPage):
    """Base of the forms for threads and drafts."""

    def back(self, sentence: str, fragment: str = "conversation") -> HttpResponse:
        """Redirect to the place of the form, which shows `sentence`."""
        tab = self.request.POST.get("tab", "")
        query = {"tab": tab} if tab in dict(TABS) else None
        return self.done(
            sentence, "portal:review", id=self.kwargs["id"], query=query, fragment=fragment
        )

    def text(self) -> str:
        return self.request.POST.get("text", "")

    def unknown(self) -> InvalidInput:
        return InvalidInput(
            "The form does not say what to do; nothing was done.",
            fields={"do": ["is not a button of this form"]},
        )


class People(Screen):
    """People whom a comment on the review may mention, for the text box that completes `@an`."""

    def get(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        review = review_find(self, kwargs["id"])
        offers = mentions_offered(self.actor, review, request.GET.get("q", ""))
        answer = JsonResponse({"people": [asdict(offer) for offer in offers]})
        answer["Cache-Control"] = "no-store"
        return answer


class Comment(ThreadScreen):
    """Start a thread at a place, or draft its first comment."""

    def act(self, *, id: int, **kwargs: Any) -> HttpResponse:  # noqa: A002
        review = review_find(self, id)
        post = self.request.POST
        anchor = typed_at(post)
        arguments: dict[str, Any] = {
            "actor": self.actor,
            "release_id": int(review.subject_id),
            "anchor": anchor,
            "text": self.text(),
            # Without a checkbox the service decides; an unchecked box does not block.
            "blocking": post.get("blocking") == "yes" if "may_block" in post else None,
        }
        match post.get("do"):
            case "draft":
                release_draft_add(**arguments)
                return self.back(DRAFTED, Place(anchor, "").id)
            case "comment":
                entry = release_thread_open(**arguments)
                return self.back(
                    "Comment added. The audit log records it under your name.",
                    f"thread-{entry.thread_id}",
                )
        raise self.unknown()


class Thread(ThreadScreen):
    """Reply to a thread or draft a reply; resolve or reopen it."""

    def act(self, *, id: int, thread_id: int, **kwargs: Any) -> HttpResponse:  # noqa: A002
        review = review_find(self, id)
        arguments: dict[str, Any] = {
            "actor": self.actor,
            "review_id": review.pk,
            "thread_id": thread_id,
        }
        sentence = {"draft": DRAFTED, "comment": "Answered.", "resolve": "Resolved."}
        match self.request.POST.get("do"):
            case "draft":
                draft_add(text=self.text(), **arguments)
            case "comment":
                thread_reply(text=self.text(), **arguments)
            case "resolve":
                thread_resolve(text=self.text(), **arguments)
            case "reopen":
                thread_reopen(text=self.text(), **arguments)
            case _:
                raise self.unknown()
        return self.back(sentence.get(self.request.POST["do"], "Reopened."), f"thread-{thread_id}")


class Draft(ThreadScreen):
    """Edit or discard one of the person's own drafts."""

    def act(self, *, id: int, draft_id: int, **kwargs: Any) -> HttpResponse:  # noqa: A002
        review = review_find(self, id)
        arguments: dict[str, Any] = {
            "actor": self.actor,
            "review_id": review.pk,
            "draft_id": draft_id,
        }
        post = self.request.POST
        match post.get("do"):
            case "save":
                blocking = post.get("blocking") == "yes" if "may_block" in post else None
                draft_edit(text=self.text(), blocking=blocking, **arguments)
                return self.back("The draft is changed.", "decision")
            case "discard":
                draft_discard(**arguments)
                return self.back("The draft is discarded.", "decision")
        raise self.unknown()
