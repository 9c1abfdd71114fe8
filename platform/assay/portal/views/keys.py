"""API keys: list, create (shown once), show, rotate, change, revoke."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.db.models import Q, QuerySet
from django.http import HttpResponse
from django.shortcuts import render
from django.utils import timezone

from assay.portal.access import departments_where
from assay.portal.forms.keys import KeyChangeForm, KeyForm, KeyRotateForm
from assay.portal.http import ActionScreen, Screen, cleaned, posted
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

# Maximum deployments to select from; the command line and the API take any name.
DEPLOYMENTS_SHOWN = 60


def deployment_names(actor: Principal) -> list[str]:
    """Return the deployments that the person may see and may limit a key to."""
    rows = deployments_visible_to(actor).exclude(state=DeploymentState.STOPPED)
    names = rows.order_by("name").values_list("name", flat=True).distinct()
    return list(names[:DEPLOYMENTS_SHOWN])


def offers(snapshot: PolicySnapshot, actor: Principal, key: ApiKey) -> dict[str, Any]:
    """Return the state of a key, and the person's actions on it."""
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


def new_key_page(screen: Screen, key: ApiKey, token: str) -> HttpResponse:
    """Return the page that shows a new key, once only."""
    root = f"{screen.request.scheme}://{screen.request.get_host()}"
    context = {"key": key, "token": token, "root": root}
    response = render(screen.request, "portal/keys/made.html", context, status=201)
    response.headers["Cache-Control"] = "no-store"
    return response


class Keys(ListScreen, ActionScreen):
    """Every key that the person may see, and the form that creates one."""

    template_name = "portal/keys/list.html"
    title = "API keys"
    lead = (
        "A department's credentials for its applications. Shown once, stored as a keyed hash, "
        "revocable at once."
    )
    columns = "Key | State | Belongs to | May be used | Last used | Expires | …"

    def rows(self) -> QuerySet[ApiKey]:
        return keys_visible_to(self.actor)

    def form(self) -> KeyForm | None:
        departments = departments_where(self.actor, Action.KEY_CREATE, kind="key")
        if not departments:
            return None
        names = deployment_names(self.actor)
        data = self.request.POST or None
        return KeyForm(data, departments=departments, deployments=names)

    def context(self, **kwargs: Any) -> dict[str, Any]:
        context, snapshot = super().context(**kwargs), active_policy()
        keys = [offers(snapshot, self.actor, key) for key in context["page"].object_list]
        context["page"].object_list = keys
        return {**context, "form": self.form()}

    def act(self, **kwargs: Any) -> HttpResponse:
        departments = departments_where(self.actor, Action.KEY_CREATE, kind="key")
        names = deployment_names(self.actor)
        form = KeyForm(self.request.POST, departments=departments, deployments=names)
        values = cleaned(form)
        days = values.pop("days")
        key, token = key_create(
            actor=self.actor, expires_at=timezone.now() + timedelta(days=days), **values
        )
        return new_key_page(self, key, token)


class KeyPage(ActionScreen):
    """One key: its restrictions, limits, owner and predecessor."""

    template_name = "portal/keys/key.html"

    def key(self) -> ApiKey:
        return key_get(actor=self.actor, key_id=self.kwargs["id"])

    def members(self, key: ApiKey) -> QuerySet[Person]:
        """Return the people who own, or may own, a department's key."""
        member = Q(role_assignments__department=key.department, is_active=True)
        return Person.objects.filter(member | Q(owned_keys=key)).distinct()

    def change_form(self, key: ApiKey, data: Any) -> KeyChangeForm:
        return KeyChangeForm(
            data, key=key, people=self.members(key), deployments=deployment_names(self.actor)
        )

    def context(self, **kwargs: Any) -> dict[str, Any]:
        key = self.key()
        offered = offers(active_policy(), self.actor, key)
        return {
            **offered,
            "limits": uses_or_unknown(limits_applying(key=key)) if key.department else [],
            "rotate_form": KeyRotateForm(posted(self.request, "key_rotate"))
            if offered["may_rotate"]
            else None,
            "change_form": self.change_form(key, posted(self.request, "key_change"))
            if offered["may_change"]
            else None,
        }


class KeyChange(KeyPage):
    """Change the editable fields of a key."""

    def act(self, *args: Any, **kwargs: Any) -> HttpResponse:
        key = self.key()
        values = cleaned(self.change_form(key, self.request.POST))
        key_update(actor=self.actor, key_id=key.pk, **values)
        return self.done(
            "The key is changed. This takes effect with the next request.", "portal:key", id=key.pk
        )


class KeyRotate(KeyPage):
    """Rotate a key, and show the new secret once."""

    def act(self, *args: Any, **kwargs: Any) -> HttpResponse:
        hours = cleaned(KeyRotateForm(self.request.POST))["overlap"]
        new, token = key_rotate(
            actor=self.actor, key_id=self.key().pk, overlap=timedelta(hours=hours)
        )
        return new_key_page(self, new, token)


class KeyRevoke(KeyPage):
    """Revoke a key at once."""

    def act(self, *args: Any, **kwargs: Any) -> HttpResponse:
        reason = self.request.POST.get("reason", "")
        key = key_revoke(actor=self.actor, key_id=kwargs["id"], reason=reason)
        return self.done(f"{key.name} is revoked; it stops working at once.", "portal:keys")
