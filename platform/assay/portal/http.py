"""Base classes of every screen: sign-in, errors, and pages of a list."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, cast

from django.contrib import messages
from django.contrib.auth.views import redirect_to_login
from django.core.paginator import EmptyPage, Page, PageNotAnInteger, Paginator
from django.db import DatabaseError
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseBase, QueryDict
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.functional import cached_property
from django.views import View
from rest_framework.permissions import SAFE_METHODS

from assay.conflicts import conflict_of
from assay.middleware import principal_of
from assay.portal.second_factor import (
    brings_second_factor,
    second_factor_page,
    second_factor_taken,
)
from assay.server.permits import permit_of
from governance.audit.refusals import attempted, refusal_record
from governance.errors import DomainError, InvalidInput, NotAuthenticated, NotFound
from governance.people.proof import CODE as STEP_UP_REQUIRED
from governance.principals import ANONYMOUS, Principal
from governance.rowsecurity import scope

PAGE_SIZE = 25
# Rows that the pages of a list reach; older ones are found by filters. Counting a million rows, and
# skipping the first of them, takes longer than reading a page.
COUNTED = 2_500

if TYPE_CHECKING:
    _Paginator = Paginator[Any]
else:
    _Paginator = Paginator


class Pages(_Paginator):
    """Pages of the first `COUNTED` rows."""

    @cached_property
    def count(self) -> int:
        return min(self._counted, COUNTED)

    @property
    def total(self) -> str:
        """The count as text, such as `1,204` or `2,500+`."""
        return f"{self.count:,}{'+' if self._counted > COUNTED else ''}"

    @cached_property
    def _counted(self) -> int:
        rows = self.object_list
        if not isinstance(rows, QuerySet):
            return len(rows)
        return rows.order_by()[: COUNTED + 1].count()


def page_of(request: HttpRequest, rows: QuerySet[Any], size: int = PAGE_SIZE) -> Page[Any]:
    """Return the page of `rows` that `?page=` names; the first if it is invalid."""
    paginator = Pages(rows, size)
    try:
        return paginator.page(request.GET.get("page", 1))
    except (PageNotAnInteger, EmptyPage):
        return paginator.page(1)


def number_in(values: Mapping[str, str], name: str) -> int | None:
    """Return the number of an object in a form or an address, or None."""
    text = values.get(name, "")
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= 18 else None


def posted(request: HttpRequest, *names: str) -> QueryDict | None:
    """Return the form that was sent to one of the pages `names`, to show it again; else None.

    A page has several forms, each sent to an address of its own.
    """
    match = request.resolver_match
    sent = request.method == "POST" and match is not None and match.url_name in names
    return request.POST if sent else None


def refusal_page(request: HttpRequest, error: DomainError) -> HttpResponse:
    """Return the page for an error that has no form to return to."""
    template = "portal/errors/404.html" if error.status == 404 else "portal/errors/refused.html"
    return render(request, template, {"error": error}, status=error.status)


class Screen(View):
    """One page. Needs a signed-in person; a `DomainError` becomes a sentence with its status.

    Each request is one transaction, in which row security limits the person to their departments. A
    form that lacks a required second factor gets a page that takes one and sends the form again.
    """

    template_name: ClassVar[str] = ""
    actor: Principal

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        if not request.user.is_authenticated:
            self.actor = ANONYMOUS
            if request.method == "POST":
                self.recorded(NotAuthenticated("You are not signed in."))
            return redirect_to_login(request.get_full_path())
        self.actor = principal_of(request)
        permit = permit_of(request)
        proving = permit is None and brings_second_factor(request)
        try:
            if proving:
                self.actor = self.verified()
                proving = False
            with scope(self.actor, reads=request.method in SAFE_METHODS):
                if permit is not None:
                    self.allow_body(**kwargs)
                    return permit.grant(self.actor)
                return super().dispatch(request, *args, **kwargs)
        except DomainError as error:
            refusal = error
        except DatabaseError as error:
            conflict = conflict_of(error)
            if conflict is None:
                raise
            refusal = conflict
        # Outside `scope`, because a refusal is recorded in its own transaction.
        self.recorded(refusal)
        if proving or (refusal.code == STEP_UP_REQUIRED and request.method == "POST"):
            with scope(self.actor):
                return self.asking(refusal)
        if self.shows(refusal):
            try:
                with scope(self.actor, reads=True):
                    return self.page(status=refusal.status, error=refusal, **kwargs)
            except DomainError as error:
                refusal = error
                self.recorded(refusal)
        with scope(self.actor, reads=True):
            return refusal_page(request, refusal)

    def allow_body(self, *args: Any, **kwargs: Any) -> None:
        """Raise unless the person may send a large form here; called before its body is read.

        Raises:
            DomainError: the error that `act` would raise without reading the form.
        """

    def verified(self) -> Principal:
        """Return the actor with the second factor that came with the form. Raises DomainError."""
        return second_factor_taken(self.request, self.actor)

    def asking(self, refusal: DomainError) -> HttpResponse:
        """Return the page that requests a second factor and carries the typed fields."""
        return second_factor_page(self.request, self.actor, refusal)

    def recorded(self, refusal: DomainError) -> None:
        """Audit a refusal. A POST counts as an attempt, even if it reached no service."""
        method = str(self.request.method)
        if refusal.attempt is None and method == "POST":
            path = self.request.path
            refusal.attempt = attempted(self.actor, surface="portal", method=method, path=path)
        refusal_record(refusal)

    def shows(self, refusal: DomainError) -> bool:
        """True when the page itself shows the refusal, in place of an error page."""
        return False

    def get(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        return self.page(**kwargs)

    def page(
        self, *, status: int = 200, error: DomainError | None = None, **kwargs: Any
    ) -> HttpResponse:
        """Render the screen, with the error of this request, if any."""
        context = self.context(**kwargs)
        context["error"] = error
        return render(self.request, self.template_name, context, status=status)

    def context(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Return the template's context."""
        raise NotImplementedError

    def done(
        self,
        sentence: str,
        to: str,
        *,
        query: Any = None,
        fragment: str | None = None,
        **values: Any,
    ) -> HttpResponse:
        """Redirect to the page `to`, which shows `sentence`."""
        messages.success(self.request, sentence)
        return redirect(reverse(to, kwargs=values, query=query, fragment=fragment))


class ActionScreen(Screen):
    """A page with a form: `act` calls one service; after an error the page is shown again with it.

    Changes that `act` made before the error are rolled back: the request is one transaction.
    """

    acted: DomainError | None = None

    def post(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        if type(self).act is ActionScreen.act:
            # A page whose buttons post to other addresses.
            return self.http_method_not_allowed(request)
        try:
            return self.act(**kwargs)
        except DomainError as error:
            self.acted = error
            raise

    def shows(self, refusal: DomainError) -> bool:
        return refusal is self.acted and not isinstance(refusal, NotFound)

    def act(self, *args: Any, **kwargs: Any) -> HttpResponseBase:
        """Call the service and redirect."""
        raise NotImplementedError


def add_refusal(form: Any, refusal: DomainError | None) -> None:
    """Add the errors of a service to the fields of the submitted form."""
    # An invalid form reached no service and shows its own errors.
    if refusal is not None and form.is_valid():
        for name in refusal.fields.keys() & form.fields.keys():
            form.add_error(name, refusal.fields[name])


def cleaned(form: Any) -> dict[str, Any]:
    """Return a form's cleaned values.

    Raises:
        InvalidInput: with a sentence for each field that is wrong.
    """
    if not form.is_valid():
        fields = {name: [str(e) for e in errors] for name, errors in form.errors.items()}
        raise InvalidInput("The form has errors.", hint="Correct the marked fields.", fields=fields)
    return cast(dict[str, Any], form.cleaned_data)
