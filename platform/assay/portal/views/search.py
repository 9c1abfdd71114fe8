"""Search over everything that the person may see: for the command palette, and as a page."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from django.http import HttpRequest, HttpResponseBase, JsonResponse

from assay.portal.http import Screen
from assay.portal.palette import palette
from assay.portal.synonyms import QUERY_MAX, meanings


class Search(Screen):
    """The search page, which works without scripts."""

    template_name = "portal/search.html"

    def context(self, **kwargs: Any) -> dict[str, Any]:
        typed = self.request.GET.get("q", "").replace("\x00", "")[:QUERY_MAX]
        return {"typed": typed, "found": palette(self.actor, typed), "query_max": QUERY_MAX}


class SearchResults(Screen):
    """The same results as JSON, for the palette. It matches the actions of the open page against
    `meanings`."""

    def get(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        text = request.GET.get("q", "")
        results = [asdict(each) for each in palette(self.actor, text)]
        answer = JsonResponse({"results": results, "meanings": meanings(text)})
        answer["Cache-Control"] = "no-store"
        return answer
