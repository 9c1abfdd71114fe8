"""Read credentials, without their sealed secrets."""

from __future__ import annotations

from django.db.models import OuterRef, QuerySet, Subquery

from governance.credentials.models import Credential, CredentialUse
from governance.errors import NotFound
from governance.permissions import Action
from governance.policy.selectors import visible_to
from governance.principals import Principal


def credentials_visible_to(actor: Principal) -> QuerySet[Credential]:
    """Return the credentials that `actor` may see, with `last_used_at`, without sealed secrets."""
    rows = Credential.objects.select_related(
        "department", "created_by", "rotated_by", "revoked_by"
    ).defer("sealed")
    latest = CredentialUse.objects.filter(credential=OuterRef("pk")).order_by("-used_at")
    rows = rows.annotate(last_used_at=Subquery(latest.values("used_at")[:1]))
    return visible_to(actor, Action.CREDENTIAL_VIEW, rows, resource_type="credential")


def credential_get(*, actor: Principal, credential_id: int) -> Credential:
    """Return a credential. Raise NotFound if it does not exist, or the actor may not see it."""
    credential = credentials_visible_to(actor).filter(pk=credential_id).first()
    if credential is None:
        raise NotFound(f"There is no credential {credential_id}.")
    return credential


def credential_uses(credential: Credential, *, most: int = 50) -> list[CredentialUse]:
    """Return the latest use by each deployment, latest first, for a credential that the actor may
    see."""
    return list(credential.uses.order_by("-used_at", "deployment")[:most])
