"""The policy in force and all other versions: rules, tests and changes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from django.core.paginator import Paginator
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseBase

from assay.portal.access import may
from assay.portal.http import ActionScreen, Screen, number_in
from assay.portal.lists import ListScreen, states
from assay.portal.since import policy_news
from assay.portal.words import Described, described_all
from governance.audit.selectors import audit_events_visible_to
from governance.errors import InvalidInput
from governance.permissions import Action
from governance.policy.cases import failed_results
from governance.policy.differences import difference
from governance.policy.document import document_to_yaml
from governance.policy.lifecycle import (
    content_digest,
    draft_create,
    draft_delete,
    draft_update,
    policy_approve,
    policy_propose,
    policy_read,
    policy_reject,
    policy_withdraw,
    version_test,
)
from governance.policy.models import PolicyState, PolicyVersion
from governance.policy.replay import policy_replay
from governance.policy.rules import Effect, Rule, parse_rules
from governance.policy.schemas import PolicyFilter
from governance.policy.selectors import (
    policy_get,
    policy_removals,
    policy_version_get,
    policy_versions_visible_to,
)
from governance.policy.sentences import rule_words
from governance.policy.summaries import RuleSummary, rule_summary, rules_by_resource
from governance.principals import Principal
from governance.reviews.policies.models import ReviewPolicy

RULES_SHOWN = 50
# Rules listed for one action of a resource; a link leads to all.
HOLDERS_SHOWN = 20
RUNS = (100, 1000, 10_000)
TABS = (
    ("rules", "Rules"),
    ("resources", "By resource"),
    ("tests", "Tests"),
    ("changes", "Changes"),
    ("rehearsal", "Dry run"),
    ("yaml", "YAML"),
    ("audit", "Audit trail"),
)


@dataclass(frozen=True)
class RuleRow:
    """A rule as a page shows it."""

    rule: Rule

    @property
    def forbids(self) -> bool:
        return self.rule.effect is Effect.FORBID

    @property
    def summary(self) -> RuleSummary:
        return rule_summary(self.rule)


def rule_rows(rules: list[dict[str, Any]]) -> list[RuleRow]:
    """Return each rule as a row."""
    return [RuleRow(rule) for rule in parse_rules(rules)]


def matching_rules(rules: Sequence[Rule], query: str) -> list[Rule]:
    """Return the rules whose ID, description, actions or sentence have every word of the query."""
    words = query.lower().split()

    def matches(rule: Rule) -> bool:
        text = " ".join((rule.id, rule.description, *rule.actions, rule_words(rule))).lower()
        return all(word in text for word in words)

    return [rule for rule in rules if not words or matches(rule)]


def rules_page(request: HttpRequest, raw: list[dict[str, Any]], tab: str) -> dict[str, Any]:
    """Return the rules that match `?q=`: grouped in the tab `resources`, or else one page."""
    query = request.GET.get("q", "").strip()[:100]
    rules = parse_rules(raw)
    matches = matching_rules(rules, query)
    context: dict[str, Any] = {
        "q": query,
        "effects": Counter(rule.effect.value for rule in rules),
        "tab": tab,
    }
    if tab == "resources":
        return context | {"resources": rules_by_resource(matches), "holders_shown": HOLDERS_SHOWN}
    pages = Paginator([RuleRow(rule) for rule in matches], RULES_SHOWN)
    return context | {"page": pages.get_page(request.GET.get("page"))}


def changed_lines(before: dict[str, Any], after: dict[str, Any]) -> tuple[list[str], list[str]]:
    """Return the lines of a rule's words that a change removes, and those that it adds."""
    summaries = [rule_summary(parse_rules([raw])[0]) for raw in (before, after)]
    short = all(each.is_whole for each in summaries)
    old, new = ([each.line] if short else each.lines for each in summaries)
    return [line for line in old if line not in new], [line for line in new if line not in old]


def decision_obstacle(
    actor: Principal, policy: PolicyVersion | ReviewPolicy, kind: str
) -> str | None:
    """Return why the person may not decide: empty if they may, None if it is not their role."""
    if policy.state != PolicyState.PROPOSED or not may(actor, Action.POLICY_DECIDE, kind=kind):
        return None
    edited = actor.person_id in policy.authors
    return "You edited this policy, so another person must decide." if edited else ""


def trail_of(actor: Principal, kind: str, id: int) -> list[Described]:  # noqa: A002
    """Return the latest events about a policy."""
    events = audit_events_visible_to(actor, subject_type=kind, subject_id=str(id))
    return described_all(events[:100])


class Policy(Screen):
    """The rules in force in plain words, and pending changes."""

    template_name = "portal/policy/list.html"

    def context(self, **kwargs: Any) -> dict[str, Any]:
        active = policy_get(actor=self.actor)
        versions = policy_versions_visible_to(self.actor).defer("rules", "tests")
        waiting = versions.filter(state__in=(PolicyState.DRAFT, PolicyState.PROPOSED))
        return {
            "active": active,
            "news": policy_news(self.actor, active),
            "waiting": waiting[:50],
            "others": versions.exclude(state__in=(PolicyState.DRAFT, PolicyState.PROPOSED))[:8],
            "may_draft": may(self.actor, Action.POLICY_DRAFT, kind="policy"),
            "may_explain": may(self.actor, Action.POLICY_EXPLAIN, kind="policy"),
            **rules_page(self.request, active.rules, self.tab()),
        }

    def tab(self) -> str:
        """Return the selected tab."""
        return "rules" if self.request.GET.get("tab") == "rules" else "resources"


class PolicyVersions(ListScreen):
    """All versions of the policy."""

    template_name = "portal/policy/versions.html"
    title = "All policy versions"
    lead = (
        "Each number permanently names one set of rules. Decisions in the audit log name the "
        "policy that made them."
    )
    columns = "Policy | State | # Rules | # Tests | # Based on | Drafted by | Decided by | Changed"
    filters = PolicyFilter
    toolbar = (states(PolicyState.choices),)

    def rows(self) -> QuerySet[PolicyVersion]:
        return policy_versions_visible_to(self.actor).defer("rules", "tests")


class PolicyScreen(ActionScreen):
    """A page that leads back to a policy."""

    def back(self, sentence: str, number: int, tab: str = "rules") -> HttpResponse:
        """Redirect to a tab of the policy, which shows `sentence`."""
        return self.done(sentence, "portal:policy_version", number=number, query={"tab": tab})


class PolicyPage(PolicyScreen):
    """One policy: rules, tests, changes, a dry run, and the decision on it."""

    template_name = "portal/policy/policy.html"
    own_tab = ""

    def context(self, *, number: int, **kwargs: Any) -> dict[str, Any]:
        version = policy_version_get(actor=self.actor, number=number)
        explains = may(self.actor, Action.POLICY_EXPLAIN, kind="policy")
        tab = self.own_tab or self.request.GET.get("tab", "rules")
        tabs = [pair for pair in TABS if pair[0] != "rehearsal" or explains]
        tab = tab if tab in dict(tabs) else "rules"
        drafts = may(self.actor, Action.POLICY_DRAFT, kind="policy")
        waiting = version.state in (PolicyState.DRAFT, PolicyState.PROPOSED)
        results = version_test(version)
        active = policy_versions_visible_to(self.actor).filter(state=PolicyState.ACTIVE).first()
        return {
            "version": version,
            "seen": content_digest(version),
            "tabs": tabs,
            "tab": tab,
            "results": results,
            "failing": failed_results(results),
            "active": active,
            "stale": active is not None and version.based_on != active.number,
            "editable": drafts and version.state == PolicyState.DRAFT,
            "may_draft": drafts,
            "may_explain": explains,
            "blocked": decision_obstacle(self.actor, version, "policy"),
            "removals": policy_removals(version) if waiting else None,
            "typed": self.request.POST,
            **self.part(tab, version),
        }

    def part(self, tab: str, version: PolicyVersion) -> dict[str, Any]:
        """Return the data of one tab."""
        if tab == "changes":
            return self.changes(version)
        if tab == "rehearsal":
            choice = self.request.GET.get("last", "")
            last = int(choice) if choice in map(str, RUNS) else 1000
            replay = policy_replay(actor=self.actor, number=version.number, last=last)
            return {"replay": replay, "last": last, "runs": RUNS}
        if tab == "yaml":
            text = document_to_yaml(rules=version.rules, tests=version.tests, note=version.note)
            return {"yaml": self.request.POST.get("yaml", text)}
        if tab == "audit":
            return {"trail": trail_of(self.actor, "policy", version.number)}
        if tab == "tests":
            return {"cases": list(zip(version.tests, version_test(version), strict=True))}
        return rules_page(self.request, version.rules, tab)

    def changes(self, version: PolicyVersion) -> dict[str, Any]:
        """Return the changes to the policy that it is based on, or to that of `?against=`."""
        number = number_in(self.request.GET, "against") or version.based_on or version.number
        before = policy_version_get(actor=self.actor, number=number)
        changes = difference(before.rules, version.rules, before.tests, version.tests)
        return {
            "before": before,
            "difference": changes,
            "added": rule_rows(changes.added),
            "removed": rule_rows(changes.removed),
            "changed": [
                (rule, *changed_lines(rule.before, rule.after)) for rule in changes.changed
            ],
        }


class PolicyDraftNew(PolicyPage):
    """Create a draft from a policy: to change it, or to revise a rejected one."""

    def act(self, *, number: int, **kwargs: Any) -> HttpResponse:
        source = policy_version_get(actor=self.actor, number=number)
        note = source.note if source.state != PolicyState.ACTIVE else ""
        draft = draft_create(actor=self.actor, rules=source.rules, tests=source.tests, note=note)
        return self.back(f"You can now edit draft {draft.number}.", draft.number)


def acknowledged(request: HttpRequest) -> bool:
    """True if the person checked the box that acknowledges removed rules and tests."""
    return request.POST.get("acknowledge_removals") == "yes"


class PolicyPropose(PolicyPage):
    """Propose a draft for decision."""

    def act(self, *, number: int, **kwargs: Any) -> HttpResponse:
        policy_propose(
            actor=self.actor, number=number, acknowledge_removals=acknowledged(self.request)
        )
        return self.back("Proposed. Another administrator decides.", number, "changes")


class PolicyDecide(PolicyPage):
    """Approve or reject a proposed policy."""

    def act(self, *, number: int, **kwargs: Any) -> HttpResponse:
        verdict = self.request.POST.get("verdict", "")
        reason = self.request.POST.get("reason", "").strip()
        if verdict == "approve":
            policy_approve(
                actor=self.actor,
                number=number,
                note=reason,
                acknowledge_removals=acknowledged(self.request),
            )
            return self.back(f"Policy {number} is in force.", number)
        if verdict == "reject":
            policy_reject(actor=self.actor, number=number, reason=reason)
            return self.back(f"Policy {number} is rejected.", number)
        raise InvalidInput("Choose to approve or to reject.", fields={"verdict": ["Needed."]})


class PolicyWithdraw(PolicyPage):
    """Withdraw a proposal."""

    def act(self, *, number: int, **kwargs: Any) -> HttpResponse:
        policy_withdraw(actor=self.actor, number=number)
        return self.back(f"Policy {number} is withdrawn.", number)


class PolicyDiscard(PolicyPage):
    """Discard a draft."""

    def act(self, *, number: int, **kwargs: Any) -> HttpResponse:
        draft_delete(actor=self.actor, number=number)
        return self.done(f"Draft {number} is discarded.", "portal:policy")


class PolicyRebase(PolicyPage):
    """Base a draft on the policy that is now in force."""

    def act(self, *, number: int, **kwargs: Any) -> HttpResponse:
        active = policy_get(actor=self.actor)
        draft_update(actor=self.actor, number=number, based_on=active.number)
        return self.back(
            f"Draft {number} is based on policy {active.number}; see what it changes.",
            number,
            "changes",
        )


class PolicyYaml(PolicyPage):
    """Save a draft as typed, or download a policy."""

    own_tab = "yaml"

    def get(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        version = policy_version_get(actor=self.actor, number=kwargs["number"])
        text = document_to_yaml(rules=version.rules, tests=version.tests, note=version.note)
        name = f'attachment; filename="policy-{version.number}.yaml"'
        headers = {"Content-Disposition": name, "Cache-Control": "no-store"}
        return HttpResponse(text, content_type="application/yaml", headers=headers)

    def act(self, *, number: int, **kwargs: Any) -> HttpResponse:
        text = self.request.POST.get("yaml", "").replace("\r\n", "\n")
        document = policy_read(actor=self.actor, text=text)
        draft_update(
            actor=self.actor,
            number=number,
            rules=document.rules,
            tests=document.tests,
            note=document.note,
            expected=self.request.POST.get("seen"),
        )
        return self.back("Saved.", number, "changes")
