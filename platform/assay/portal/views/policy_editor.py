"""Changing a draft rule by rule, and its tests one by one."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import redirect
from django.urls import reverse

from assay.portal.http import ActionScreen, cleaned
from assay.portal.policy_forms import (
    ATTRIBUTES,
    ConditionForms,
    RuleForm,
    conditions_filled,
)
from governance.errors import InvalidInput, NotFound
from governance.policy.document import case_from_yaml, case_to_yaml
from governance.policy.lifecycle import content_digest, draft_update
from governance.policy.models import PolicyVersion
from governance.policy.selectors import policy_version_get

NEW_CASE = """name: a developer of clinical uses a deployment
principal: {roles: [developer@clinical]}
action: deployment:invoke
resource:
  type: deployment
  department: clinical
  attributes: {departments: [clinical], visibility: department}
expect: permit
"""


def back(number: int, tab: str) -> HttpResponse:
    return redirect(f"{reverse('portal:policy_version', args=[number])}?tab={tab}")


class RuleEdit(ActionScreen):
    """One rule of a draft, as a form; a new one when none is named."""

    template_name = "portal/policy/rule.html"

    def context(self, *, number: int, rule: str = "", **kwargs: Any) -> dict[str, Any]:
        version = policy_version_get(actor=self.actor, number=number)
        before = found(version, rule) if rule else {}
        if self.request.method == "POST":
            form = RuleForm(self.request.POST)
            conditions = ConditionForms(self.request.POST, prefix="conditions")
        else:
            form = RuleForm(initial=RuleForm.filled(before))
            conditions = ConditionForms(initial=conditions_filled(before), prefix="conditions")
        return {
            "version": version,
            "rule": rule,
            "form": form,
            "conditions": conditions,
            "attributes": ATTRIBUTES,
            "seen": self.request.POST.get("seen") or content_digest(version),
        }

    def act(self, *, number: int, rule: str = "", **kwargs: Any) -> HttpResponse:
        version = policy_version_get(actor=self.actor, number=number)
        made = self.typed()
        rules = list(version.rules)
        if rule:
            rules[rules.index(found(version, rule))] = made
        else:
            rules.append(made)
        draft_update(
            actor=self.actor,
            number=number,
            rules=rules,
            expected=self.request.POST.get("seen"),
        )
        messages.success(self.request, f"Rule {made['id']} is saved.")
        return back(number, "rules")

    def typed(self) -> dict[str, Any]:
        """The rule as it was typed.

        Raises:
            InvalidInput: the form is not complete, or a value cannot be read.
        """
        form = RuleForm(self.request.POST)
        conditions = ConditionForms(self.request.POST, prefix="conditions")
        cleaned(form)
        if not conditions.is_valid():
            raise InvalidInput("A condition is not complete.", hint="See the marked fields.")
        made = form.rule()
        rows = [row for row in (one.condition() for one in conditions.forms) if row is not None]
        if rows:
            made["conditions"] = rows
        return made


class RuleRemove(RuleEdit):
    """Takes a rule out of a draft."""

    def act(self, *, number: int, rule: str = "", **kwargs: Any) -> HttpResponse:
        version = policy_version_get(actor=self.actor, number=number)
        gone = found(version, rule)
        draft_update(
            actor=self.actor,
            number=number,
            rules=[row for row in version.rules if row is not gone],
            expected=self.request.POST.get("seen"),
        )
        messages.success(self.request, f"Rule {rule} is removed from the draft.")
        return back(number, "rules")


def found(version: PolicyVersion, rule: str) -> dict[str, Any]:
    """Raises NotFound when the policy has no such rule."""
    for row in version.rules:
        if row["id"] == rule:
            made: dict[str, Any] = row
            return made
    raise NotFound(f"Policy {version.number} has no rule {rule[:60]}.")


class CaseEdit(ActionScreen):
    """One test of a draft, as YAML; a new one when `place` is 0."""

    template_name = "portal/policy/case.html"

    def context(self, *, number: int, place: int, **kwargs: Any) -> dict[str, Any]:
        version = policy_version_get(actor=self.actor, number=number)
        text = case_to_yaml(nth(version, place)) if place else NEW_CASE
        return {
            "version": version,
            "place": place,
            "text": self.request.POST.get("case", text),
            "seen": self.request.POST.get("seen") or content_digest(version),
        }

    def act(self, *, number: int, place: int, **kwargs: Any) -> HttpResponse:
        version = policy_version_get(actor=self.actor, number=number)
        tests = list(version.tests)
        if place:
            tests.remove(nth(version, place))
        if "remove" not in self.request.POST:
            made = case_from_yaml(self.request.POST.get("case", "").replace("\r\n", "\n"))
            tests.insert(place - 1 if place else len(tests), made)
        draft_update(
            actor=self.actor,
            number=number,
            tests=tests,
            expected=self.request.POST.get("seen"),
        )
        messages.success(self.request, "The draft's tests are changed.")
        return back(number, "tests")


def nth(version: PolicyVersion, place: int) -> dict[str, Any]:
    """The test at `place`, from 1. Raises NotFound when there are fewer."""
    if not 0 < place <= len(version.tests):
        raise NotFound(f"Policy {version.number} has no test {place}.")
    made: dict[str, Any] = version.tests[place - 1]
    return made
