"""Review policies: what their text may say, and their way into force by two people."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from django.db import IntegrityError, connection, transaction

from governance.audit.models import AuditEvent
from governance.errors import (
    DomainError,
    InvalidInput,
    NotFound,
    NotPermitted,
    TooLarge,
    WrongState,
)
from governance.people.models import Person
from governance.people.selectors import principal_for_person
from governance.policy.models import PolicyState
from governance.policy.proposals import ALLOWED_TRANSITIONS, OPEN_MAX
from governance.policy.services import policy_bootstrap
from governance.principals import Principal, service_principal
from governance.reviews.policies import frameworks
from governance.reviews.policies.document import document_read
from governance.reviews.policies.lifecycle import (
    REVIEW_POLICIES,
    review_policy_decide,
    review_policy_draft,
    review_policy_propose,
    review_policy_revise,
    review_policy_withdraw,
)
from governance.reviews.policies.models import SHIPPED, ReviewPolicy
from governance.reviews.policies.selectors import (
    review_policies_in_force,
    review_policies_visible_to,
    review_policy_get,
    review_policy_in_force,
)
from governance.reviews.policies.shipping import review_policies_bootstrap, shipped_text
from governance.reviews.policies.vocabulary import Vocabulary, registered_vocabulary
from tests.proofs import proven
from tests.unit.audit_support import bodies
from tests.waiting import PATIENCE_S

pytestmark = pytest.mark.sweep

LIMITED = shipped_text("limited")
LONGER = LIMITED.replace("valid_days: 180", "valid_days: 200")


@pytest.fixture
def ada(actor: Callable[..., Principal]) -> Principal:
    return actor("Ada", "admin")


@pytest.fixture
def carla(actor: Callable[..., Principal]) -> Principal:
    return actor("Carla", "reviewer:compliance")


def proposed(author: Principal, text: str = LONGER) -> ReviewPolicy:
    draft = review_policy_draft(actor=author, text=text)
    return review_policy_propose(actor=author, policy_id=draft.pk)


def decided(who: Principal, policy: ReviewPolicy, verdict: str = "approve") -> ReviewPolicy:
    return review_policy_decide(
        actor=who, policy_id=policy.pk, verdict=verdict, reason="As agreed."
    )


# Bounds of a policy's text


@pytest.mark.parametrize("name", SHIPPED)
def test_what_is_shipped_is_valid_and_says_why_of_everything(name: str) -> None:
    document = document_read(shipped_text(name), registered_vocabulary())
    assert document.name == name
    assert {item.check for item in document.items if item.check} <= set(
        registered_vocabulary().checks
    )
    assert all(len(item.why) > 20 for item in document.items)


def test_a_higher_tier_asks_for_more() -> None:
    by_rank = sorted(
        (document_read(shipped_text(name), registered_vocabulary()) for name in SHIPPED),
        key=lambda document: document.rank,
    )
    assert [document.name for document in by_rank] == [
        "minimal",
        "limited",
        "general-purpose",
        "high",
    ]
    least, _, _, most = by_rank
    assert {item.code for item in least.items} < {item.code for item in most.items}
    assert least.valid_days > most.valid_days
    assert most.grace_days == 0


def test_privacy_approves_high_risk_where_personal_data_is_involved() -> None:
    high = document_read(shipped_text("high"), registered_vocabulary())
    without = high.required_approvals({"personal_data": False})
    assert without == {"compliance": 1, "model-risk": 1, "security": 1}
    assert high.required_approvals({"personal_data": True}) == {**without, "privacy": 1}


@pytest.mark.parametrize(
    ("before", "after", "at", "said"),
    [
        ("rank: 20", "rank: many", "rank:", "rank must be a whole number"),
        ("rank: 20", "rank: 20\ncolor: red", "color:", "color is unknown"),
        ("valid_days: 180", "valid_days: 0", "valid_days:", "valid_days must be at least 1"),
        ("valid_days: 180", "valid_days: 5", "name:", "warn_days must be fewer"),
        (
            "check: leak",
            "check: leek",
            "check: leek",
            "items.4.check is not a check; they are card",
        ),
        ("answer: autonomy", "answer: mood", "mood", "is not a question; they are annex_iii"),
        (
            "[decides_with_human]",
            "[often]",
            "[often]",
            "names an unknown answer; they are suggests",
        ),
        ("personal_data, is: [true]", "personal_data, is: [1]", "[1]", "applies_when.0.is"),
        ("specialty: model-risk", "specialty: sales", "sales", "is not a specialty"),
        ("MEASURE 2.7", "MEASURE 2.14", "MEASURE 2.14", "is not a subcategory of the AI RMF"),
        ("A.6.2.5", "A.6.2.9", "A.6.2.9", "is not a control of annex A"),
        ("Article 15(5)]", "Article 114]", "Article 114", "is not an article or annex"),
        ("code: license", "code: digest", "name:", "two items have the code digest"),
        ("    check: leak\n", "", "code: leak", "an automatic item must name its check"),
        ("title: Limited risk", "title: [1", "summary:", "expected ',' or ']'"),
        ("title: Limited risk", "title: &a x", "title:", "anchors"),
        ("title: Limited risk", 'title: "a\\u202Eb"', "title:", "does not show"),
        ("name: limited", "name: limited\nname: other", "name: other", "names a key twice"),
    ],
)
def test_a_fault_names_its_line(before: str, after: str, at: str, said: str) -> None:
    assert before in LIMITED
    text = LIMITED.replace(before, after, 1)
    line = f"line {text[: text.index(at)].count(chr(10)) + 1}"
    with pytest.raises(InvalidInput) as caught:
        document_read(text, registered_vocabulary())
    faults = caught.value.fields
    assert any(said in fault for fault in faults.get(line, [])), (line, faults)


def test_every_approval_may_not_depend_on_an_answer() -> None:
    only = (
        "approvals:\n  - specialty: privacy\n    when:\n"
        "      - {answer: personal_data, is: [true]}\n"
    )
    text = LIMITED.replace(
        "approvals:\n  - {specialty: compliance}\n  - {specialty: model-risk}\n", only
    )
    assert text != LIMITED
    with pytest.raises(InvalidInput, match="whatever the answers"):
        document_read(text, registered_vocabulary())


def test_what_nobody_registered_cannot_be_asked() -> None:
    with pytest.raises(InvalidInput, match="is not a question"):
        document_read(LIMITED, Vocabulary())


@pytest.mark.parametrize("text", ["#" * 65_537, "\n" * 2_001])
def test_a_text_is_bounded(text: str) -> None:
    with pytest.raises(TooLarge):
        document_read(text, registered_vocabulary())


@pytest.mark.parametrize("text", ["", "[]", "text", "a: \x01", "{" * 40])
def test_what_is_no_mapping_is_no_policy(text: str) -> None:
    with pytest.raises(InvalidInput):
        document_read(text, registered_vocabulary())


def test_the_frameworks_have_the_numbers_that_their_texts_have() -> None:
    assert len(frameworks.ISO_42001) == 38
    assert {name: sum(counts) for name, counts in frameworks.NIST_RMF.items()} == {
        "GOVERN": 19,
        "MAP": 18,
        "MEASURE": 22,
        "MANAGE": 13,
    }
    assert len(frameworks.NIST_600_1) == 12


# Into force


def test_a_version_is_drafted_proposed_and_put_in_force_by_another(
    ada: Principal, carla: Principal
) -> None:
    draft = review_policy_draft(actor=ada, text=LONGER)
    assert (draft.name, draft.version, draft.based_on, draft.state) == ("limited", 2, 1, "draft")
    review_policy_propose(actor=ada, policy_id=draft.pk)
    active = decided(carla, draft)
    assert active.state == PolicyState.ACTIVE
    assert review_policy_in_force("limited") == active
    assert ReviewPolicy.objects.get(name="limited", version=1).state == "superseded"
    actions = AuditEvent.objects.filter(action__startswith="review_policy:", actor_kind="person")
    assert list(actions.order_by("pk").values_list("action", flat=True)) == [
        "review_policy:draft",
        "review_policy:propose",
        "review_policy:supersede",
        "review_policy:activate",
    ]


def test_bootstrapping_again_changes_nothing(policy: object) -> None:
    before = list(ReviewPolicy.objects.values_list("pk", "state").order_by("pk"))
    assert review_policies_bootstrap() == []
    assert list(ReviewPolicy.objects.values_list("pk", "state").order_by("pk")) == before
    assert [each.policy.name for each in review_policies_in_force()] == [
        "minimal",
        "limited",
        "general-purpose",
        "high",
    ]


def test_nobody_decides_on_what_they_wrote(ada: Principal, carla: Principal) -> None:
    policy = proposed(ada)
    for verdict in ("approve", "reject"):
        with pytest.raises(NotPermitted, match="Separation of duties") as caught:
            decided(ada, policy, verdict)
        assert caught.value.attempt is not None
    assert decided(carla, policy, "reject").state == PolicyState.REJECTED


def test_who_changed_or_proposed_a_draft_is_one_of_its_authors(
    ada: Principal, carla: Principal, actor: Callable[..., Principal]
) -> None:
    milo = actor("Milo", "reviewer:model-risk")
    draft = review_policy_draft(actor=ada, text=LONGER)
    review_policy_revise(actor=carla, policy_id=draft.pk, text=LIMITED, expected=draft.digest)
    policy = review_policy_propose(actor=milo, policy_id=draft.pk)
    assert policy.authors == [ada.person_id, carla.person_id, milo.person_id]
    for who in (ada, carla, milo):
        with pytest.raises(NotPermitted, match="Separation of duties"):
            decided(who, policy)


def test_a_change_made_from_another_text_is_not_saved(ada: Principal, carla: Principal) -> None:
    draft = review_policy_draft(actor=ada, text=LONGER)
    review_policy_revise(actor=carla, policy_id=draft.pk, text=LIMITED, expected=draft.digest)
    with pytest.raises(WrongState, match="changed meanwhile"):
        review_policy_revise(actor=ada, policy_id=draft.pk, text=LONGER, expected=draft.digest)
    with pytest.raises(InvalidInput, match="its text names minimal"):
        review_policy_revise(actor=ada, policy_id=draft.pk, text=shipped_text("minimal"))


def test_what_was_drafted_from_another_version_is_not_put_in_force(
    ada: Principal, carla: Principal
) -> None:
    first, second = proposed(ada), proposed(ada, LIMITED.replace("due_days: 14", "due_days: 9"))
    late = review_policy_draft(actor=ada, text=LIMITED)
    decided(carla, first)
    with pytest.raises(WrongState, match="drafted from version 1, but limited v2 is in force"):
        decided(carla, second)
    with pytest.raises(WrongState, match="cannot be proposed"):
        review_policy_propose(actor=ada, policy_id=late.pk)
    # Looked at again and saved, it is based on what is in force.
    review_policy_revise(actor=ada, policy_id=late.pk, text=LIMITED)
    review_policy_propose(actor=ada, policy_id=late.pk)
    assert decided(carla, late).version == 4


def test_two_tiers_have_no_rank_in_common(ada: Principal) -> None:
    text = LIMITED.replace("name: limited", "name: medical")
    draft = review_policy_draft(actor=ada, text=text)
    with pytest.raises(WrongState, match="has the rank 20 too"):
        review_policy_propose(actor=ada, policy_id=draft.pk)


def test_another_name_makes_another_tier(ada: Principal, carla: Principal) -> None:
    text = LIMITED.replace("name: limited", "name: medical").replace("rank: 20", "rank: 35")
    policy = decided(carla, proposed(ada, text))
    assert (policy.version, policy.based_on) == (1, None)
    assert [each.policy.name for each in review_policies_in_force()] == [
        "minimal",
        "limited",
        "general-purpose",
        "medical",
        "high",
    ]


def test_a_decision_says_why(ada: Principal, carla: Principal) -> None:
    policy = proposed(ada)
    for verdict, reason in (("approve", "  "), ("approve", "x" * 2001), ("perhaps", "Because.")):
        with pytest.raises(InvalidInput):
            review_policy_decide(actor=carla, policy_id=policy.pk, verdict=verdict, reason=reason)
    policy.refresh_from_db()
    assert policy.state == PolicyState.PROPOSED


@pytest.mark.parametrize("roles", [("reviewer:security",), ("lead@clinical",), ("auditor",)])
def test_others_neither_draft_nor_decide_and_see_what_is_in_force(
    roles: tuple[str, ...], ada: Principal, actor: Callable[..., Principal]
) -> None:
    who, policy = actor("Olaf", *roles), proposed(ada)
    with pytest.raises(NotPermitted):
        review_policy_draft(actor=who, text=LIMITED)
    for try_it in (
        lambda: decided(who, policy),
        lambda: review_policy_withdraw(actor=who, policy_id=policy.pk),
        lambda: review_policy_get(actor=who, id=policy.pk),
        lambda: review_policy_propose(actor=who, policy_id=999_999),
    ):
        with pytest.raises(NotFound):
            try_it()
    assert {each.state for each in review_policies_visible_to(who)} == {"active"}


def test_a_process_writes_no_review_policy(policy: object) -> None:
    with pytest.raises(DomainError):
        review_policy_draft(actor=service_principal("controller"), text=LIMITED)


def test_drafts_are_bounded(ada: Principal) -> None:
    for _ in range(OPEN_MAX):
        review_policy_draft(actor=ada, text=LIMITED)
    with pytest.raises(WrongState, match="50 drafts and proposals"):
        review_policy_draft(actor=ada, text=LIMITED)


# The state machine, and what the database holds


def reached(state: PolicyState, ada: Principal, carla: Principal) -> ReviewPolicy:
    policy = review_policy_draft(actor=ada, text=LONGER)
    if state is PolicyState.WITHDRAWN:
        return review_policy_withdraw(actor=ada, policy_id=policy.pk)
    if state is not PolicyState.DRAFT:
        policy = review_policy_propose(actor=ada, policy_id=policy.pk)
    if state is PolicyState.REJECTED:
        return decided(carla, policy, "reject")
    if state in (PolicyState.ACTIVE, PolicyState.SUPERSEDED):
        policy = decided(carla, policy)
    if state is PolicyState.SUPERSEDED:
        decided(carla, proposed(ada, LIMITED))
        policy.refresh_from_db()
    assert policy.state == state
    return policy


SERVICES_ALONE = {
    (PolicyState.WITHDRAWN, PolicyState.PROPOSED),
    (PolicyState.REJECTED, PolicyState.SUPERSEDED),
}
PAIRS = [(before, after) for before in PolicyState for after in PolicyState]


@pytest.mark.parametrize(("before", "after"), PAIRS)
def test_only_the_moves_of_the_table_are_made(
    before: PolicyState, after: PolicyState, ada: Principal, carla: Principal
) -> None:
    policy = reached(before, ada, carla)
    if after in ALLOWED_TRANSITIONS[before]:
        if after is PolicyState.ACTIVE:
            ReviewPolicy.objects.filter(name="limited", state="active").update(state="superseded")
        moved = REVIEW_POLICIES.move(
            policy, after, actor=carla if before is PolicyState.PROPOSED else ada
        )
        assert moved.state == after
        return
    with pytest.raises(WrongState, match="it cannot become"):
        REVIEW_POLICIES.move(policy, after, actor=ada)
    # The database keeps decisions; the rest is the services' rule alone.
    if before is not after and (before, after) not in SERVICES_ALONE:
        with pytest.raises(IntegrityError), transaction.atomic():
            ReviewPolicy.objects.filter(pk=policy.pk).update(state=after)


def test_an_installed_version_does_not_come_back_without_a_decision(policy: object) -> None:
    rows = ReviewPolicy.objects.filter(name="limited", version=1)
    rows.update(state=PolicyState.SUPERSEDED)
    with pytest.raises(IntegrityError, match="superseded permanently"), transaction.atomic():
        rows.update(state=PolicyState.ACTIVE)


@pytest.mark.parametrize("state", [s for s in PolicyState if s != "draft"])
@pytest.mark.parametrize(
    "change",
    [
        {"text": "other"},
        {"digest": "0" * 64},
        {"based_on": 7},
        {"authors": [1, 2, 3]},
        {"name": "other"},
        {"version": 99},
        {"proposed_by": None},
    ],
)
def test_what_is_no_draft_stands(
    state: PolicyState, change: dict[str, Any], ada: Principal, carla: Principal
) -> None:
    policy = reached(state, ada, carla)
    if change == {"proposed_by": None} and policy.proposed_by_id is None:
        change = {"proposed_by": ada.person_id}
    with pytest.raises(IntegrityError), transaction.atomic():
        ReviewPolicy.objects.filter(pk=policy.pk).update(**change)


def test_no_version_is_deleted(policy: object) -> None:
    with pytest.raises(IntegrityError, match="never deleted"), transaction.atomic():
        ReviewPolicy.objects.filter(name="limited")._raw_delete("default")


def test_the_database_lets_no_author_decide_nor_anything_go_in_force_undecided(
    ada: Principal, carla: Principal
) -> None:
    policy = proposed(ada)
    ReviewPolicy.objects.filter(name="limited", state="active").update(state="superseded")
    rows = ReviewPolicy.objects.filter(pk=policy.pk)
    for change in (
        {"state": "active"},
        {"state": "active", "decided_by": ada.person_id},
        {"state": "rejected", "decided_by": ada.person_id},
    ):
        with pytest.raises(IntegrityError), transaction.atomic():
            rows.update(**change)
    rows.update(state="active", decided_by=carla.person_id)
    with pytest.raises(IntegrityError), transaction.atomic():
        ReviewPolicy.objects.create(name="medical", version=1, text="x", digest="y", state="active")


@pytest.mark.django_db(transaction=True)
def test_of_two_put_in_force_at_once_one_is(person: Callable[..., Person]) -> None:
    policy_bootstrap()
    review_policies_bootstrap()
    ada = principal_for_person(person("Ada", "admin"))
    deciders = [proven(person(name, "admin")) for name in ("Ben", "Cleo")]
    policies = [proposed(ada), proposed(ada, LIMITED.replace("due_days: 14", "due_days: 9"))]
    start, outcomes = threading.Barrier(2), []

    def decide(who: Principal, policy: ReviewPolicy) -> None:
        try:
            start.wait(PATIENCE_S)
            decided(who, policy)
            outcomes.append("active")
        except WrongState as error:
            outcomes.append("stale" if "drafted from version 1" in error.message else "other")
        finally:
            connection.close()

    threads = [
        threading.Thread(target=decide, args=pair) for pair in zip(deciders, policies, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(outcomes) == ["active", "stale"]
    assert ReviewPolicy.objects.filter(name="limited", state="active").count() == 1


def test_who_decides_has_just_given_a_second_factor(ada: Principal, carla: Principal) -> None:
    policy = proposed(carla)
    for verdict in ("approve", "reject"):
        with pytest.raises(NotPermitted) as caught:
            review_policy_decide(
                actor=replace(ada, proof=None), policy_id=policy.pk, verdict=verdict, reason="Yes."
            )
        assert caught.value.code == "step_up_required"
        assert caught.value.attempt is not None
    review_policy_decide(actor=ada, policy_id=policy.pk, verdict="approve", reason="Agreed.")
    (body,) = bodies(action="review_policy:activate", subject_id=str(policy.pk))
    assert body["data"]["proof_method"] == "totp"
