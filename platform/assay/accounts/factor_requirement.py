"""The requirement of a second factor: whom it binds, and what a session may do until it is met.

`ASSAY_SECOND_FACTOR_ROLES` names the roles. Who holds one and signs in by password alone may set a
second factor up, and nothing else. Single sign-on is the identity provider's to secure.
"""

from __future__ import annotations

from allauth.account.internal.flows.login import get_authentication_records
from django.conf import settings
from django.http import HttpRequest

from governance.people.credentials import has_factor
from governance.people.models import Person

OWES = "assay_owes_second_factor"


def lacks_second_factor(person: Person) -> bool:
    """True when one of their roles requires a second factor that the account lacks."""
    wanted = settings.SECOND_FACTOR_ROLES
    if not wanted or not person.role_assignments.filter(role__in=wanted).exists():
        return False
    return not has_factor(person.pk)


def require_second_factor(request: HttpRequest, person: Person) -> None:
    """At the end of a sign-in: bind the session when it was by password alone."""
    methods = {record["method"] for record in get_authentication_records(request, person)}
    if methods == {"password"} and lacks_second_factor(person):
        request.session[OWES] = True


def factor_added(request: HttpRequest) -> None:
    """A second factor was added."""
    request.session.pop(OWES, None)
