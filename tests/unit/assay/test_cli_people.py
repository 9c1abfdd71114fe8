"""`assay people …` against a real server."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

import pytest

from governance.people.models import Department, GroupMapping, Person, RoleAssignment
from governance.people.recoveries.models import AccountRecovery
from governance.people.recoveries.services import recovery_request
from tests.proofs import proven
from tests.unit.assay import test_cli
from tests.unit.assay.test_cli import Run
from tests.unit.dump import found

# Fixtures of the command line's own tests.
ada, run, signed_in = test_cli.ada, test_cli.run, test_cli.signed_in

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.sweep]


@pytest.fixture
def dora(person: Callable[..., Person], department: Callable[[str], Department]) -> Person:
    made = person("Dora [b]", "developer@clinical")
    RoleAssignment.objects.create(
        person=made, role="reviewer", specialty="privacy", source="scim", group="Privacy"
    )
    GroupMapping.objects.create(group="Privacy", role="reviewer", specialty="privacy")
    return made


def test_people_are_listed_with_roles_and_where_those_are_from(
    signed_in: Run,
    dora: Person,
) -> None:
    _, out, _ = signed_in("people", "list", code=0)
    assert "Ada" in out
    assert "Dora [b]" in out
    assert "developer in clinical, privacy reviewer through Privacy" in out
    _, out, _ = signed_in("people", "list", "dor", "--department", "clinical", code=0)
    assert "Ada" not in out
    _, out, _ = signed_in("people", "list", "--state", "inactive", code=0)
    assert "No matching people" in out


def test_a_person_is_deactivated_by_address_and_reactivated(
    signed_in: Run,
    dora: Person,
) -> None:
    email = dora.email.upper()
    _, out, _ = signed_in("people", "deactivate", email, "--reason", "Left.", code=0)
    assert "no longer has access" in out
    dora.refresh_from_db()
    assert (dora.is_active, dora.deactivation_reason) == (False, "Left.")
    _, _, err = signed_in("people", "deactivate", email, "--reason", "Left.", code=4)
    assert "cannot be deactivated again" in err
    _, out, _ = signed_in("api", "post", f"people/{dora.pk}/reactivate", code=0)
    assert json.loads(out)["is_active"]
    _, _, err = signed_in("people", "deactivate", "nobody@example.org", "--reason", "x", code=1)
    assert "No person that you may see has the address" in err


def test_the_command_line_erases_whom_one_names_twice(
    signed_in: Run, person: Callable[..., Person]
) -> None:
    other = person("Zebedee Quillfrost")
    who, why = other.email, ("--reason", "Asked for it.")
    signed_in("people", "deactivate", who, "--reason", "Left.", code=0)
    _, _, err = signed_in("people", "erase", who, *why, "--confirm", "a@example.org", code=1)
    assert "the person was not erased" in err
    _, out, _ = signed_in("people", "erase", who, *why, "--confirm", who, code=0)
    assert f"erased person {other.pk}" in out
    assert found(("Zebedee", "Quillfrost")) == []
    _, _, err = signed_in("people", "erase", who, *why, "--confirm", who, code=1)
    assert "No person that you may see has the address" in err


def test_recoveries_are_requested_approved_and_rejected(
    signed_in: Run, person: Callable[..., Person]
) -> None:
    bea, cleo = person("Bea", "admin"), person("Cleo", "admin")
    request = ("api", "post", f"people/{cleo.pk}/recoveries", "-f", "purpose=password")
    _, out, _ = signed_in(*request, "-f", "reason=Lost.", code=0)
    assert re.fullmatch(r"[A-Z2-9]{5}-[A-Z2-9]{5}", json.loads(out)["code"])
    mine = AccountRecovery.objects.get()
    _, _, err = signed_in("api", "post", f"recoveries/{mine.pk}/approve", code=4)
    assert "Separation of duties" in err
    reject = ("api", "post", f"recoveries/{mine.pk}/reject", "-f", "reason=Found.")
    signed_in(*reject, code=0)
    _, out, _ = signed_in("api", "get", "recoveries", code=0)
    (row,) = json.loads(out)["results"]
    assert (row["person"]["name"], row["state"]) == ("Cleo", "rejected")

    recovery, _ = recovery_request(
        actor=proven(bea), person_id=cleo.pk, purpose="password", reason="Lost."
    )
    _, out, _ = signed_in("api", "post", f"recoveries/{recovery.pk}/approve", code=0)
    assert re.search(r"http\S+/sign-in/link#\w+", json.loads(out)["link"])


def test_the_server_recovers_whom_no_administrator_can(
    run: Run, person: Callable[..., Person]
) -> None:
    person("Cleo", "admin")
    words = ("cleo@example.org", "--factor", "--reason", "The phone is gone.")
    _, out, _ = run("people", "recover", *words, code=0)
    recovery = AccountRecovery.objects.get()
    assert (recovery.on_server, recovery.purpose) == (True, "factor")
    assert recovery.reason == "The phone is gone."
    assert "/sign-in/link#" in out
