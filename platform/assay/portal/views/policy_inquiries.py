"""Asking the policy: why is this denied, and who can use this?"""

from __future__ import annotations

from typing import Any

from assay.portal.access import may
from assay.portal.forms.policy import AskForm, WhyForm
from assay.portal.http import Screen
from assay.portal.words import described
from assay.resources import resource_named
from governance.errors import DomainError, InvalidInput
from governance.people.selectors import people_visible_to
from governance.permissions import Action
from governance.policy.cases import CasePrincipal, CaseResource, parse_attributes
from governance.policy.decisions import Inputs
from governance.policy.document import lines_from_text
from governance.policy.engine import Resource
from governance.policy.inquiries import (
    decision_explain,
    event_explain,
    principal_asked_about,
    who_can,
)
from governance.policy.services import authorize
from governance.principals import Principal

PEOPLE_OFFERED = 500
OTHERS = ("other_actors", "other_resources")


def parted(explanation: Any) -> dict[str, Any]:
    """Split an explanation's rules into those that apply and those that apply to others."""
    about = [trace for trace in explanation.rules if trace.verdict not in OTHERS]
    others = [trace for trace in explanation.rules if trace.verdict in OTHERS]
    return {"said": explanation, "about": about, "others": others}


def described_resource(actor: Principal, given: dict[str, Any]) -> Resource:
    """Return the resource of the question: looked up by its name, or as described.

    Raises:
        InvalidInput: it is both, or neither can be.
        NotFound: there is none of that name that the actor may see.
    """
    attributes = parse_attributes(lines_from_text(given["attributes"]))
    if not given["reference"]:
        try:
            case = CaseResource(
                type=given["type"], department=given["department"] or None, attributes=attributes
            )
        except ValueError as error:
            raise InvalidInput(
                "The thing is not described as one can be: it has at most 40 attributes.",
                fields={"attributes": ["are too many"]},
            ) from error
        return case.resource()
    if attributes or given["department"]:
        raise InvalidInput(
            "Name a thing, or describe it: one of the two.",
            fields={"reference": ["Leave it empty to describe a thing."]},
        )
    return resource_named(actor, given["type"], given["reference"].strip())


class Ask(Screen):
    """A question as a form sent by GET, so that an answer has an address."""

    def context(self, **kwargs: Any) -> dict[str, Any]:
        authorize(actor=self.actor, action=Action.POLICY_EXPLAIN, resource=Resource("policy"))
        asked = bool(self.request.GET)
        form = self.form(self.request.GET if asked else None)
        shown: dict[str, Any] = {"form": form, "asked": asked, "refusal": None}
        if asked and form.is_valid():
            try:
                shown |= self.answer(form.cleaned_data)
            except DomainError as error:
                shown["refusal"] = error
        return shown

    def form(self, data: Any) -> AskForm:
        """The question."""
        return AskForm(data)

    def answer(self, given: dict[str, Any]) -> dict[str, Any]:
        """Return the answer for the template."""
        raise NotImplementedError


class WhoCan(Ask):
    """Everybody who may do something."""

    template_name = "portal/policy/who.html"

    def answer(self, given: dict[str, Any]) -> dict[str, Any]:
        resource = described_resource(self.actor, given)
        holders = who_can(
            actor=self.actor,
            action=Action(given["action"]),
            resource=resource,
            context=parse_attributes(lines_from_text(given["context"])),
            number=given["policy"],
        )
        return {"holders": holders, "resource": resource}


class Why(Ask):
    """Explain, rule by rule, why a person or key may or may not do something."""

    template_name = "portal/policy/why.html"

    def form(self, data: Any) -> AskForm:
        people = people_visible_to(self.actor).order_by("name").values_list("pk", "name")
        return WhyForm(data, people=list(people[:PEOPLE_OFFERED]))

    def answer(self, given: dict[str, Any]) -> dict[str, Any]:
        asked = Inputs(
            self.principal(given),
            given["action"],
            described_resource(self.actor, given),
            parse_attributes(lines_from_text(given["context"])),
        )
        found = decision_explain(actor=self.actor, asked=asked, number=given["policy"])
        return {"said": found, "answer_part": parted(found)}

    def principal(self, given: dict[str, Any]) -> Principal:
        """Return the principal of the question.

        Raises:
            InvalidInput: none of the three is given, or more than one.
        """
        named = [name for name in ("person", "key", "roles") if given[name]]
        if len(named) != 1:
            raise InvalidInput("Choose a person, or name a key, or say roles: one of the three.")
        if not given["roles"]:
            return principal_asked_about(
                actor=self.actor, person_id=given["person"], key_id=given["key"]
            )
        roles = [role.strip() for role in given["roles"].split(",") if role.strip()]
        try:
            return CasePrincipal(roles=roles).principal()
        except ValueError as error:
            raise InvalidInput(
                f"{given['roles'][:80]!r} are no roles.",
                hint="Write admin, operator, auditor, reviewer:security or lead@clinical.",
            ) from error


class WhyEvent(Screen):
    """Explanation of the decision that an audit event records, and of today's decision."""

    template_name = "portal/policy/why_event.html"

    def context(self, *, id: int, **kwargs: Any) -> dict[str, Any]:  # noqa: A002
        found = event_explain(actor=self.actor, event_id=id)
        return {
            "event": found.event,
            "told": described(found.event),
            "recorded": found.recorded,
            "decisive": found.rules,
            "then": parted(found.then) if found.then else None,
            "now": parted(found.now),
            "may_draft": may(self.actor, Action.POLICY_DRAFT, kind="policy"),
        }
