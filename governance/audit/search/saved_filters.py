"""Saved filters: a person's own, and those that others share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.db import transaction
from django.db.models import Q, QuerySet

from governance.audit.search.models import AuditFilter
from governance.audit.search.parameters import parameters_of
from governance.audit.services import Attempt, Subject, audit_record
from governance.errors import InvalidInput, NotFound, NotPermitted, WrongState
from governance.people.models import Person
from governance.permissions import Action
from governance.policy.context import probing_context
from governance.policy.decisions import Authorization
from governance.policy.engine import Resource, decide, scope_allows
from governance.policy.services import active_policy, authorize
from governance.principals import Principal

SAVED_FILTERS_MAX = 50
NAME_MAX = 80
SHOWN_MAX = 200
WHOLE_LOG = Resource(type="audit", name="the audit log")


def readable_part(actor: Principal) -> Resource | None:
    """Return the whole log, or the first department's part that the policy lets `actor` read."""
    policy, context = active_policy(), probing_context(Action.AUDIT_VIEW)
    for place in (None, *sorted(actor.departments)):
        part = Resource(type="audit", name="the audit log", department=place)
        if decide(policy, actor, Action.AUDIT_VIEW, part, context).allowed:
            return part
    return None


def audit_filters_visible_to(actor: Principal) -> QuerySet[AuditFilter]:
    """Return the actor's own filters by name, and shared ones if they may read the whole log."""
    person_id = _owner_id(actor)
    visible = Q(person_id=person_id) if person_id is not None else Q(pk__in=[])
    part = readable_part(actor)
    if part is not None and part.department is None:
        visible |= Q(shared=True)
    return AuditFilter.objects.filter(visible).select_related("person").order_by("name", "pk")


def audit_filter_get(*, actor: Principal, filter_id: int) -> AuditFilter:
    """Return a saved filter. Raises NotFound if it does not exist, or the actor may not see it."""
    saved = audit_filters_visible_to(actor).filter(pk=filter_id).first()
    if saved is None:
        raise NotFound(f"Filter {filter_id} does not exist, or you may not see it.")
    return saved


def audit_filter_save(
    *, actor: Principal, name: str, parameters: Mapping[str, Any], shared: bool = False
) -> AuditFilter:
    """Save a filter of the event list under a name.

    Raises:
        NotFound, NotPermitted: the actor may not read any part of the log; may not read all of it
            but shares the filter; or is not a person.
        InvalidInput: invalid name or parameter.
        WrongState: the person has a filter with that name, or too many.
    """
    with transaction.atomic():
        decision, person_id = _authorize(actor, shared=shared)
        # Serializes each person's changes, so that the limit holds.
        Person.objects.select_for_update().get(pk=person_id)
        own = AuditFilter.objects.filter(person_id=person_id)
        if own.count() >= SAVED_FILTERS_MAX:
            raise WrongState(
                f"You have {SAVED_FILTERS_MAX} filters; this one was not saved.",
                hint="Delete one first.",
            )
        name = _free_name(own, name)
        saved = AuditFilter.objects.create(
            person_id=person_id,
            name=name,
            parameters=_checked(parameters),
            shared=shared,
        )
        _record(actor, "audit_filter:create", saved, decision)
    return saved


def audit_filter_change(
    *,
    actor: Principal,
    filter_id: int,
    name: str | None = None,
    parameters: Mapping[str, Any] | None = None,
    shared: bool | None = None,
) -> AuditFilter:
    """Rename, redefine or share one of the actor's filters; None leaves a value unchanged.

    Raises:
        NotFound: the actor has no such filter; or as `audit_filter_save`.
        NotPermitted, InvalidInput, WrongState: as `audit_filter_save`.
    """
    with transaction.atomic():
        saved = _own(actor, filter_id)
        # A person who has lost access to the whole log may not change a shared filter, but may stop
        # sharing it.
        decision, person_id = _authorize(actor, shared=saved.shared if shared is None else shared)
        if name is not None and name.strip() != saved.name:
            others = AuditFilter.objects.filter(person_id=person_id).exclude(pk=saved.pk)
            saved.name = _free_name(others, name)
        if parameters is not None:
            saved.parameters = _checked(parameters)
        if shared is not None:
            saved.shared = shared
        saved.save()
        _record(actor, "audit_filter:update", saved, decision)
    return saved


def audit_filter_delete(*, actor: Principal, filter_id: int) -> None:
    """Delete one of the actor's filters.

    Raises:
        NotFound: the actor has no such filter.
    """
    with transaction.atomic():
        saved = _own(actor, filter_id)
        _record(actor, "audit_filter:delete", saved, None)
        saved.delete()


def _owner_id(actor: Principal) -> int | None:
    """Return the ID of the acting person; None for a token that may not view the log."""
    return actor.person_id if scope_allows(actor.scopes, Action.AUDIT_VIEW) else None


def _own(actor: Principal, filter_id: int) -> AuditFilter:
    rows = AuditFilter.objects.select_for_update(of=("self",)).select_related("person")
    person_id = _owner_id(actor)
    saved = None if person_id is None else rows.filter(pk=filter_id, person_id=person_id).first()
    if saved is None:
        raise NotFound(f"You have no filter {filter_id}.")
    return saved


def _authorize(actor: Principal, *, shared: bool) -> tuple[Authorization, int]:
    part = None if shared else readable_part(actor)
    decision = authorize(actor=actor, action=Action.AUDIT_VIEW, resource=part or WHOLE_LOG)
    if actor.person_id is None:
        raise NotPermitted(
            f"{actor.name} is not a person; only people can save filters.",
            hint="Sign in, or use a personal access token.",
            attempt=Attempt(
                actor=actor,
                action="audit_filter:create",
                subject=Subject("audit_filter", "", ""),
                decision=decision,
            ),
        )
    return decision, actor.person_id


def _free_name(others: QuerySet[AuditFilter], name: str) -> str:
    name = " ".join(name.split())
    if not name or len(name) > NAME_MAX or not name.isprintable():
        sentence = f"A filter has a name of 1 to {NAME_MAX} characters."
        raise InvalidInput(sentence, fields={"name": [sentence]})
    if others.filter(name=name).exists():
        raise WrongState(
            f"You already have a filter called {name}; nothing was changed.",
            hint="Choose another name, or change that filter.",
        )
    return name


def _checked(parameters: Mapping[str, Any]) -> dict[str, str]:
    conditions = parameters_of(parameters)
    if not conditions:
        sentence = "A filter without any condition selects everything; it was not saved."
        raise InvalidInput(sentence, fields={"parameters": [sentence]})
    return conditions


def _record(
    actor: Principal, action: str, saved: AuditFilter, decision: Authorization | None
) -> None:
    # Values may name people, so only the names of the parameters are recorded.
    audit_record(
        actor=actor,
        action=action,
        subject=Subject("audit_filter", str(saved.pk), saved.name, person=saved.person_id),
        data={"parameters": sorted(saved.parameters), "shared": saved.shared},
        decision=decision,
    )
