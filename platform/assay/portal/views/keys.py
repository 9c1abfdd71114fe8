"""API keys: the list, making one (shown once), one key's page, rotating, changing, revoking."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.db.models import Q, QuerySet
from django.http import HttpResponse
from django.shortcuts import render
from django.utils import timezone

from assay.portal.access import departments_where
from assay.portal.forms.keys import KeyChangeForm, KeyForm, KeyRotateForm
from assay.portal.http import ActionScreen, Screen, cleaned
from assay.portal.lists import ListScreen
from governance.keys.changes import key_update
from governance.keys.models import ApiKey
from governance.keys.selectors import KeyState, key_get, key_state, keys_visible_to
from governance.keys.services import key_create, key_resource, key_revoke, key_rotate
from governance.people.models import Person
from governance.permissions import Action
from governance.policy.context import probing_context
from governance.policy.engine import PolicySnapshot, decide
from governance.policy.services import active_policy
from governance.principals import Principal
from governance.quotas.selectors import limits_applying, uses_or_unknown
from workers.deployments.models import DeploymentState
from workers.deployments.selectors import deployments_visible_to

# More than these are not offered to tick; the command line and the API take any name.
DEPLOYMENTS_SHOWN = 60


def deployment_names(actor: Principal) -> list[str]:
    """The deployments that a key may be limited to, as far as the person may see them."""
    rows = deployments_visible_to(actor).exclude(state=DeploymentState.STOPPED)
    names = rows.order_by("name").values_list("name", flat=True).distinct()
    return list(names[:DEPLOYMENTS_SHOWN])


def offers(snapshot: PolicySnapshot, actor: Principal, key: ApiKey) -> dict[str, Any]:
    """State of a key, and the person's actions on it."""
    state = key_state(key, timezone.now())
    alive = state in {KeyState.ACTIVE, KeyState.RETIRING}

    def may(action: Action) -> bool:
        resource = key_resource(key)
        return decide(snapshot, actor, action, resource, probing_context()).allowed

    return {
        "key": key,
        "state": state,
        "successor": getattr(key, "successor", None),
        "may_revoke": alive and may(Action.KEY_REVOKE),
        "may_rotate": (
            state == KeyState.ACTIVE and key.department_id is not None and may(Action.KEY_ROTATE)
        ),
        "may_change": alive and key.department_id is not None and may(Action.KEY_CREATE),
    }


def made(screen: Screen, key: ApiKey, token: str) -> HttpResponse:
    """The page that shows a new key, this once."""
    root = f"{screen.request.scheme}://{screen.request.get_host()}"
    context = {"key": key, "token": token, "root": root}
    response = render(screen.request, "portal/keys/made.html", context, status=201)
    response.headers["Cache-Control"] = "no-store"
    return response


class Keys(ListScreen, ActionScreen):
    """Every key the person may see, and the form that makes one."""

    template_name = "portal/keys/list.html"
    title = "API keys"
    lead = (
        "A department's credentials for its applications. Shown once, stored as a keyed hash, "
        "revocable at once."
    )
    columns = "Key | State | Belongs to | May be used | Last used | Expires | …"

    def rows(self) -> QuerySet[ApiKey]:
        return keys_visible_to(self.actor)

    def shown(self, rows: list[ApiKey]) -> list[dict[str, Any]]:
        snapshot = active_policy()
        return [offers(snapshot, self.actor, key) for key in rows]

    def form(self) -> KeyForm | None:
        departments = departments_where(self.actor, Action.KEY_CREATE, kind="key")
        if not departments:
            return None
        names = deployment_names(self.actor)
        data = self.request.POST or None
        return KeyForm(data, departments=departments, deployments=names)

    def context(self, **kwargs: Any) -> dict[str, Any]:
        return {**super().context(**kwargs), "form": self.form()}

    def act(self, **kwargs: Any) -> HttpResponse:
        departments = departments_where(self.actor, Action.KEY_CREATE, kind="key")
        names = deployment_names(self.actor)
        form = KeyForm(self.request.POST, departments=departments, deployments=names)
        values = cleaned(form)
        days = values.pop("days")
        key, token = key_create(
            actor=self.actor, expires_at=timezone.now() + timedelta(days=days), **values
        )
        return made(self, key, token)


class KeyPage(ActionScreen):
    """One key: what narrows it, what limits it, who answers for it, what it follows."""

    template_name = "portal/keys/key.html"

    def key(self) -> ApiKey:
        return key_get(actor=self.actor, key_id=self.kwargs["id"])

    def members(self, key: ApiKey) -> QuerySet[Person]:
        """Return possible and present owners of a key of its department."""
        member = Q(role_assignments__department=key.department, is_active=True)
        return Person.objects.filter(member | Q(owned_keys=key)).distinct()

    def change_form(self, key: ApiKey, data: Any = None) -> KeyChangeForm:
        return KeyChangeForm(
            data, key=key, people=self.members(key), deployments=deployment_names(self.actor)
        )

    def context(self, **kwargs: Any) -> dict[str, Any]:
        key = self.key()
        offered = offers(active_policy(), self.actor, key)
        return {
            **offered,
            "limits": uses_or_unknown(limits_applying(key=key)) if key.department else [],
            "rotate_form": KeyRotateForm() if offered["may_rotate"] else None,
            "change_form": self.change_form(key) if offered["may_change"] else None,
        }


class KeyChange(KeyPage):
    """Changes what may change while it lives."""

    def context(self, **kwargs: Any) -> dict[str, Any]:
        """Keep the typed values after a refusal."""
        given = super().context(**kwargs)
        if given["change_form"] is not None:
            given["change_form"] = self.change_form(given["key"], self.request.POST or None)
        return given

    def act(self, *args: Any, **kwargs: Any) -> HttpResponse:
        key = self.key()
        values = cleaned(self.change_form(key, self.request.POST))
        key_update(actor=self.actor, key_id=key.pk, **values)
        return self.done(
            "The key is changed. This takes effect with the next request.", "portal:key", id=key.pk
        )


class KeyRotate(KeyPage):
    """Gives a key a successor, whose secret is shown this once."""

    def act(self, *args: Any, **kwargs: Any) -> HttpResponse:
        hours = cleaned(KeyRotateForm(self.request.POST))["overlap"]
        new, token = key_rotate(
            actor=self.actor, key_id=self.key().pk, overlap=timedelta(hours=hours)
        )
        return made(self, new, token)


class KeyRevoke(KeyPage):
    """Ends a key at once."""

    def act(self, *args: Any, **kwargs: Any) -> HttpResponse:
        reason = self.request.POST.get("reason", "")
        key = key_revoke(actor=self.actor, key_id=kwargs["id"], reason=reason)
        return self.done(f"{key.name} is revoked; it stops working at once.", "portal:keys")
