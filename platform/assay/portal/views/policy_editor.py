"""Edit the rules and tests of a draft, one at a time."""

from __future__ import annotations

from typing import Any

from django.http import HttpResponse

from assay.portal.forms.policy import ConditionForms, RuleForm, conditions_filled, errors_placed
from assay.portal.views.policy import PolicyScreen
from governance.errors import InvalidInput, NotFound
from governance.people.selectors import departments_visible_to
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


class RuleEdit(PolicyScreen):
    """One rule of a draft, as a form; a new one when none is named."""

    template_name = "portal/policy/rule.html"

    # The posted forms, with errors on their fields.
    posted: tuple[RuleForm, Any] | None = None

    def context(self, *, number: int, rule: str = "", **kwargs: Any) -> dict[str, Any]:
        version = policy_version_get(actor=self.actor, number=number)
        before = rule_get(version, rule) if rule else {}
        form, conditions = self.posted or self.forms(before)
        return {
            "version": version,
            "rule": rule,
            "form": form,
            "conditions": conditions,
            "seen": self.request.POST.get("seen") or content_digest(version),
        }

    def forms(self, before: dict[str, Any]) -> tuple[RuleForm, Any]:
        """Return the rule's form and those of its conditions, filled in."""
        data = self.request.POST if self.request.method == "POST" else None
        slugs = departments_visible_to(self.actor).values_list("slug", flat=True)
        form = RuleForm(data, initial=RuleForm.filled(before), departments=slugs)
        rows = conditions_filled(before)
        return form, ConditionForms(data, initial=rows, prefix="conditions")

    def act(self, *, number: int, rule: str = "", **kwargs: Any) -> HttpResponse:
        version = policy_version_get(actor=self.actor, number=number)
        rules = list(version.rules)
        before = rule_get(version, rule) if rule else {}
        place = rules.index(before) if rule else len(rules)
        self.posted = form, conditions = self.forms(before)
        new_rule = self.typed(form, conditions)
        rules[place : place + 1] = [new_rule]
        try:
            draft_update(
                actor=self.actor,
                number=number,
                rules=rules,
                expected=self.request.POST.get("seen"),
            )
        except InvalidInput as error:
            others = errors_placed(form, conditions, error, place)
            raise InvalidInput(
                error.message, hint=error.hint or "Correct the marked fields.", fields=others
            ) from error
        return self.back(f"Rule {new_rule['id']} is saved.", number)

    @staticmethod
    def typed(form: RuleForm, conditions: Any) -> dict[str, Any]:
        """Return the rule as it was typed.

        Raises:
            InvalidInput: the form has errors, or a value cannot be read.
        """
        complete = conditions.is_valid()
        if not form.is_valid() or not complete:
            raise InvalidInput("The rule has errors.", hint="Correct the marked fields.")
        rule = form.rule()
        rows = []
        for condition_form in conditions.forms:
            try:
                row = condition_form.condition()
            except InvalidInput as error:
                condition_form.add_error("value", error.fields.get("value", [error.message]))
                raise InvalidInput(error.message, hint=error.hint) from error
            if row is not None:
                rows.append(row)
        if rows:
            rule["conditions"] = rows
        return rule


class RuleRemove(RuleEdit):
    """Remove a rule from a draft."""

    def act(self, *, number: int, rule: str = "", **kwargs: Any) -> HttpResponse:
        version = policy_version_get(actor=self.actor, number=number)
        gone = rule_get(version, rule)
        draft_update(
            actor=self.actor,
            number=number,
            rules=[row for row in version.rules if row is not gone],
            expected=self.request.POST.get("seen"),
        )
        return self.back(f"Rule {rule} is removed from the draft.", number)


def rule_get(version: PolicyVersion, rule: str) -> dict[str, Any]:
    """Return a rule of the policy. Raises NotFound."""
    for row in version.rules:
        if row["id"] == rule:
            made: dict[str, Any] = row
            return made
    raise NotFound(f"Policy {version.number} has no rule {rule[:60]}.")


class CaseEdit(PolicyScreen):
    """One test of a draft, as YAML; a new one when `place` is 0."""

    template_name = "portal/policy/case.html"

    def context(self, *, number: int, place: int, **kwargs: Any) -> dict[str, Any]:
        version = policy_version_get(actor=self.actor, number=number)
        text = case_to_yaml(case_get(version, place)) if place else NEW_CASE
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
            tests.remove(case_get(version, place))
        if "remove" not in self.request.POST:
            case = case_from_yaml(self.request.POST.get("case", "").replace("\r\n", "\n"))
            tests.insert(place - 1 if place else len(tests), case)
        draft_update(
            actor=self.actor,
            number=number,
            tests=tests,
            expected=self.request.POST.get("seen"),
        )
        return self.back("The draft's tests are changed.", number, "tests")


def case_get(version: PolicyVersion, place: int) -> dict[str, Any]:
    """Return the test at `place`, from 1. Raises NotFound."""
    if not 0 < place <= len(version.tests):
        raise NotFound(f"Policy {version.number} has no test {place}.")
    made: dict[str, Any] = version.tests[place - 1]
    return made
