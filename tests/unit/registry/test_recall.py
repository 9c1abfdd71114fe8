"""A recall: what it reaches, who may do it, and that nothing brings it back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest
from django.db import IntegrityError, connection, transaction
from django.test.utils import CaptureQueriesContext

from governance.audit.models import AuditEvent
from governance.errors import InvalidInput, NotFound, NotPermitted, WrongState
from governance.people.models import Person
from governance.policy.models import PolicyVersion
from governance.principals import Principal, service_principal
from governance.reviews.models import Review, ReviewState
from governance.reviews.selectors import reviews_visible_to
from governance.rowsecurity import scope
from registry.manifests import Manifest
from registry.releases.models import Release, ReleaseState
from registry.releases.services import release_servable
from registry.versions.models import Model, ModelVersion
from registry.versions.recall import (
    Recalled,
    RecallRadius,
    recall_radius,
    version_recall,
    versions_below,
)
from registry.versions.services import version_register
from tests.proofs import proven
from tests.unit.policy_support import install_rules
from tests.unit.registry.objects import evaluation, model, stored, version
from tests.unit.registry.office import Office

pytestmark = [pytest.mark.sweep, pytest.mark.django_db]


@pytest.fixture
def ada(actor: Callable[..., Principal]) -> Principal:
    return actor("Ada", "admin")


def recall(who: Principal, what: ModelVersion, **changes: Any) -> Recalled:
    given = {"reason": "It leaks its training data.", **changes}
    if "confirm" not in given:
        given["confirm"] = recall_radius(actor=who, version_id=what.pk).digest
    return version_recall(actor=who, version_id=what.pk, **given)


def states(*of: ModelVersion) -> list[str]:
    found = dict(ModelVersion.objects.values_list("pk", "state"))
    return [found[each.pk] for each in of]


def test_everything_below_is_recalled_in_one_action_and_nothing_beside_it(
    office: Office, ada: Principal
) -> None:
    approved = office.approve(office.submit())
    waiting = office.submit(deployment_name="second")
    withdrawn = Release.objects.get(pk=office.submit(deployment_name="third").pk)
    Release.objects.filter(pk=withdrawn.pk).update(state=ReleaseState.WITHDRAWN)
    Review.objects.filter(subject_id=str(withdrawn.pk)).update(state=ReviewState.WITHDRAWN)
    adapter = version(office.tuned.model, office.trainer, "adapter", office.tuned)
    beside = version(office.base.model, office.supplier)

    done = recall(ada, office.base)

    assert (done.versions, done.releases, done.reviews) == (3, 2, 1)
    assert states(office.base, office.tuned, adapter, beside) == [*["recalled"] * 3, "trusted"]
    found = dict(Release.objects.values_list("pk", "state"))
    assert found == {approved.pk: "recalled", waiting.pk: "recalled", withdrawn.pk: "withdrawn"}
    assert Review.objects.get(subject_id=str(waiting.pk)).state == ReviewState.VOIDED
    assert Review.objects.get(subject_id=str(waiting.pk)).closed_at is not None
    with pytest.raises(WrongState, match="is recalled; it may not serve"):
        release_servable(Release.objects.get(pk=approved.pk))
    adapter.refresh_from_db()
    assert adapter.recalled_with_id == office.base.pk
    assert adapter.recalled_by_id == ada.person_id
    assert (adapter.recall_reason, adapter.recalled_at is not None) == (
        "It leaks its training data.",
        True,
    )


def test_each_version_release_and_review_has_its_event(office: Office, ada: Principal) -> None:
    office.approve(office.submit())
    office.submit(deployment_name="second")
    recall(ada, office.base)
    events = AuditEvent.objects.filter(
        action__in=["version:recall", "release:recalled", "review:voided"], outcome="allowed"
    )
    told = [(event.action, event.subject_name) for event in events.order_by("pk")]
    assert [action for action, _ in told] == [
        *["version:recall"] * 2,
        *["release:recalled"] * 2,
        "review:voided",
    ]
    assert told[0][1] == "minilm v1"
    assert {event.department for event in events} == {"clinical"}


def test_the_list_says_what_a_recall_reaches(office: Office, ada: Principal) -> None:
    release = office.submit()
    found = recall_radius(actor=ada, version_id=office.base.pk)
    assert [each.pk for each in found.versions] == [office.base.pk, office.tuned.pk]
    assert [each.pk for each in found.releases] == [release.pk]
    assert (found.versions_total, found.releases_total) == (2, 1)
    assert versions_below(office.tuned.pk) == [office.tuned.pk]


def test_the_same_bytes_under_another_name_are_reached_and_never_come_back(
    office: Office, ada: Principal
) -> None:
    twin = ModelVersion.objects.create(
        model=model(office.supplier, office.clinical, "copy"),
        number=1,
        kind="base",
        digest=office.base.digest,
        manifest=office.base.manifest,
        size_bytes=1,
        created_by=office.supplier,
    )
    below_twin = version(twin.model, office.supplier, "full", twin)
    recall(ada, office.base)
    assert states(twin, below_twin, office.tuned) == ["recalled"] * 3
    with pytest.raises(WrongState, match=r"bytes of .* v1, which is recalled"):
        register(office, stored({"model.safetensors": b"x"}), digest_of=office.base)


def register(office: Office, manifest: Any, *, digest_of: ModelVersion | None = None) -> Any:
    if digest_of is not None:
        manifest = Manifest.from_json(digest_of.manifest)
    return version_register(
        actor=service_principal("controller"),
        model=office.base.model,
        kind="base",
        manifest=manifest,
        base=None,
        dataset_version=None,
        parameters={},
        metrics={},
        history=[],
        license="MIT",
        card="",
        job_id=uuid4(),
        created_by=office.supplier,
    )


def test_a_list_that_has_changed_meanwhile_confirms_nothing(office: Office, ada: Principal) -> None:
    old = recall_radius(actor=ada, version_id=office.base.pk).digest
    adapter = version(office.tuned.model, office.trainer, "adapter", office.tuned)
    with pytest.raises(WrongState, match="no longer the list") as refused:
        recall(ada, office.base, confirm=old)
    assert refused.value.code == "lineage_changed"
    office.submit()
    assert recall_radius(actor=ada, version_id=office.base.pk).digest != old
    assert states(office.base, office.tuned, adapter) == ["trusted"] * 3


def test_a_recall_is_done_once_and_what_it_found_recalled_keeps_its_reason(
    office: Office, ada: Principal
) -> None:
    recall(ada, office.tuned, reason="The tuning went wrong.")
    recall(ada, office.base, reason="The base too.")
    with pytest.raises(WrongState, match="is already recalled"):
        recall(ada, office.base)
    office.tuned.refresh_from_db()
    assert office.tuned.recall_reason == "The tuning went wrong."
    assert office.tuned.recalled_with_id == office.tuned.pk


@pytest.mark.parametrize("reason", ["", "  ", "x" * 1001])
def test_a_recall_has_a_reason(office: Office, ada: Principal, reason: str) -> None:
    with pytest.raises(InvalidInput):
        recall(ada, office.base, reason=reason)
    assert states(office.base) == ["trusted"]


@pytest.mark.parametrize("role", ["admin", "reviewer:model-risk", "reviewer:security"])
def test_admins_and_reviewers_for_risk_and_security_recall(
    office: Office, actor: Callable[..., Principal], role: str
) -> None:
    assert recall(actor("Rita", role), office.base).versions == 2


@pytest.mark.parametrize(
    ("role", "error"),
    [
        ("reviewer:compliance", NotPermitted),
        ("operator", NotPermitted),
        ("auditor", NotPermitted),
        ("lead@clinical", NotPermitted),
        ("lead@finance", NotFound),
    ],
)
def test_others_neither_recall_nor_see_the_list(
    office: Office, actor: Callable[..., Principal], role: str, error: type[Exception]
) -> None:
    who = actor("Rob", role)
    with pytest.raises(error):
        recall_radius(actor=who, version_id=office.base.pk)
    with pytest.raises(error):
        recall(who, office.base, confirm="0" * 64)
    assert states(office.base, office.tuned) == ["trusted"] * 2


def test_a_service_recalls_nothing(office: Office) -> None:
    with pytest.raises((NotFound, NotPermitted)):
        recall(service_principal("controller"), office.base, confirm="0" * 64)


def test_a_department_that_the_policy_lets_recall_reaches_others_and_is_not_told_their_names(
    actor: Callable[..., Principal], person: Callable[..., Person], department: Callable[..., Any]
) -> None:
    rules = [
        *PolicyVersion.objects.get(number=1).rules,
        {
            "id": "leads-recall",
            "effect": "permit",
            "description": "leads recall what their department made",
            "principal": {"department_roles": ["lead"]},
            "actions": ["version:recall"],
        },
    ]
    install_rules(rules)
    lead = actor("Lea", "lead@clinical")
    fin = person("Fin", "developer@finance")
    base = version(model(fin, department("clinical"), "base", shared=True), fin)
    hidden = version(model(fin, department("finance"), "hidden"), fin, "full", base)
    with scope(lead):
        found = recall_radius(actor=lead, version_id=base.pk)
        assert [str(each) for each in found.versions] == ["base v1"]
        assert found.versions_total == 2
        assert recall(lead, base, confirm=found.digest).versions == 2
    assert states(base, hidden) == ["recalled"] * 2


def test_the_database_lets_nothing_back(office: Office, ada: Principal) -> None:
    release = office.approve(office.submit())
    recall(ada, office.base)
    refused: list[Callable[[], Any]] = [
        lambda: ModelVersion.objects.filter(pk=office.tuned.pk).update(state="trusted"),
        lambda: ModelVersion.objects.filter(pk=office.tuned.pk).update(digest="0" * 64),
        lambda: version(office.tuned.model, office.trainer, "adapter", office.base),
        lambda: Release.objects.filter(pk=release.pk).update(state="approved"),
        lambda: Release.objects.filter(pk=release.pk).update(state="in_review"),
    ]
    for change in refused:
        with pytest.raises(IntegrityError), transaction.atomic():
            change()
    with pytest.raises(WrongState, match="cannot be released"):
        office.submit(deployment_name="again")


def test_the_trigger_sees_recalled_rows_that_the_writer_does_not(
    policy: object, person: Callable[..., Person], department: Callable[..., Any]
) -> None:
    fin = person("Fin", "developer@finance")
    secret = version(model(fin, department("finance"), "secret"), fin)
    ModelVersion.objects.filter(pk=secret.pk).update(state="recalled")
    devi = person("Dana", "developer@clinical")
    dev = proven(devi)
    own = model(devi, department("clinical"), "own")
    with scope(dev):
        assert not ModelVersion.objects.filter(pk=secret.pk).exists()
        with pytest.raises(IntegrityError), transaction.atomic():
            ModelVersion.objects.create(
                model=own, number=1, kind="base", digest=secret.digest, manifest={},
                size_bytes=1, created_by=devi,
            )  # fmt: skip
        # Row security still filters the rows.
        assert not ModelVersion.objects.filter(pk=secret.pk).exists()
        assert Model.objects.filter(pk=own.pk).exists()


def queries(call: Callable[[], Any]) -> int:
    with CaptureQueriesContext(connection) as captured:
        call()
    return len(captured)


def test_a_long_lineage_costs_no_more_queries_than_a_short_one(
    office: Office, ada: Principal
) -> None:
    short = office.tuned
    office.submit()
    version(short.model, office.trainer, "adapter", short)
    few: list[RecallRadius] = []
    listing = queries(lambda: few.append(recall_radius(actor=ada, version_id=short.pk)))
    acting = queries(lambda: recall(ada, short, confirm=few[0].digest))
    parent = office.base
    for number in range(12):
        parent = version(office.base.model, office.supplier, "full", parent)
        evaluation(parent, office.test, office.trainer)
        office.submit(deployment_name=f"name-{number}", version=parent)
    many: list[RecallRadius] = []
    more = queries(lambda: many.append(recall_radius(actor=ada, version_id=office.base.pk)))
    assert (many[0].versions_total, many[0].releases_total) == (15, 13)
    assert more == listing
    assert queries(lambda: recall(ada, office.base, confirm=many[0].digest)) == acting


def test_voided_reviews_stay_to_be_read(office: Office, ada: Principal) -> None:
    release = office.submit()
    recall(ada, office.base)
    seen = reviews_visible_to(proven(office.submitter))
    assert seen.get(subject_id=str(release.pk)).state == ReviewState.VOIDED
