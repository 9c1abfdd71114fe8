"""No sequence of actions of one person with one factor ends in two votes, nor in both hands of
anything that takes two people.

Ada administers and reviews, and does all that the services let her, as herself and as every account
whose sign-in she has come to know. The others are honest: they approve what Ada requests for people
whom they know, and hand a link to its person alone.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest
from allauth.mfa.models import Authenticator
from django.db import transaction
from django.utils import timezone
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from assay.accounts import crypto, factors
from assay.accounts import links as account_links
from assay.accounts.factors import factor_remove, factors_reset, new_secret, totp_activate
from assay.accounts.links import password_set
from governance.audit.services import Subject
from governance.errors import DomainError
from governance.people import links, selectors
from governance.people.credentials import has_factor, is_privileged, privileged_roles
from governance.people.groups import group_mapping_create, group_mapping_delete, members_sync
from governance.people.links import password_link_create
from governance.people.models import (
    DirectoryGroup,
    GroupMapping,
    Person,
    RoleRequest,
    RoleRequestState,
)
from governance.people.recoveries.approving import recovery_approve
from governance.people.recoveries.models import AccountRecovery, RecoveryState
from governance.people.recoveries.opening import one_time_link_open
from governance.people.recoveries.services import recovery_reject, recovery_request
from governance.people.role_requests import role_request_approve
from governance.people.roles import role_grant, role_revoke
from governance.people.selectors import principal_for_person
from governance.people.services import person_create, person_deactivate, person_reactivate
from governance.policy.lifecycle import draft_create, policy_approve, policy_propose
from governance.policy.models import PolicyState, PolicyVersion
from governance.principals import Principal, service_principal
from governance.reviews.absences.services import absence_set
from governance.reviews.checklist import ChecklistEntry, CheckOutcome
from governance.reviews.models import Review, ReviewState
from governance.reviews.services import review_decide, review_open
from governance.reviews.waivers.models import Waiver, WaiverState
from governance.reviews.waivers.services import waiver_decide, waiver_request
from tests.people import find_or_make, make_person
from tests.proofs import fresh_proof, proven
from tests.unit.assay.sign_in_support import code_of, give_totp, with_password

pytestmark = [pytest.mark.usefixtures("policy", "redis", "db"), pytest.mark.sweep]
ADA = 0
PASSWORDS = (f"the password number {number} of Ada" for number in itertools.count())
SPECIALTIES = ("compliance", "model-risk")
# Roles that a request or a mapping may name, with their specialty.
ROLES = (
    ("admin", ""),
    ("operator", ""),
    ("reviewer", "compliance"),
    ("reviewer", "model-risk"),
    ("lead", ""),
    ("developer", ""),
)
PEOPLE_MAX = 11
# Most is done to anybody, by Ada or by an account that she invented.
who = st.integers(0, PEOPLE_MAX - 1)
hands = st.sampled_from((ADA, ADA, ADA, 2, 3, 8, 8, 9, 10))


class Ada(RuleBasedStateMachine):
    """Everything that Ada may try; `known` and `secrets` are the sign-ins that she has."""

    variant: tuple[str, ...] = ("admin",)

    @initialize()
    def company(self) -> None:
        self.block = transaction.atomic()
        self.block.__enter__()
        clinical = find_or_make("clinical")
        ada = make_person("Ada", *self.variant)
        self.real = [
            make_person("Bea", "admin"),
            make_person("Cleo", "admin"),
            make_person("Rex", "reviewer:compliance"),
            make_person("Mia", "reviewer:model-risk"),
            make_person("Dev", "developer@clinical"),
            make_person("Lea", "lead@clinical"),
            make_person("Gil"),
        ]
        self.people = [ada, *self.real]
        for person in self.people:
            with_password(person)
            if is_privileged(person):
                give_totp(person)
        # Gil is a reviewer by a group, as the identity provider says.
        group = DirectoryGroup.objects.create(name="reviewers")
        gil = self.real[-1]
        group.members.add(gil)
        for role, specialty in (("reviewer", "compliance"), ("admin", "")):
            GroupMapping.objects.create(group=group.name, role=role, specialty=specialty)
        members_sync(actor=service_principal("scim"), people=[gil])
        self.department = clinical
        self.known: dict[int, str] = {}
        self.secrets: dict[int, str] = {}
        self.links: list[str] = []
        self.codes: list[str] = []
        self.opened: list[int] = []
        # IDs of the objects that Ada requested, wrote or opened, by kind.
        self.made: dict[str, set[int]] = {}
        self.voted: dict[int, set[int]] = {}
        row = Authenticator.objects.get(user=ada, type="totp")
        self.secrets[ada.pk] = crypto.decrypt(row.data["secret"])
        self.ada = ada

    def teardown(self) -> None:
        if hasattr(self, "block"):
            transaction.set_rollback(True)
            self.block.__exit__(None, None, None)

    # -- whose hands are Ada's --

    def person(self, number: int) -> Person:
        return Person.objects.get(pk=self.people[number % len(self.people)].pk)

    def is_hers(self, person: Person) -> bool:
        """True when Ada can sign in as them: with their password, and their factor if they have
        one."""
        if person.pk == self.ada.pk:
            return True
        typed = self.known.get(person.pk)
        if typed is None or not person.is_active or not person.check_password(typed):
            return False
        return not has_factor(person.pk) or self.has_proof(person)

    def has_proof(self, person: Person) -> bool:
        row = Authenticator.objects.filter(user=person, type="totp").first()
        mine = self.secrets.get(person.pk)
        return row is not None and mine is not None and crypto.decrypt(row.data["secret"]) == mine

    def hand(self, number: int) -> Principal:
        """An account of hers, as an actor with every proof that she can give; else herself."""
        person = self.person(number)
        if not self.is_hers(person):
            person = Person.objects.get(pk=self.ada.pk)
        proof = fresh_proof() if self.has_proof(person) else None
        return principal_for_person(person, proof=proof)

    def note(self, kind: str, made: Any) -> None:
        self.made.setdefault(kind, set()).add(made.pk)

    def both_hands(self, kind: str, made: Any) -> None:
        assert made.pk not in self.made.get(kind, set()), f"{kind}: both hands are Ada's"

    # -- accounts --

    @rule(hand=hands)
    def invents_a_person(self, hand: int) -> None:
        if len(self.people) < PEOPLE_MAX:
            with tried():
                made = person_create(
                    actor=self.hand(hand), email=f"p{len(self.people)}@example.org", name="Puppet"
                )
                self.people.append(made)

    @rule(hand=hands, whom=who)
    def makes_a_password_link(self, hand: int, whom: int) -> None:
        with tried():
            person = self.person(whom)
            self.links.append(password_link_create(actor=self.hand(hand), person_id=person.pk)[1])

    @rule(hand=hands, whom=who)
    def requests_a_recovery(self, hand: int, whom: int) -> None:
        with tried():
            recovery, code = recovery_request(
                actor=self.hand(hand),
                person_id=self.person(whom).pk,
                purpose="password" if whom % 2 else "factor",
                reason="Lost.",
            )
            self.codes.append(code)
            self.note("recovery", recovery)

    @rule(hand=hands)
    def approves_a_recovery(self, hand: int) -> None:
        for recovery in AccountRecovery.objects.filter(state=RecoveryState.PENDING):
            with tried():
                _, address = recovery_approve(actor=self.hand(hand), recovery_id=recovery.pk)
                self.both_hands("recovery", recovery)
                self.links.append(address)

    @rule()
    def an_honest_administrator_requests_and_ada_approves(self) -> None:
        with tried():
            recovery, _ = recovery_request(
                actor=proven(self.real[0]),
                person_id=self.real[2].pk,
                purpose="password",
                reason="?",
            )
            _, address = recovery_approve(actor=self.hand(ADA), recovery_id=recovery.pk)
            # Ada sees the link, and Bea's code reaches Rex alone.
            self.links.append(address)

    @rule()
    def an_honest_administrator_approves_for_somebody_they_know(self) -> None:
        known = [person.pk for person in self.real]
        rows = AccountRecovery.objects.filter(state=RecoveryState.PENDING, person__in=known)
        for recovery in rows:
            with tried():
                _, address = recovery_approve(actor=proven(self.real[1]), recovery_id=recovery.pk)
                # The link goes to the person, who asks Ada for the code and uses both.
                for code in self.codes:
                    with tried():
                        link = one_time_link_open(text=address, code=code)
                        secret = new_secret()
                        password = next(PASSWORDS)
                        password_set(
                            link_id=link.pk, password=password, secret=secret, code=code_of(secret)
                        )

    @rule()
    def opens_every_link_with_every_code(self) -> None:
        for text in self.links:
            for code in ("", *self.codes):
                with tried():
                    self.opened.append(one_time_link_open(text=text, code=code).pk)

    @rule(whom=who)
    def uses_what_is_open(self, whom: int) -> None:
        for link_id in self.opened:
            secret, password = new_secret(), next(PASSWORDS)
            for step in (-1, 0, 1):
                with tried():
                    link, _ = password_set(
                        link_id=link_id, password=password, secret=secret,
                        code=code_of(secret, step=step),
                    )  # fmt: skip
                    self.known[link.person_id] = password
                    if self.is_ours(link.person_id, secret):
                        self.secrets[link.person_id] = secret

    def is_ours(self, person_id: int, secret: str) -> bool:
        row = Authenticator.objects.filter(user=person_id, type="totp").first()
        return row is not None and crypto.decrypt(row.data["secret"]) == secret

    @rule(whom=who)
    def adds_a_factor(self, whom: int) -> None:
        person = self.person(whom)
        if not self.is_hers(person):
            return
        actor = principal_for_person(
            person, proof=fresh_proof() if self.has_proof(person) else None
        )
        for link_id in (None, *self.opened):
            secret = new_secret()
            with tried():
                totp_activate(actor=actor, secret=secret, code=code_of(secret), link_id=link_id)
                self.secrets[person.pk] = secret

    @rule(whom=who)
    def removes_a_factor(self, whom: int) -> None:
        person = self.person(whom)
        row = Authenticator.objects.filter(user=person, type="totp").first()
        if self.is_hers(person) and row is not None:
            with tried():
                factor_remove(actor=self.hand(whom), factor_id=row.pk)

    @rule(whom=who)
    def sets_an_account_up_alone(self, whom: int) -> None:
        """All at once, for these steps rarely follow each other by chance."""
        self.resets_factors(ADA, whom)
        self.links, self.opened = [], []
        self.makes_a_password_link(ADA, whom)
        self.opens_every_link_with_every_code()
        self.uses_what_is_open(whom)
        self.adds_a_factor(whom)

    @rule(whom=who, role=st.sampled_from(ROLES))
    def gets_a_role_granted(self, whom: int, role: tuple[str, str]) -> None:
        self.asks_for_a_role(ADA, whom, role)
        self.an_honest_administrator_approves_any_role()

    @rule(role=st.sampled_from(ROLES[:4]), first=st.booleans())
    def invents_a_colleague_who_decides(self, role: tuple[str, str], first: bool) -> None:
        """An account that she sets up before, or after, it gets the role."""
        whom = len(self.people)
        if whom < PEOPLE_MAX:
            self.invents_a_person(ADA)
            for step in (0, 1):
                if first is (step == 0):
                    self.sets_an_account_up_alone(whom)
                else:
                    self.gets_a_role_granted(whom, role)

    @rule(hand=hands, whom=who)
    def resets_factors(self, hand: int, whom: int) -> None:
        with tried():
            person = self.person(whom)
            factors_reset(actor=self.hand(hand), person_id=person.pk, reason="Lost.")

    @rule(hand=hands, whom=who)
    def rejects_recoveries(self, hand: int, whom: int) -> None:
        for recovery in AccountRecovery.objects.filter(person=self.person(whom)):
            with tried():
                recovery_reject(actor=self.hand(hand), recovery_id=recovery.pk, reason="No.")

    @rule(hand=hands, whom=who, back=st.booleans())
    def deactivates(self, hand: int, whom: int, back: bool) -> None:
        with tried():
            act = person_reactivate if back else person_deactivate
            act(actor=self.hand(hand), person_id=self.person(whom).pk, reason="Why not.")

    # -- roles --

    @rule(hand=hands, whom=who, role=st.sampled_from(ROLES))
    def asks_for_a_role(self, hand: int, whom: int, role: tuple[str, str]) -> None:
        name, specialty = role
        with tried():
            made = role_grant(
                actor=self.hand(hand), person=self.person(whom), role=name,
                specialty=specialty,
                department=self.department if name in {"lead", "developer"} else None,
            )  # fmt: skip
            if isinstance(made, RoleRequest):
                self.note("role", made)

    @rule(hand=hands)
    def approves_a_role(self, hand: int) -> None:
        for asked in RoleRequest.objects.filter(state=RoleRequestState.PENDING):
            with tried():
                role_request_approve(actor=self.hand(hand), request_id=asked.pk)
                self.both_hands("role", asked)

    @rule()
    def an_honest_administrator_approves_any_role(self) -> None:
        for asked in RoleRequest.objects.filter(state=RoleRequestState.PENDING):
            with tried():
                role_request_approve(actor=proven(self.real[0]), request_id=asked.pk)

    @rule(hand=hands, whom=who)
    def takes_roles_away(self, hand: int, whom: int) -> None:
        for held in self.person(whom).role_assignments.all():
            with tried():
                role_revoke(actor=self.hand(hand), assignment_id=held.pk)

    @rule(hand=hands, role=st.sampled_from(ROLES), keep=st.booleans())
    def changes_what_a_group_means(self, hand: int, role: tuple[str, str], keep: bool) -> None:
        with tried():
            if keep:
                made = group_mapping_create(
                    actor=self.hand(hand), group="reviewers", role=role[0], specialty=role[1]
                )
                if isinstance(made, RoleRequest):
                    self.note("role", made)
            else:
                for mapping in GroupMapping.objects.all():
                    group_mapping_delete(actor=self.hand(hand), mapping_id=mapping.pk)

    @rule()
    def the_identity_provider_says_its_groups_again(self) -> None:
        members_sync(actor=service_principal("scim"), people=[self.real[-1]])

    # -- what takes two --

    @rule(hand=hands)
    def drafts_a_policy(self, hand: int) -> None:
        with tried():
            rules = PolicyVersion.objects.get(number=1).rules
            draft = draft_create(actor=self.hand(hand), rules=rules, note="Mine.")
            policy_propose(actor=self.hand(hand), number=draft.number)
            self.note("policy", draft)

    @rule(hand=hands)
    def approves_a_policy(self, hand: int) -> None:
        for version in PolicyVersion.objects.filter(state=PolicyState.PROPOSED):
            with tried():
                policy_approve(actor=self.hand(hand), number=version.number)
                self.both_hands("policy", version)

    @rule(hand=hands, honest=st.booleans())
    def submits_something(self, hand: int, honest: bool) -> None:
        with tried():
            number = Review.objects.count()
            review = review_open(
                actor=proven(self.real[4]) if honest else self.hand(hand),
                subject=Subject("thing", str(number), f"thing {number}"),
                department=self.department, tier="limited", digest="a" * 64,
                required_approvals=dict.fromkeys(SPECIALTIES, 1), excluded_people=[],
                checklist=[
                    ChecklistEntry(
                        "gates", "Gates", outcome=CheckOutcome.FAILED, note="0.7", waivable=True
                    )
                ],
                due_at=timezone.now() + timedelta(days=7),
            )  # fmt: skip
            if not honest:
                self.note("review", review)

    @rule(hand=hands)
    def asks_for_a_waiver(self, hand: int) -> None:
        for review in Review.objects.filter(state=ReviewState.OPEN):
            with tried():
                waiver = waiver_request(
                    actor=self.hand(hand), review_id=review.pk, code="gates", reason="Later.",
                    expires_at=timezone.now() + timedelta(days=1),
                )  # fmt: skip
                self.note("waiver", waiver)

    @rule(hand=hands, honest=st.booleans())
    def grants_a_waiver(self, hand: int, honest: bool) -> None:
        for waiver in Waiver.objects.filter(state=WaiverState.REQUESTED):
            with tried():
                actor = proven(self.real[2]) if honest else self.hand(hand)
                waiver_decide(actor=actor, waiver_id=waiver.pk, verdict="granted", reason="Fine.")
                if not honest:
                    self.both_hands("waiver", waiver)

    @rule(hand=hands, whom=who, deputy=who, specialty=st.sampled_from(SPECIALTIES))
    def names_a_deputy(self, hand: int, whom: int, deputy: int, specialty: str) -> None:
        with tried():
            now = timezone.now()
            absence_set(
                actor=self.hand(hand), person=self.person(whom), deputy=self.person(deputy),
                specialty=specialty, starts_at=now, ends_at=now + timedelta(days=1),
            )  # fmt: skip

    @rule(hand=hands, specialty=st.sampled_from(("", *SPECIALTIES)))
    def votes(self, hand: int, specialty: str) -> None:
        for review in Review.objects.filter(state=ReviewState.OPEN):
            actor = self.hand(hand)
            with tried():
                review_decide(
                    actor=actor, review_id=review.pk, verdict="approve", reason="Fine.",
                    digest=review.digest, specialty=specialty,
                )  # fmt: skip
                self.both_hands("review", review)
                self.voted.setdefault(review.pk, set()).add(int(actor.id))

    # -- what must never be --

    @invariant()
    def has_one_vote(self) -> None:
        for voters in getattr(self, "voted", {}).values():
            assert len(voters) <= 1, "Ada has two votes"

    @invariant()
    def holds_one_account_that_decides(self) -> None:
        for person in Person.objects.filter(is_active=True) if hasattr(self, "ada") else ():
            if person.pk == self.ada.pk or not (self.is_hers(person) and self.has_proof(person)):
                continue
            actor = principal_for_person(person, proof=fresh_proof())
            decides = {held.role for held in actor.roles} & privileged_roles()
            assert not decides or actor.unconfirmed, f"Ada decides as {person.name}: {decides}"


@dataclass
class Attempts:
    """Ada's attempts, and those that the services allowed."""

    allowed: int = 0
    refused: int = 0
    codes: set[str] = field(default_factory=set)


ATTEMPTS = Attempts()


@contextlib.contextmanager
def tried() -> Iterator[None]:
    """Take a refusal for an answer; nothing of what was refused stays."""
    try:
        with transaction.atomic():
            yield
        ATTEMPTS.allowed += 1
    except DomainError as error:
        ATTEMPTS.refused += 1
        ATTEMPTS.codes.add(error.code)


@pytest.mark.parametrize(
    "roles",
    [pytest.param(("admin",), marks=pytest.mark.long), ("admin", "reviewer:compliance")],
    ids=str,
)
def test_no_sequence_of_one_persons_actions_has_two_hands(
    roles: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Ada, "variant", roles)
    run_state_machine_as_test(
        Ada,
        settings=hypothesis_settings(
            hypothesis_settings(),
            max_examples=60,
            stateful_step_count=40,
            derandomize=True,
        ),
    )
    # The walk reaches what it is about: it is refused for these reasons, and much is allowed.
    assert ATTEMPTS.allowed > ATTEMPTS.refused / 20
    assert {"recovery_needed", "separation_of_duties", "sign_in_unconfirmed"} <= ATTEMPTS.codes


def test_the_machine_finds_the_attack_that_it_is_made_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With the rule taken out, it finds the takeover: else it would prove nothing."""
    machine = Ada()
    machine.company()
    for module in (factors, links, account_links):
        monkeypatch.setattr(module, "is_privileged", lambda _: False)
    monkeypatch.setattr(selectors, "privileged_roles", frozenset)
    rex = 3
    machine.resets_factors(ADA, rex)
    machine.makes_a_password_link(ADA, rex)
    machine.opens_every_link_with_every_code()
    machine.uses_what_is_open(rex)
    machine.adds_a_factor(rex)
    with pytest.raises(AssertionError, match="Ada decides as Rex"):
        machine.holds_one_account_that_decides()
    machine.teardown()
