from __future__ import annotations

import pytest

from governance.audit.personal import opened_body
from governance.audit.selectors import audit_event_get, audit_events_visible_to
from governance.audit.services import Subject, audit_record
from governance.errors import NotFound
from governance.policy.services import policy_bootstrap
from governance.principals import (
    ANONYMOUS,
    ActorRole,
    Principal,
    PrincipalKind,
    service_principal,
)

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def policy():
    policy_bootstrap()


def person(role: str, department: str | None = None) -> Principal:
    held = frozenset({ActorRole(role, department)})
    return Principal(kind=PrincipalKind.PERSON, id="1", name="P", roles=held, person_id=1)


def record(department: str, name: str = "m", action: str = "model:create"):
    return audit_record(
        actor=service_principal("tester"),
        action=action,
        subject=Subject("model", name, name),
        department=department,
        reason=f"about {name}",
    )


def test_the_audit_log_is_shown_as_the_policy_says():
    clinical, finance, platform = record("clinical"), record("finance"), record("")
    for role in ("admin", "auditor", "operator"):
        seen = audit_events_visible_to(person(role), subject_type="model")
        assert list(seen) == [platform, finance, clinical]
    lead = person("lead", "clinical")
    assert list(audit_events_visible_to(lead)) == [clinical]
    assert audit_event_get(actor=lead, id=clinical.pk) == clinical
    with pytest.raises(NotFound):
        audit_event_get(actor=lead, id=finance.pk)
    assert not audit_events_visible_to(ANONYMOUS)


def test_the_audit_log_is_filtered():
    one = record("clinical", "sentiment")
    two = record("finance", "ledger", action="model:view")
    auditor = person("auditor")
    for filters, expected in [
        ({"action": "model:view"}, [two]),
        ({"department": "clinical"}, [one]),
        ({"subject_id": "ledger"}, [two]),
        ({"subject_type": "dataset"}, []),
        ({"actor_id": "tester", "outcome": "allowed"}, [two, one]),
        ({"outcome": "denied"}, []),
        ({"query": "SENTIMENT"}, [one]),
        ({"query": "nul\x00"}, []),
        ({"actor_id": "tester\x00"}, []),
        ({"query": "%"}, []),
        ({"since": two.occurred_at}, [two]),
        ({"until": two.occurred_at}, [one]),
        ({"action": "", "query": ""}, [two, one]),
    ]:
        seen = audit_events_visible_to(auditor, **{"subject_type": "model", **filters})
        assert list(seen) == expected, filters
    assert opened_body(one)["subject_name"] == "sentiment"
