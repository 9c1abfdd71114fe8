"""Erase a person, including data that the API has stored about them."""

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
    """Erase a person as `person_erase` does, and delete answers stored for repeated requests that
    name them.

    Raises:
        InvalidInput, NotFound, NotPermitted, WrongState: as `person_erase`.
    """
    with transaction.atomic():
        identity = Person.objects.filter(pk=person_id).values_list("name", "email").first()
        person = person_erase(actor=actor, person_id=person_id, reason=reason)
        mentions = Q(principal=f"{PrincipalKind.PERSON}:{person_id}")
        for text in identity or ():
            # In JSON form, without the quotation marks.
            mentions |= Q(text__contains=json.dumps(text, ensure_ascii=False)[1:-1])
        answers = IdempotencyRecord.objects.annotate(text=Cast("body", TextField()))
        answers.filter(mentions).delete()
    return person
