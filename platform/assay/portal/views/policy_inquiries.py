"""Questions to the policy: why is an action denied, and who may do it?"""

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
    question_principal,
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


def described_resource(actor: Principal, values: dict[str, Any]) -> Resource:
    """Return the resource of the question: looked up by name, or as described.

    Raises:
        InvalidInput: it is named and described, or the description is invalid.
        NotFound: the name does not exist, or the actor may not see it.
    """
    attributes = parse_attributes(lines_from_text(values["attributes"]))
    if not values["reference"]:
        try:
            case = CaseResource(
                type=values["type"], department=values["department"] or None, attributes=attributes
            )
        except ValueError as error:
            raise InvalidInput(
                "The description is invalid: a resource has at most 40 attributes.",
                fields={"attributes": ["are too many"]},
            ) from error
        return case.resource()
    if attributes or values["department"]:
        raise InvalidInput(
            "Name the resource or describe it, not both.",
            fields={"reference": ["Leave it empty to describe a resource."]},
        )
    return resource_named(actor, values["type"], values["reference"].strip())


class Ask(Screen):
    """A question as a form sent by GET, so that each answer has an address."""

    def context(self, **kwargs: Any) -> dict[str, Any]:
        authorize(actor=self.actor, action=Action.POLICY_EXPLAIN, resource=Resource("policy"))
        submitted = bool(self.request.GET)
        form = self.form(self.request.GET if submitted else None)
        context: dict[str, Any] = {"form": form, "asked": submitted, "refusal": None}
        if submitted and form.is_valid():
            try:
                context |= self.answer(form.cleaned_data)
            except DomainError as error:
                context["refusal"] = error
        return context

    def form(self, data: Any) -> AskForm:
        """Return the form of the question."""
        return AskForm(data)

    def answer(self, values: dict[str, Any]) -> dict[str, Any]:
        """Return the answer for the template."""
        raise NotImplementedError


class WhoCan(Ask):
    """Everyone who may do an action."""

    template_name = "portal/policy/who.html"

    def answer(self, values: dict[str, Any]) -> dict[str, Any]:
        resource = described_resource(self.actor, values)
        holders = who_can(
            actor=self.actor,
            action=Action(values["action"]),
            resource=resource,
            context=parse_attributes(lines_from_text(values["context"])),
            number=values["policy"],
        )
        return {"holders": holders, "resource": resource}


class Why(Ask):
    """Explain, rule by rule, why a person or key may or may not do something."""

    template_name = "portal/policy/why.html"

    def form(self, data: Any) -> AskForm:
        people = people_visible_to(self.actor).order_by("name").values_list("pk", "name")
        return WhyForm(data, people=list(people[:PEOPLE_OFFERED]))

    def answer(self, values: dict[str, Any]) -> dict[str, Any]:
        question = Inputs(
            self.principal(values),
            values["action"],
            described_resource(self.actor, values),
            parse_attributes(lines_from_text(values["context"])),
        )
        explanation = decision_explain(actor=self.actor, inputs=question, number=values["policy"])
        return {"said": explanation, "answer_part": parted(explanation)}

    def principal(self, values: dict[str, Any]) -> Principal:
        """Return the principal of the question.

        Raises:
            InvalidInput: none of the three is given, or more than one.
        """
        callers = [name for name in ("person", "key", "roles") if values[name]]
        if len(callers) != 1:
            raise InvalidInput("Choose exactly one: a person, a key, or roles.")
        if not values["roles"]:
            return question_principal(
                actor=self.actor, person_id=values["person"], key_id=values["key"]
            )
        roles = [role.strip() for role in values["roles"].split(",") if role.strip()]
        try:
            return CasePrincipal(roles=roles).principal()
        except ValueError as error:
            raise InvalidInput(
                f"{values['roles'][:80]!r} are not roles.",
                hint="Write admin, operator, auditor, reviewer:security or lead@clinical.",
            ) from error


class WhyEvent(Screen):
    """Explanation of the decision that an audit event records, and of today's decision."""

    template_name = "portal/policy/why_event.html"

    def context(self, *, id: int, **kwargs: Any) -> dict[str, Any]:  # noqa: A002
        explanation = event_explain(actor=self.actor, event_id=id)
        return {
            "event": explanation.event,
            "told": described(explanation.event),
            "recorded": explanation.recorded,
            "decisive": explanation.rules,
            "then": parted(explanation.then) if explanation.then else None,
            "now": parted(explanation.now),
            "may_draft": may(self.actor, Action.POLICY_DRAFT, kind="policy"),
        }
