from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from governance.audit.models import AuditEvent
from governance.errors import InvalidInput, NotFound, NotPermitted
from governance.keys.models import ApiKey
from governance.keys.services import access_token_create, key_create
from governance.people.models import Department, Person
from governance.principals import Principal
from governance.quotas.models import QuotaLimit
from governance.quotas.selectors import Limit, quota_limits, quotas_visible_to
from governance.quotas.services import quota_set

KIND = "tokens_per_minute"


@pytest.fixture
def admin(actor: Callable[..., Principal]) -> Principal:
    return actor("Ada", "admin")


@pytest.fixture
def clinical(department: Callable[[str], Department]) -> Department:
    return department("clinical")


@pytest.fixture
def key(admin: Principal, clinical: Department) -> ApiKey:
    return key_create(
        actor=admin,
        department=clinical,
        name="app",
        scopes=["deployment:invoke"],
        expires_at=timezone.now() + timedelta(days=1),
    )[0]


def test_a_limit_is_set_changed_and_taken_away(
    admin: Principal, clinical: Department, key: ApiKey
) -> None:
    quota_set(actor=admin, kind=KIND, limit=100, department=clinical)
    quota_set(actor=admin, kind=KIND, limit=0, department=clinical)
    quota_set(actor=admin, kind=KIND, limit=7, api_key=key)
    assert quota_limits() == [
        Limit("clinical", None, KIND, 0),
        Limit("clinical", key.public_id, KIND, 7),
    ]
    quota_set(actor=admin, kind=KIND, limit=None, department=clinical)
    quota_set(actor=admin, kind=KIND, limit=None, department=clinical)
    assert [limit.limit for limit in quota_limits()] == [7]
    assert AuditEvent.objects.filter(action="quota:set", department="clinical").count() == 5


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"kind": "cheese"}, "kind"),
        ({"limit": -1}, "limit"),
        ({"limit": 10**30}, "limit"),
        ({"department": None}, "department"),
    ],
)
def test_a_limit_that_makes_no_sense_is_refused(
    admin: Principal, clinical: Department, changes: dict[str, Any], field: str
) -> None:
    asked: dict[str, Any] = {"kind": KIND, "limit": 1, "department": clinical} | changes
    with pytest.raises(InvalidInput) as caught:
        quota_set(actor=admin, **asked)
    assert list(caught.value.fields) == [field]


def test_a_persons_access_token_has_no_limit_of_its_own(
    admin: Principal, person: Callable[..., Person]
) -> None:
    token, _ = access_token_create(person=person("Dora"), name="laptop")
    with pytest.raises(InvalidInput, match="access token"):
        quota_set(actor=admin, kind=KIND, limit=1, api_key=token)


def test_a_lead_sees_limits_and_sets_none_and_others_see_nothing(
    admin: Principal, clinical: Department, actor: Callable[..., Principal], key: ApiKey
) -> None:
    quota_set(actor=admin, kind=KIND, limit=1, department=clinical)
    quota_set(actor=admin, kind=KIND, limit=1, api_key=key)
    lead, stranger = actor("Lena", "lead@clinical"), actor("Finn", "lead@finance")
    assert quotas_visible_to(lead).count() == 2
    assert not quotas_visible_to(stranger).exists()
    with pytest.raises(NotPermitted):
        quota_set(actor=lead, kind=KIND, limit=2, department=clinical)
    with pytest.raises(NotFound):
        quota_set(actor=stranger, kind=KIND, limit=2, department=clinical)
    assert set(QuotaLimit.objects.values_list("limit", flat=True)) == {1}
