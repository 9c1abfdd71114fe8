"""Filters that people keep under a name: their own, and those that others share."""

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

KEPT_MAX = 50
NAME_MAX = 80
SHOWN_MAX = 200
WHOLE_LOG = Resource(type="audit", name="the audit log")


def readable_part(actor: Principal) -> Resource | None:
    """The whole log, or the first department whose part of it the policy lets `actor` read."""
    policy, context = active_policy(), probing_context(Action.AUDIT_VIEW)
    for place in (None, *sorted(actor.departments)):
        part = Resource(type="audit", name="the audit log", department=place)
        if decide(policy, actor, Action.AUDIT_VIEW, part, context).allowed:
            return part
    return None


def audit_filters_visible_to(actor: Principal) -> QuerySet[AuditFilter]:
    """The actor's own; and shared ones, if they may read the whole log. By name."""
    person_id = _keeper(actor)
    mine = Q(person_id=person_id) if person_id is not None else Q(pk__in=[])
    part = readable_part(actor)
    if part is not None and part.department is None:
        mine |= Q(shared=True)
    return AuditFilter.objects.filter(mine).select_related("person").order_by("name", "pk")


def audit_filter_get(*, actor: Principal, filter_id: int) -> AuditFilter:
    """Return a saved filter. Raises NotFound if it does not exist, or the actor may not see it."""
    saved = audit_filters_visible_to(actor).filter(pk=filter_id).first()
    if saved is None:
        raise NotFound(f"Filter {filter_id} does not exist, or you may not see it.")
    return saved


def audit_filter_save(
    *, actor: Principal, name: str, parameters: Mapping[str, Any], shared: bool = False
) -> AuditFilter:
    """Keep a filter of the event list under a name.

    Raises:
        NotFound, NotPermitted: the actor may read no part of the log; or shares without reading all
            of it; or is no person.
        InvalidInput: a name or parameter that cannot be.
        WrongState: there is one of that name, or there are too many.
    """
    with transaction.atomic():
        decision, person_id = _may_keep(actor, shared=shared)
        # One at a time of each person's, so that the bound holds.
        Person.objects.select_for_update().get(pk=person_id)
        own = AuditFilter.objects.filter(person_id=person_id)
        if own.count() >= KEPT_MAX:
            raise WrongState(
                f"You keep {KEPT_MAX} filters; no other one was kept.", hint="Delete one first."
            )
        name = _free_name(own, name)
        kept = AuditFilter.objects.create(
            person_id=person_id,
            name=name,
            parameters=_some(parameters),
            shared=shared,
        )
        _record(actor, "audit_filter:create", kept, decision)
    return kept


def audit_filter_change(
    *,
    actor: Principal,
    filter_id: int,
    name: str | None = None,
    parameters: Mapping[str, Any] | None = None,
    shared: bool | None = None,
) -> AuditFilter:
    """Rename, redefine or share a filter of the actor's own; what is None stays.

    Raises:
        NotFound: there is none, or it is another person's; or as `audit_filter_save`.
        NotPermitted, InvalidInput, WrongState: as `audit_filter_save`.
    """
    with transaction.atomic():
        kept = _own(actor, filter_id)
        # Who reads a part alone by now changes nothing that others are shown, but may take it back.
        decision, person_id = _may_keep(actor, shared=kept.shared if shared is None else shared)
        if name is not None and name.strip() != kept.name:
            others = AuditFilter.objects.filter(person_id=person_id).exclude(pk=kept.pk)
            kept.name = _free_name(others, name)
        if parameters is not None:
            kept.parameters = _some(parameters)
        if shared is not None:
            kept.shared = shared
        kept.save()
        _record(actor, "audit_filter:update", kept, decision)
    return kept


def audit_filter_delete(*, actor: Principal, filter_id: int) -> None:
    """Delete a filter of the actor's own.

    Raises:
        NotFound: there is none, or it is another person's.
    """
    with transaction.atomic():
        kept = _own(actor, filter_id)
        _record(actor, "audit_filter:delete", kept, None)
        kept.delete()


def _keeper(actor: Principal) -> int | None:
    """The person whose filters they are; None for a token that may not view the log."""
    return actor.person_id if scope_allows(actor.scopes, Action.AUDIT_VIEW) else None


def _own(actor: Principal, filter_id: int) -> AuditFilter:
    rows = AuditFilter.objects.select_for_update(of=("self",)).select_related("person")
    person_id = _keeper(actor)
    kept = None if person_id is None else rows.filter(pk=filter_id, person_id=person_id).first()
    if kept is None:
        raise NotFound(f"You have no filter {filter_id}.")
    return kept


def _may_keep(actor: Principal, *, shared: bool) -> tuple[Authorization, int]:
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
            f"You keep a filter called {name} already; nothing was changed.",
            hint="Take another name, or change that one.",
        )
    return name


def _some(parameters: Mapping[str, Any]) -> dict[str, str]:
    kept = parameters_of(parameters)
    if not kept:
        sentence = "A filter without any condition selects everything; it was not kept."
        raise InvalidInput(sentence, fields={"parameters": [sentence]})
    return kept


def _record(
    actor: Principal, action: str, kept: AuditFilter, decision: Authorization | None
) -> None:
    # What is searched for may name people; that stays with the filter.
    audit_record(
        actor=actor,
        action=action,
        subject=Subject("audit_filter", str(kept.pk), kept.name, person=kept.person_id),
        data={"parameters": sorted(kept.parameters), "shared": kept.shared},
        decision=decision,
    )
