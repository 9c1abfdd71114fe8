"""The requirement of a second factor, and the limits of a session until it is met.

`ASSAY_SECOND_FACTOR_ROLES` names the roles. People with such a role who sign in by password alone
may only set up a second factor. The identity provider is responsible for securing single sign-on.
"""

from __future__ import annotations

from allauth.account.internal.flows.login import get_authentication_records
from django.conf import settings
from django.http import HttpRequest

from governance.people.credentials import has_factor
from governance.people.models import Person

OWES = "assay_owes_second_factor"


def lacks_second_factor(person: Person) -> bool:
    """Return true if a role of the person requires a second factor and the account has none."""
    roles = settings.SECOND_FACTOR_ROLES
    if not roles or not person.role_assignments.filter(role__in=roles).exists():
        return False
    return not has_factor(person.pk)


def require_second_factor(request: HttpRequest, person: Person) -> None:
    """Restrict the session after a sign-in by password alone, if a second factor is required."""
    methods = {record["method"] for record in get_authentication_records(request, person)}
    if methods == {"password"} and lacks_second_factor(person):
        request.session[OWES] = True


def factor_added(request: HttpRequest) -> None:
    """Lift the session's restriction after a second factor was added."""
    request.session.pop(OWES, None)
