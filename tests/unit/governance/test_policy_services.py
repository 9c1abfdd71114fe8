from __future__ import annotations

import re
from collections.abc import Callable
from io import StringIO

import pytest
from django.core.management import CommandError, call_command

from governance.audit.models import AuditEvent
from governance.errors import NotFound, NotPermitted
from governance.people.models import OneTimeLink, Person
from governance.permissions import Action
from governance.policy.engine import Resource
from governance.policy.models import PolicyState, PolicyVersion
from governance.policy.selectors import policy_get, visible_to
from governance.policy.services import active_policy, authorize, policy_bootstrap, policy_digest
from governance.principals import ANONYMOUS, Principal
from tests.unit.policy_support import install_rules

MODEL = Resource(
    "model", id="1", name="sentiment", department="clinical", attributes={"shared": False}
)


@pytest.mark.django_db
def test_without_an_active_policy_even_an_admin_is_refused_and_told_the_remedy(
    person: Callable[..., Person],
) -> None:
    from governance.people.selectors import people_visible_to, principal_for_person

    admin = principal_for_person(person("Ada", "admin"))
    with pytest.raises(NotPermitted, match=re.escape("manage.py bootstrap")):
        authorize(actor=admin, action=Action.MODEL_VIEW, resource=MODEL)
    assert not people_visible_to(admin).exists()


def test_bootstrapping_twice_leaves_one_policy(policy: PolicyVersion) -> None:
    assert policy_bootstrap().pk == policy.pk
    assert PolicyVersion.objects.count() == 1
    assert policy.state == PolicyState.ACTIVE
    assert policy.digest == policy_digest(policy.rules)
    assert AuditEvent.objects.filter(action="policy:activate").count() == 1


def test_what_one_may_not_view_does_not_exist(actor: Callable[..., Principal]) -> None:
    stranger = actor("Finn", "developer@finance")
    for action in (Action.MODEL_VIEW, Action.GATE_SET):
        with pytest.raises(NotFound, match=r"There is no such model\.") as caught:
            authorize(actor=stranger, action=action, resource=MODEL)
        assert caught.value.attempt is not None


def test_what_one_may_view_but_not_do_is_refused_in_words(
    actor: Callable[..., Principal],
) -> None:
    viewer = actor("Vera", "viewer@clinical")
    with pytest.raises(NotPermitted, match="Vera may not set gate for model sentiment") as caught:
        authorize(actor=viewer, action=Action.GATE_SET, resource=MODEL)
    attempt = caught.value.attempt
    assert attempt is not None
    assert (attempt.actor, attempt.action, attempt.department) == (viewer, "gate:set", "clinical")
    assert attempt.decision is not None
    assert (attempt.subject.id, attempt.decision.policy_version) == ("1", 1)


def test_creating_in_a_department_one_cannot_see_hides_the_department(
    actor: Callable[..., Principal],
) -> None:
    resource = Resource("model", department="clinical")
    with pytest.raises(NotFound, match=r"There is no such department\."):
        authorize(
            actor=actor("Finn", "lead@finance"), action=Action.MODEL_CREATE, resource=resource
        )
    with pytest.raises(NotPermitted, match="may not create model in department clinical"):
        authorize(
            actor=actor("Vera", "viewer@clinical"), action=Action.MODEL_CREATE, resource=resource
        )


def test_a_refusal_about_nothing_in_particular_hides_nothing(
    actor: Callable[..., Principal],
) -> None:
    developer = actor("Dora", "developer@clinical")
    for action in (Action.AUDIT_EXPORT, Action.AUDIT_VIEW):
        with pytest.raises(NotPermitted):
            authorize(actor=developer, action=action, resource=Resource("audit"))


def test_a_changed_policy_is_in_force_at_once(
    policy: PolicyVersion, actor: Callable[..., Principal]
) -> None:
    admin = actor("Ada", "admin")
    authorize(actor=admin, action=Action.MODEL_VIEW, resource=MODEL)
    install_rules([])
    assert active_policy().version == 2
    with pytest.raises(NotFound):
        authorize(actor=admin, action=Action.MODEL_VIEW, resource=MODEL)


def test_everyone_who_is_signed_in_reads_the_policy(
    policy: PolicyVersion, actor: Callable[..., Principal]
) -> None:
    assert policy_get(actor=actor("Nobody")) == policy
    with pytest.raises(NotPermitted):
        policy_get(actor=ANONYMOUS)


def test_a_list_of_an_unknown_type_is_an_error_in_our_own_code(
    actor: Callable[..., Principal],
) -> None:
    with pytest.raises(KeyError):
        visible_to(
            actor("Ada", "admin"), Action.MODEL_VIEW, Person.objects.all(), resource_type="cheese"
        )


@pytest.mark.django_db
def test_bootstrap_invites_the_first_admin_until_they_have_set_a_password() -> None:
    printed = []
    for _ in range(2):
        out = StringIO()
        call_command("bootstrap", admin="Ada@example.org", name="Ada", stdout=out)
        printed.append(out.getvalue())
    ada = Person.objects.get()
    assert ada.email == "ada@example.org"
    assert not ada.has_usable_password()
    assert [held.role for held in ada.role_assignments.all()] == ["admin"]
    # A lost link is replaced, and the earlier one is dead.
    assert all("/sign-in/link#" in text for text in printed)
    assert OneTimeLink.objects.filter(revoked_at=None).count() == 1
    ada.set_password("correct horse battery")
    ada.save()
    out = StringIO()
    call_command("bootstrap", admin="ada@example.org", name="Ada", stdout=out)
    assert "/sign-in/link" not in out.getvalue()
    with pytest.raises(CommandError, match="already an administrator"):
        call_command("bootstrap", admin="eve@example.org", name="Eve")
