"""Erasing a person, with what the surfaces keep of them."""

from __future__ import annotations

import json

from django.db import transaction
from django.db.models import Q, TextField
from django.db.models.functions import Cast

from assay.models import IdempotencyRecord
from governance.people.erasure import person_erase
from governance.people.models import Person
from governance.principals import Principal, PrincipalKind


def account_erase(*, actor: Principal, person_id: int, reason: str) -> Person:
    """As `person_erase`; answers that are kept for a repeated request and name them go too.

    Raises:
        InvalidInput, NotFound, NotPermitted, WrongState: as `person_erase`.
    """
    with transaction.atomic():
        known = Person.objects.filter(pk=person_id).values_list("name", "email").first()
        person = person_erase(actor=actor, person_id=person_id, reason=reason)
        told = Q(principal=f"{PrincipalKind.PERSON}:{person_id}")
        for text in known or ():
            # As it stands in JSON, without the quotation marks around it.
            told |= Q(text__contains=json.dumps(text, ensure_ascii=False)[1:-1])
        answers = IdempotencyRecord.objects.annotate(text=Cast("body", TextField()))
        answers.filter(told).delete()
    return person
