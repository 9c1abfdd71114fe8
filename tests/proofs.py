"""People who have just proved who they are, as those who decide must."""

from __future__ import annotations

import time
from datetime import datetime, timedelta
from typing import Any

from allauth.account.internal.flows.login import (
    AUTHENTICATION_METHODS_SESSION_KEY,
    record_authentication,
)
from django.http import HttpRequest
from django.test import Client
from django.utils import timezone

from governance.people.models import Person
from governance.people.selectors import principal_for_person
from governance.principals import Principal, Proof


def fresh_proof() -> Proof:
    """Of a code, given now."""
    return Proof("totp", timezone.now())


def proven(person: Person) -> Principal:
    """The person as an actor, who gave a code just now."""
    return principal_for_person(person, proof=fresh_proof())


def vote_proof() -> dict[str, Any]:
    """The columns of a vote that is written by the ORM alone."""
    proof = fresh_proof()
    return {"proof_method": proof.method, "proved_at": proof.at}


def signed_in(client: Client, person: Person, *, ago: timedelta = timedelta(0)) -> Client:
    """The client with a session of the person's, in which they gave a code `ago`."""
    client.force_login(person)
    request = HttpRequest()
    request.session = client.session
    record_authentication(request, person, "mfa", id=0, type="totp")
    records = request.session[AUTHENTICATION_METHODS_SESSION_KEY]
    records[-1]["at"] = time.time() - ago.total_seconds()
    request.session.save()
    return client


def at(proof: Proof, moment: datetime) -> Proof:
    """The same, of another moment."""
    return Proof(proof.method, moment)
