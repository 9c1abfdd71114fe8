"""The policy's screens: reading, drafting rule by rule, deciding, asking."""

from __future__ import annotations

import re
from collections.abc import Callable
from html.parser import HTMLParser
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from governance.audit.models import AuditEvent
from governance.people.models import Department, Person
from governance.policy.lifecycle import draft_create, policy_approve, policy_propose
from governance.policy.models import PolicyState, PolicyVersion
from tests.proofs import proven, signed_in
from tests.unit.assay.test_portal_pages import inline_in

pytestmark = [pytest.mark.usefixtures("policy"), pytest.mark.sweep]

RULE: dict[str, Any] = {
    "id": "viewers-use-by-day",
    "effect": "permit",
    "description": "viewers use deployments by day",
    "department_roles": ["viewer"],
    "actions": ["deployment:invoke"],
    "resource_types": ["deployment"],
    "conditions-TOTAL_FORMS": "2",
    "conditions-INITIAL_FORMS": "0",
    "conditions-0-attribute": "context.time",
    "conditions-0-operator": "gte",
    "conditions-0-value": "08:00",
    "conditions-1-attribute": "visibility",
    "conditions-1-operator": "in",
    "conditions-1-value": "department, organization",
}
CASE = """name: a viewer uses it in the morning
principal: {roles: [viewer@clinical]}
action: deployment:invoke
resource:
  type: deployment
  department: clinical
  attributes: {visibility: department, departments: []}
context: {time: 09:30, client_address: 10.0.0.1, weekday: 1}
expect: permit
rule: viewers-use-by-day
"""
TABS = ("rules", "resources", "tests", "changes", "rehearsal", "yaml", "audit")


def browser(person: Person) -> Client:
    client = Client()
    return signed_in(client, person)


@pytest.fixture
def ada(person: Callable[..., Person]) -> Person:
    return person("Ada", "admin")


@pytest.fixture
def ben(person: Callable[..., Person]) -> Person:
    return person("Ben", "admin")


@pytest.fixture
def draft(policy: PolicyVersion, ada: Person, ben: Person) -> PolicyVersion:
    return draft_create(actor=proven(ada), rules=policy.rules, note="Viewers.")


def seen(client: Client, number: int) -> str:
    digest: str = client.get(f"/policy/{number}").context["seen"]
    return digest


def test_a_change_goes_from_a_draft_to_force_by_two_admins(
    policy: PolicyVersion, ada: Person, ben: Person
) -> None:
    mine, other = browser(ada), browser(ben)
    assert mine.post("/policy/1/draft").url == "/policy/2?tab=rules"
    saved = mine.post("/policy/2/rules", RULE | {"seen": seen(mine, 2)})
    assert saved.status_code == 302, saved.content
    assert PolicyVersion.objects.get(number=2).rules[-1] == {
        "id": "viewers-use-by-day",
        "effect": "permit",
        "description": "viewers use deployments by day",
        "principal": {"department_roles": ["viewer"]},
        "actions": ["deployment:invoke"],
        "resource_types": ["deployment"],
        "conditions": [
            {"attribute": "context.time", "operator": "gte", "value": "08:00"},
            {
                "attribute": "visibility",
                "operator": "in",
                "value": ["department", "organization"],
            },
        ],
    }
    case = {"case": CASE, "seen": seen(mine, 2)}
    assert mine.post("/policy/2/tests/0", case).status_code == 302
    page = mine.get("/policy/2?tab=tests").content.decode()
    assert "a viewer uses it in the morning" in page
    assert "Passes" in page
    assert "viewers-use-by-day" in mine.get("/policy/2?tab=changes").content.decode()
    assert mine.post("/policy/2/propose").status_code == 302

    assert "You edited this policy" in mine.get("/policy/2").content.decode()
    badge = '1<span class="visually-hidden"> waiting for you</span>'
    assert badge in other.get("/policy").content.decode()
    assert badge not in mine.get("/policy").content.decode()
    refused = mine.post("/policy/2/decide", {"verdict": "approve"})
    assert refused.status_code == 403
    assert "Separation of duties" in refused.content.decode()
    assert (
        other.post("/policy/2/decide", {"verdict": "approve", "reason": "Good."}).status_code == 302
    )
    assert PolicyVersion.objects.get(number=2).state == PolicyState.ACTIVE
    assert "Version 2 is in force" in other.get("/policy").content.decode()


@pytest.mark.parametrize(
    "who", ["admin", "operator", "auditor", "lead@clinical", "viewer@clinical"]
)
def test_everybody_reads_the_rules_in_force_in_plain_words(
    draft: PolicyVersion, person: Callable[..., Person], who: str
) -> None:
    client = browser(person("Someone", who))
    insider = "@" not in who
    page = client.get("/policy")
    html = page.content.decode()
    assert page.status_code == 200
    assert inline_in(html) == []
    assert "Admins and auditors\n" in html
    rules = client.get("/policy?tab=rules").content.decode()
    assert "Admins and auditors may export the audit log." in rules
    assert ("Policy 2" in html) is insider
    assert ('href="/policy/why"' in html) is insider
    assert client.get("/policy/versions").status_code == 200
    for number, status in ((1, 200), (2, 200 if insider else 404)):
        for tab in TABS:
            page = client.get(f"/policy/{number}?tab={tab}")
            assert page.status_code == status, (number, tab)
            assert inline_in(page.content.decode()) == []
    assert client.get("/policy/2/yaml").status_code == (200 if insider else 404)
    for address in ("/policy/why", "/policy/who"):
        assert client.get(address).status_code == (200 if insider else 403), address


def test_rules_are_found_by_their_words(ada: Person) -> None:
    client = browser(ada)
    for tab in ("resources", "rules"):
        page = client.get(f"/policy?tab={tab}&q=export audit").content.decode()
        assert "audit-export" in page
        assert "key-owners-keep-their-keys" not in page
        assert "No such rule" in client.get(f"/policy?tab={tab}&q=unicorns").content.decode()


class Lines(HTMLParser):
    """Collect the text of each block of a page in one piece."""

    BLOCKS = ("div", "li", "td", "th", "p", "summary", "dd")

    def __init__(self) -> None:
        super().__init__()
        self.lines = [""]

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        if tag in self.BLOCKS:
            self.lines.append("")

    def handle_endtag(self, tag: str) -> None:
        if tag in self.BLOCKS:
            self.lines.append("")

    def handle_data(self, data: str) -> None:
        self.lines[-1] += data


@pytest.mark.parametrize("address", ["/policy", "/policy?tab=rules", "/policy/1?tab=resources"])
def test_no_line_about_a_rule_is_long(ada: Person, address: str) -> None:
    html = browser(ada).get(address).content.decode()
    content = Lines()
    content.feed(html[html.index('id="q"') : html.index("</section>")])
    words = [line.split() for line in content.lines]
    assert [" ".join(line) for line in words if len(line) > 25] == []
    assert len([line for line in words if line]) > 100
    for wrong in ("batchs", "knowledges", "feedbacks", "evidence releases", "confirm releases"):
        assert wrong not in html


def test_rules_are_grouped_by_resource_and_action(ada: Person) -> None:
    page = browser(ada).get("/policy")
    groups = {group.title: group for group in page.context["resources"]}
    titles = list(groups)
    assert titles == sorted(titles, key=str.lower)
    assert {"API keys", "Audit log", "Batches", "Feedback", "Knowledge bases"} < set(titles)
    [use] = [each for each in groups["Deployments"].actions if each.action == "deployment:invoke"]
    assert (use.verb, [each.rule for each in use.forbidden]) == ("Use", ["auditors-change-nothing"])
    assert [each.rule for each in use.permitted] == ["named-departments-use"]
    assert 'href="?tab=rules&amp;q=named-departments-use"' in page.content.decode()


def test_an_action_of_many_rules_leads_to_all_of_them(policy: PolicyVersion, ada: Person) -> None:
    one = {"effect": "permit", "principal": {"roles": ["admin"]}, "actions": ["audit:view"]}
    rules = [{**one, "id": f"r-{n}", "description": "d"} for n in range(30)]
    draft = draft_create(actor=proven(ada), rules=rules)
    html = browser(ada).get(f"/policy/{draft.number}?tab=resources").content.decode()
    assert html.count('<a class="sub mono"') == 20
    assert '<a href="?tab=rules&amp;q=audit%3Aview">All 30 rules</a>' in html


def test_a_rule_is_shown_as_a_form_and_saved_as_it_was(draft: PolicyVersion, ada: Person) -> None:
    client = browser(ada)
    page = client.get("/policy/2/rules/shared-models")
    form, conditions = page.context["form"], page.context["conditions"]
    data: dict[str, Any] = {
        name: form[name].value() for name in form.fields if form[name].value() is not None
    }
    data |= {
        "conditions-TOTAL_FORMS": "3",
        "conditions-INITIAL_FORMS": "1",
        "seen": page.context["seen"],
    }
    for one in conditions.forms[:1]:
        data |= {one[name].html_name: one[name].value() or "" for name in one.fields}
    assert client.post("/policy/2/rules/shared-models", data).status_code == 302
    assert PolicyVersion.objects.get(number=2).rules == PolicyVersion.objects.get(number=1).rules


def test_changes_are_shown_before_and_after(
    policy: PolicyVersion, ada: Person, ben: Person
) -> None:
    rules = [dict(rule) for rule in policy.rules if rule["id"] != "colleagues"]
    rules[0]["actions"] = ["model:view"]
    rules[1]["description"] = "those who check export the log"
    draft_create(actor=proven(ada), rules=rules)
    page = browser(ada).get("/policy/2?tab=changes")
    html = page.content.decode()
    assert "<del>Batches: view</del>" in html
    assert "Models: view" not in html
    assert "<ins>those who check export the log</ins>" in html
    assert "Rules: 0 added, 1 removed, 2 changed" in html


def test_what_a_policy_removes_is_shown_first_and_acknowledged(
    policy: PolicyVersion, ada: Person, ben: Person
) -> None:
    draft_create(actor=proven(ada), rules=policy.rules, tests=policy.tests[1:])
    client = browser(ada)
    html = client.get("/policy/2").content.decode()
    assert "Removes 1 test of policy 1" in html
    assert policy.tests[0]["name"] in html
    assert client.post("/policy/2/propose").status_code == 409
    assert PolicyVersion.objects.get(number=2).state == "draft"
    acknowledged = {"acknowledge_removals": "yes"}
    assert client.post("/policy/2/propose", acknowledged).status_code == 302
    client = browser(ben)
    decision = {"verdict": "approve", "reason": "The test is obsolete."}
    assert "Removes 1 test of policy 1" in client.get("/policy/2").content.decode()
    assert client.post("/policy/2/decide", decision).status_code == 409
    assert client.post("/policy/2/decide", decision | acknowledged).status_code == 302
    assert PolicyVersion.objects.get(number=2).state == "active"


def test_a_rule_is_made_from_lists(draft: PolicyVersion, ada: Person) -> None:
    Department.objects.create(slug="legal", name="Legal")
    html = browser(ada).get("/policy/2/rules").content.decode()
    for name, value in (
        ("departments", "legal"),
        ("services", "scim"),
        ("actions", "model:view"),
        ("resource_types", "model"),
        ("roles", "admin"),
    ):
        assert re.search(rf'type="checkbox" name="{name}" value="{value}"', html), name
    assert '<select name="conditions-0-attribute"' in html


def test_a_rule_that_is_wrong_stays_in_the_form_and_says_why(
    draft: PolicyVersion, ada: Person
) -> None:
    client = browser(ada)
    for change, why, field in (
        ({"id": "No Good"}, "Must be 2 to 60 lowercase letters", "id"),
        ({"actions": []}, "This field is empty", "actions"),
        ({"department_roles": []}, "Name roles", "roles"),
        ({"departments": ["atlantis"]}, "This choice is not available", "departments"),
        ({"conditions-0-value": ""}, "needs one value", "value"),
        ({"conditions-0-value": "["}, "is not a value", "value"),
        ({"conditions-0-attribute": "moon"}, "This choice is not available", "attribute"),
        ({"description": ""}, "This field is required", "description"),
    ):
        page = client.post("/policy/2/rules", RULE | change | {"seen": seen(client, 2)})
        assert page.status_code == 400, change
        html = page.content.decode()
        assert why in html
        assert inline_in(html) == []
        assert "context.time" in html
        # On the field itself, and on no other.
        forms = [page.context["form"], *page.context["conditions"].forms]
        assert [name for form in forms for name in form.errors] == [field], change
        assert "field-error" in html
    assert PolicyVersion.objects.get(number=2).rules == PolicyVersion.objects.get(number=1).rules


def test_two_who_change_a_draft_at_once_do_not_overwrite_each_other(
    draft: PolicyVersion, ada: Person, ben: Person
) -> None:
    mine, other = browser(ada), browser(ben)
    digest = seen(mine, 2)
    assert other.post("/policy/2/rules/audit-export/remove", {"seen": digest}).status_code == 302
    page = mine.post("/policy/2/rules", RULE | {"seen": digest})
    assert page.status_code == 409
    assert "changed meanwhile" in page.content.decode()


def test_a_draft_is_edited_as_yaml_and_what_is_wrong_is_kept_to_be_mended(
    draft: PolicyVersion, ada: Person
) -> None:
    client = browser(ada)
    text = client.get("/policy/2/yaml").content.decode()
    broken = client.post("/policy/2/yaml", {"yaml": text + "more: 1", "seen": seen(client, 2)})
    assert broken.status_code == 400
    assert "more: 1" in broken.content.decode()
    changed = text.replace("note: Viewers.", "note: Changed.").replace("\n", "\r\n")
    assert (
        client.post("/policy/2/yaml", {"yaml": changed, "seen": seen(client, 2)}).status_code == 302
    )
    version = PolicyVersion.objects.get(number=2)
    assert (version.note, version.rules) == ("Changed.", PolicyVersion.objects.get(number=1).rules)


def test_a_text_is_not_read_for_who_may_draft_no_policy(
    draft: PolicyVersion, person: Callable[..., Person]
) -> None:
    told = {"lead@clinical": 404, "operator": 403}
    for role, status in told.items():
        client = browser(person(role.partition("@")[0], role))
        assert client.post("/policy/2/yaml", {"yaml": "["}).status_code == status


def test_a_test_is_changed_and_removed(draft: PolicyVersion, ada: Person) -> None:
    client = browser(ada)
    client.post("/policy/2/tests/0", {"case": CASE, "seen": seen(client, 2)})
    last = len(PolicyVersion.objects.get(number=2).tests)
    at = f"/policy/2/tests/{last}"
    assert "a viewer uses it in the morning" in client.get(at).context["text"]
    deny = CASE.replace("permit", "deny")
    client.post(at, {"case": deny, "seen": seen(client, 2)})
    assert PolicyVersion.objects.get(number=2).tests[-1]["expect"] == "deny"
    client.post(at, {"case": deny, "remove": "yes", "seen": seen(client, 2)})
    assert PolicyVersion.objects.get(number=2).tests == PolicyVersion.objects.get(number=1).tests
    assert client.get(at).status_code == 404


def test_a_draft_whose_base_was_replaced_is_compared_and_based_anew(
    draft: PolicyVersion, policy: PolicyVersion, ada: Person, ben: Person
) -> None:
    other = draft_create(actor=proven(ada), rules=policy.rules, note="First.")
    policy_propose(actor=proven(ada), number=other.number)
    policy_approve(actor=proven(ben), number=other.number)
    client = browser(ada)
    assert "took effect after" in client.get("/policy/2").content.decode()
    refused = client.post("/policy/2/propose")
    assert refused.status_code == 409
    assert client.post("/policy/2/rebase").status_code == 302
    assert client.post("/policy/2/propose").status_code == 302
    assert client.post("/policy/2/withdraw").status_code == 302
    assert PolicyVersion.objects.get(number=2).state == PolicyState.WITHDRAWN
    assert client.post("/policy/2/draft").url == "/policy/4?tab=rules"
    assert client.post("/policy/4/discard").status_code == 302


def test_why_is_answered_rule_by_rule(
    ada: Person, person: Callable[..., Person], department: Callable[[str], Department]
) -> None:
    department("clinical")
    vera = person("Vera", "viewer@clinical")
    ask = {"action": "gate:set", "type": "department", "reference": "clinical"}
    client = browser(ada)
    html = client.get("/policy/why", ask | {"person": vera.pk}).content.decode()
    assert "Vera may not set gate" in html
    assert inline_in(html) == []
    described = {
        "roles": "lead@clinical",
        "action": "gate:set",
        "type": "gate",
        "department": "clinical",
        "context": "time: 18:30",
    }
    html = client.get("/policy/why", described).content.decode()
    assert "developers-build" in html
    assert "Permits" in html
    for wrong in (
        ask,
        ask | {"roles": "emperor"},
        ask | {"person": vera.pk, "roles": "admin"},
        ask | {"roles": "admin", "reference": "nowhere"},
        ask | {"roles": "admin", "attributes": "a: 1"},
        described | {"context": "["},
        described | {"context": "tokens: 1.5"},
        described | {"policy": "99"},
    ):
        page = client.get("/policy/why", wrong)
        assert page.status_code == 200
        assert "alert-bad" in page.content.decode(), wrong


def test_who_can_is_answered_with_names_and_rules(ada: Person, ben: Person) -> None:
    page = browser(ada).get("/policy/who", {"action": "policy:decide", "type": "policy"})
    html = page.content.decode()
    assert "Ben" in html
    assert "by admins-manage" in html
    assert "2 of 2" in html


def test_an_audit_event_of_a_refusal_leads_to_why(
    ada: Person, person: Callable[..., Person], transactional_db: None
) -> None:
    vera = browser(person("Vera", "viewer@clinical"))
    assert vera.get("/policy/why").status_code == 403
    event = AuditEvent.objects.get(outcome="denied")
    client = browser(ada)
    assert f'href="/policy/events/{event.pk}"' in client.get(f"/audit/{event.pk}").content.decode()
    page = client.get(f"/policy/events/{event.pk}")
    html = page.content.decode()
    assert page.status_code == 200
    assert "Why was this denied?" in html
    assert "viewer" in html
    assert inline_in(html) == []
    assert vera.get(f"/policy/events/{event.pk}").status_code in (403, 404)


def test_the_number_of_queries_does_not_grow_with_rules_or_policies(
    policy: PolicyVersion, ada: Person
) -> None:
    client, counts = browser(ada), []
    client.get("/policy")  # Fills what the process keeps between requests.
    for _ in range(2):
        found = []
        for address in ("/policy", "/policy/versions", "/policy/1"):
            with CaptureQueriesContext(connection) as queries:
                client.get(address)
            found.append(len(queries))
        counts.append(found)
        for n in range(4):
            draft_create(actor=proven(ada), rules=policy.rules, note=str(n))
    assert counts[0] == counts[1]
    assert max(counts[0]) <= 24, counts


@pytest.mark.parametrize("page", ["who", "why"])
def test_a_thing_that_cannot_be_described_is_said_to_be_none(
    policy: PolicyVersion, ada: Person, page: str
) -> None:
    many = "\n".join(f"a{n}: 1" for n in range(41))
    asked = {"action": "deployment:invoke", "type": "deployment", "attributes": many}
    answer = browser(ada).get(f"/policy/{page}", {**asked, "roles": "admin"})
    assert answer.status_code == 200
    assert "40" in answer.content.decode()
