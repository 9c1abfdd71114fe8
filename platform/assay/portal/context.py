"""Context of every page: menu, roles and pending tasks of the signed-in person."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.http import HttpRequest
from django.utils.functional import SimpleLazyObject

from assay.middleware import principal_of
from assay.portal.access import may, may_somewhere
from assay.portal.reads import after_reviews, audit_alarms, policies_awaiting
from assay.portal.templatetags.opens import Viewer
from governance.people.proof import LOCAL
from governance.people.recoveries.selectors import recoveries_announced
from governance.permissions import Action
from governance.principals import Principal
from governance.reviews.inbox import reviews_awaiting
from registry.releases.emergency_access.selectors import emergency_accesses_active

# Emergency accesses and recoveries shown on every page; their own pages list all.
BANNERS = 5


@dataclass(frozen=True, slots=True)
class Entry:
    """A page in the menu or the palette; `sections` are the first words of the URL names that
    belong to its line of the menu.

    `needs` is the action that a person must be allowed somewhere; with `at_large`, platform-wide.
    """

    title: str
    url: str
    icon: str
    sections: tuple[str, ...] = ()
    needs: tuple[Action, str] | None = None
    at_large: bool = False

    def shown_to(self, actor: Principal) -> bool:
        """Return true if this person may open the page."""
        if self.needs is None:
            return True
        check = may if self.at_large else may_somewhere
        return check(actor, self.needs[0], kind=self.needs[1])


MENU: tuple[tuple[str, tuple[Entry, ...]], ...] = (
    (
        "Build",
        (
            Entry("Overview", "portal:overview", "layout-dashboard", ("overview",)),
            Entry("Your tasks", "portal:tasks", "inbox", ("task",)),
            Entry("Models", "portal:models", "box", ("model", "version", "intake", "release")),
            Entry("Datasets", "portal:datasets", "database", ("dataset",)),
            Entry(
                "Feedback",
                "portal:feedback",
                "message-2",
                ("feedback",),
                (Action.FEEDBACK_VIEW, "feedback"),
            ),
            Entry("Knowledge bases", "portal:knowledge_bases", "file-text", ("knowledge",)),
            Entry("Jobs", "portal:jobs", "activity", ("job", "schedule")),
        ),
    ),
    (
        "Govern",
        (
            Entry("Reviews", "portal:reviews", "clipboard-check", ("review",)),
            Entry("Incidents", "portal:incidents", "alert-circle", ("incident",)),
            Entry(
                "Emergency access", "portal:emergency_accesses", "alert-triangle", ("emergency",)
            ),
            Entry("Policy", "portal:policy", "shield-lock", ("policy",)),
            Entry(
                "Audit log",
                "portal:audit",
                "file-certificate",
                ("audit",),
                (Action.AUDIT_VIEW, "audit"),
            ),
            Entry(
                "People",
                "portal:people",
                "users",
                ("people", "person", "group", "recoveries"),
                (Action.PERSON_VIEW, "person"),
                at_large=True,
            ),
            Entry(
                "Departments",
                "portal:departments",
                "building",
                ("department",),
                (Action.DEPARTMENT_VIEW, "department"),
            ),
            Entry(
                "Operations",
                "portal:nodes",
                "server-2",
                ("node", "health", "retention", "sign"),
                (Action.NODE_VIEW, "node"),
                at_large=True,
            ),
        ),
    ),
    (
        "Use",
        (
            Entry("Deployments", "portal:deployments", "rocket", ("deployment", "served")),
            Entry(
                "Batches",
                "portal:batches",
                "table",
                ("batch", "batche"),
                (Action.BATCH_VIEW, "batch"),
            ),
            Entry("Playground", "portal:playground", "message-chatbot", ("playground",)),
            # Everyone has personal access tokens there.
            Entry("API keys", "portal:keys", "key", ("key",)),
            Entry(
                "Credentials",
                "portal:credentials",
                "lock",
                ("credential",),
                (Action.CREDENTIAL_VIEW, "credential"),
            ),
            Entry(
                "Requests",
                "portal:requests",
                "terminal-2",
                ("request",),
                (Action.REQUEST_LOG_VIEW, "request_log"),
            ),
            Entry("Usage", "portal:usage", "chart-bar", ("usage",), (Action.USAGE_VIEW, "usage")),
            Entry(
                "Budgets", "portal:budgets", "hourglass", ("budget",), (Action.QUOTA_VIEW, "quota")
            ),
        ),
    ),
)


def role_words(actor: Principal) -> list[str]:
    """Return the person's roles, each in a few words."""
    phrases = []
    for role in sorted(actor.roles, key=lambda r: (r.department or "", r.role, r.specialty)):
        if role.department:
            phrases.append(f"{role.role}, {role.department}")
        else:
            phrases.append(f"{role.specialty.replace('-', ' ')} {role.role}".strip())
    return phrases


def waiting_behind(entry: Entry, actor: Principal) -> int:
    """Return the number of objects under a menu entry that await the person's decision."""
    if entry.url == "portal:reviews":
        return reviews_awaiting(actor).count()
    return policies_awaiting(actor) if entry.url == "portal:policy" else 0


def menu_of(actor: Principal, page: str) -> list[tuple[str, list[dict[str, Any]]]]:
    """Return the menu's groups with the entries that the actor may open; `page` is a URL name."""
    section = page.split("_")[0].rstrip("s")
    return [
        (
            title,
            [
                {
                    "title": entry.title,
                    "url": entry.url,
                    "icon": entry.icon,
                    "here": any(section == name.rstrip("s") for name in entry.sections),
                    "count": waiting_behind(entry, actor),
                }
                for entry in entries
                if entry.shown_to(actor)
            ],
        )
        for title, entries in MENU
    ]


def navigation(request: HttpRequest) -> dict[str, Any]:
    """Return menu, badge and roles for the signed-in person; nothing for anyone else.

    Values that take queries are lazy, because fragments, some of which pages fetch every two
    seconds, do not show them.
    """
    if not getattr(request, "user", None) or not request.user.is_authenticated:
        return {}
    actor = principal_of(request)
    match = request.resolver_match
    page = (match.url_name or "") if match else ""
    return {
        "menu": SimpleLazyObject(lambda: menu_of(actor, page)),
        "role_words": role_words(actor),
        # In the demonstration a click replaces the factor; every page says so.
        "one_click": actor.proof is not None and actor.proof.method == LOCAL,
        "actor": actor,
        "viewer": Viewer(actor),
        # Shown on every page to everyone who may see their releases, so that none goes unnoticed.
        "emergency_accesses": SimpleLazyObject(
            lambda: list(emergency_accesses_active(actor)[:BANNERS])
        ),
        "recoveries": SimpleLazyObject(lambda: list(recoveries_announced(actor)[:BANNERS])),
        "after_reviews": SimpleLazyObject(lambda: after_reviews(actor)),
        "audit_alarms": SimpleLazyObject(lambda: audit_alarms(actor)),
    }
