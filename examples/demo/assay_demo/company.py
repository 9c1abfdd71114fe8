"""The demo's company: departments, people, roles.

Passwords are random and kept on this machine.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from assay_demo.authenticator import Authenticators
from assay_demo.client import Api
from assay_demo.stage import Stage


@dataclass(frozen=True)
class Persona:
    """One person of the demo. `roles` are (role, department, specialty)."""

    handle: str
    name: str
    roles: tuple[tuple[str, str, str], ...]

    @property
    def email(self) -> str:
        return f"{self.handle}@assay.example"


DEPARTMENTS = {"media": "Media", "engineering": "Engineering", "finance": "Finance"}
ADMIN = Persona("ada", "Ada Admin", (("admin", "", ""),))
SECOND = Persona("adil", "Adil Admin", (("admin", "", ""),))
PEOPLE = (
    SECOND,
    Persona("omar", "Omar Operator", (("operator", "", ""),)),
    Persona("asha", "Asha Auditor", (("auditor", "", ""),)),
    Persona("carla", "Carla Compliance", (("reviewer", "", "compliance"),)),
    Persona("milo", "Milo Model-Risk", (("reviewer", "", "model-risk"),)),
    Persona("sana", "Sana Security", (("reviewer", "", "security"),)),
    Persona("mia", "Mia Media", (("lead", "media", ""),)),
    Persona("enzo", "Enzo Engineering", (("lead", "engineering", ""),)),
    Persona("devi", "Devi Developer", (("developer", "engineering", ""),)),
    Persona("fay", "Fay Finance", (("lead", "finance", ""),)),
)
EVERYONE = (ADMIN, *PEOPLE)
# Roles whose accounts require two administrators.
PRIVILEGED = frozenset({"admin", "operator", "auditor", "reviewer"})


class Passwords:
    """Random passwords by handle, in a file that only this user may read."""

    def __init__(self, file: Path) -> None:
        passwords: dict[str, str] = json.loads(file.read_text()) if file.exists() else {}
        missing = [person.handle for person in EVERYONE if person.handle not in passwords]
        self._passwords = {**passwords, **{handle: secrets.token_urlsafe(18) for handle in missing}}
        if missing:
            file.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "w") as handle:
                json.dump(self._passwords, handle)

    def __getitem__(self, handle: str) -> str:
        return self._passwords[handle]


def found_company(stage: Stage, second: Callable[[], Api]) -> None:
    """Create missing departments, people and roles as the first administrator. `second` signs in
    the second administrator, who is the first of `PEOPLE`."""
    admin = stage[ADMIN.handle]
    departments = {item["slug"] for item in admin.all("departments")}
    for slug, name in DEPARTMENTS.items():
        if slug not in departments:
            admin.post("departments", slug=slug, name=name)
    people = {item["email"]: item for item in admin.all("people")}
    for person in PEOPLE:
        if person.email in people:
            continue
        stage.prove(ADMIN.handle)
        account = admin.post("people", email=person.email, name=person.name)
        for role, department, specialty in person.roles:
            body = {"role": role}
            if department:
                body["department"] = department
            if specialty:
                body["specialty"] = specialty
            granted = admin.post(f"people/{account['id']}/roles", **body)
            if granted.get("state") == "pending":
                # A second administrator approves the roles administrator and reviewer.
                second().post(f"role-requests/{granted['id']}/approve")
        if PRIVILEGED.isdisjoint(role for role, _, _ in person.roles):
            invitation = admin.post(f"people/{account['id']}/password-link")
            stage.authenticators.accept(person.handle, invitation["link"])
        else:
            stage.authenticators.accept(
                person.handle, *recover(stage, person, account["id"], "password", second)
            )


def recover(
    stage: Stage, person: Persona, person_id: int, purpose: str, second: Callable[[], Api]
) -> tuple[str, str]:
    """Return the link and the code of a recovery that the first administrator requests.

    The second administrator approves it, except for their own account: a server command does.
    """
    stage.prove(ADMIN.handle)
    admin = stage[ADMIN.handle]
    for state in ("pending", "approved"):
        # Reject open recoveries of an interrupted run.
        for old in admin.all("recoveries", state=state):
            if old["person"]["id"] == person_id:
                admin.post(f"recoveries/{old['id']}/reject", reason="The demo starts again.")
    reason = f"The demo sets up the account of {person.name}."
    answer = admin.post(f"people/{person_id}/recoveries", purpose=purpose, reason=reason)
    if person == SECOND:
        printed = _printed_link(stage.stack.manage("recover_account", person.email))
        return stage.require(printed, "recover_account prints a link"), answer["code"]
    approved = second().post(f"recoveries/{answer['recovery']['id']}/approve")
    return approved["link"], answer["code"]


def _printed_link(output: str) -> str | None:
    """Return the one-time link in a management command's output."""
    return next((line for line in output.splitlines() if "/sign-in/link#" in line), None)


def open_for_business(stage: Stage) -> None:
    """Create the first administrator and the company, and sign everyone in."""
    passwords = Passwords(stage.folder / "secrets" / "passwords.json")
    invitation = _printed_link(
        stage.stack.manage("bootstrap", "--admin", ADMIN.email, "--name", ADMIN.name)
    )
    url = stage.stack.url
    personas = {person.handle: person for person in EVERYONE}
    emails = {person.handle: person.email for person in EVERYONE}

    def permit(handle: str) -> tuple[str, str]:
        """Return the link and the code that let a person enroll an authenticator app.

        The first administrator's link comes from a server command.
        """
        if handle == ADMIN.handle:
            printed = stage.stack.manage("recover_account", ADMIN.email, "--factor")
            return stage.require(_printed_link(printed), "recover_account prints a link"), ""
        admin = stage[ADMIN.handle]
        person = stage.require(
            admin.find("people", email=emails[handle]), f"{handle} has an account"
        )
        return recover(stage, personas[handle], person["id"], "factor", second)

    stage.authenticators = Authenticators(
        url,
        stage.folder / "secrets" / "authenticators.json",
        lambda handle: (emails[handle], passwords[handle]),
        permit,
    )
    # An interrupted run may have left factors enrolled.
    stage.authenticators.remove_all()
    if invitation is not None:
        stage.authenticators.accept(ADMIN.handle, invitation)

    def sign_in(handle: str) -> Api:
        if handle in (ADMIN.handle, SECOND.handle):
            # Administrators must sign in with a second factor.
            stage.authenticators.enroll(handle)
        code = stage.authenticators.code(handle)
        if code:
            stage.authenticators.note_proof(handle)
        return Api.sign_in(url, emails[handle], passwords[handle], code)

    stage.people[ADMIN.handle] = sign_in(ADMIN.handle)

    def second() -> Api:
        if SECOND.handle not in stage.people:
            stage.people[SECOND.handle] = sign_in(SECOND.handle)
        stage.prove(SECOND.handle)
        return stage[SECOND.handle]

    found_company(stage, second)
    for person in PEOPLE:
        if person.handle not in stage.people:
            stage.people[person.handle] = sign_in(person.handle)
