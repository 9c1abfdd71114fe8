"""Search over the pages, actions and objects that a person may see.

Each kind of object is read through its own `visible_to` selector, so that a search reveals no more
than the object's page.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from django.db.models import Case, IntegerField, Q, QuerySet, Value, When
from django.urls import reverse

from assay.portal.access import may_somewhere
from assay.portal.context import MENU, Entry
from assay.portal.synonyms import meanings
from governance.credentials.selectors import credentials_visible_to
from governance.keys.selectors import keys_visible_to
from governance.people.selectors import departments_visible_to, people_visible_to
from governance.permissions import Action
from governance.policy.selectors import policy_versions_visible_to
from governance.principals import Principal
from governance.reviews.policies.selectors import review_policies_visible_to
from governance.reviews.selectors import reviews_visible_to
from registry.datasets.selectors import datasets_visible_to
from registry.incidents.selectors import incidents_visible_to
from registry.intake.selectors import intakes_visible_to
from registry.releases.selectors import releases_visible_to
from registry.versions.selectors import models_visible_to, versions_visible_to
from workers.deployments.selectors import deployments_visible_to
from workers.jobs.selectors import jobs_visible_to

RESULTS_MAX = 20
# Results of one kind.
EACH_MAX = 5
# A number above every possible ID is not looked up.
_NUMBER_MAX = 2**31


@dataclass(frozen=True, slots=True)
class Result:
    """One result and the page that it links to."""

    kind: str
    icon: str
    title: str
    detail: str
    href: str


@dataclass(frozen=True, slots=True)
class Source:
    """One kind of object. Words are searched in `columns`, of which the first is the name; `number`
    is the column of its number; `describe` returns the title and detail of a row."""

    kind: str
    icon: str
    rows: Callable[[Principal], QuerySet[Any]]
    columns: tuple[str, ...]
    number: str
    describe: Callable[[Any], tuple[str, str]]
    page: str
    argument: str = "pk"

    def matches(self, actor: Principal, words: list[str]) -> Iterator[Result]:
        """Yield the matching rows, the best first."""
        # In "release 7" the first word names the kind.
        named = [word for word in words if not self.kind.lower().startswith(word.lower())]
        words = named if len(words) > 1 else words
        rows = self.rows(actor).filter(self._fitting(words))
        first = words[0] if words else ""
        begins = When(Q(**{f"{self.columns[0]}__istartswith": first}), then=Value(0))
        best = Case(begins, default=Value(1), output_field=IntegerField())
        for row in rows.order_by(best, "-pk")[:EACH_MAX]:
            title, detail = self.describe(row)
            argument = getattr(row, self.argument)
            href = reverse(f"portal:{self.page}", args=[argument])
            yield Result(self.kind, self.icon, title, detail, href)

    def _fitting(self, words: list[str]) -> Q:
        query = Q()
        for word in words:
            condition = Q(pk__in=())
            for column in self.columns:
                condition |= Q(**{f"{column}__icontains": word})
            if (number := _number(word)) and self.number:
                condition |= Q(**{self.number: number})
            query &= condition
        return query


def _number(word: str) -> int:
    digits = word.lstrip("#v")
    valid = digits.isascii() and digits.isdigit() and len(digits) <= 10
    return int(digits) if valid and int(digits) < _NUMBER_MAX else 0


def _joined(*parts: Any) -> str:
    return " · ".join(str(part) for part in parts if part)


SOURCES = (
    Source(
        "Model", "box", models_visible_to, ("name", "description"), "",
        lambda model: (model.name, _joined(model.task, model.department.name)), "model", "name",
    ),
    Source(
        "Version", "git-commit",
        lambda actor: versions_visible_to(actor).defer("manifest", "card", "code"),
        ("model__name", "digest"), "number",
        lambda version: (str(version), version.get_kind_display()), "version",
    ),
    Source(
        "Release", "git-pull-request",
        lambda actor: releases_visible_to(actor).prefetch_related(None).defer("dossier"),
        ("deployment_name", "version__model__name"), "pk",
        lambda release: (
            f"Release {release.pk}: {release.version}",
            _joined(release.environment, release.deployment_name, release.get_state_display()),
        ),
        "release",
    ),
    Source(
        "Review", "clipboard-check", reviews_visible_to, ("subject_name",), "pk",
        lambda review: (
            f"Review {review.pk}: {review.subject_name}",
            _joined(review.department.name, review.get_state_display()),
        ),
        "review",
    ),
    Source(
        "Deployment", "rocket",
        lambda actor: deployments_visible_to(actor).prefetch_related(None),
        ("name",), "pk",
        lambda row: (row.name, _joined(f"deployment {row.pk}", row.get_state_display())),
        "deployment",
    ),
    Source(
        "Dataset", "database", datasets_visible_to, ("name", "description"), "",
        lambda row: (row.name, _joined(row.get_classification_display(), row.department.name)),
        "dataset", "name",
    ),
    Source(
        "Intake", "package-import", intakes_visible_to, ("model__name", "source"), "pk",
        lambda row: (f"Intake {row.pk}: {row.model.name}", row.get_state_display()), "intake",
    ),
    Source(
        "Job", "activity", lambda actor: jobs_visible_to(actor).defer("spec", "result"),
        ("title",), "",
        lambda job: (job.title, _joined(job.get_kind_display(), job.get_state_display())), "job",
    ),
    Source(
        "Incident", "alert-circle",
        lambda actor: incidents_visible_to(actor).prefetch_related(None),
        ("title",), "pk",
        lambda row: (f"Incident {row.pk}: {row.title}", row.get_state_display()), "incident",
    ),
    Source(
        "API key", "key", keys_visible_to, ("name", "public_id"), "",
        lambda key: (key.name, key.public_id), "key",
    ),
    Source(
        "Credential", "lock", credentials_visible_to, ("name",), "",
        lambda row: (row.name, _joined(row.department.name, row.get_state_display())),
        "credential",
    ),
    Source(
        "Policy", "shield-lock",
        lambda actor: policy_versions_visible_to(actor).defer("rules", "tests"),
        ("note",), "number",
        lambda row: (f"Policy {row.number}", _joined(row.get_state_display(), row.note)),
        "policy_version", "number",
    ),
    Source(
        "Review policy", "clipboard-check",
        lambda actor: review_policies_visible_to(actor).defer("text"), ("name",), "version",
        lambda row: (f"Review policy {row}", row.get_state_display()), "review_policy",
    ),
    Source(
        "Person", "user", people_visible_to, ("name", "email"), "",
        lambda person: (person.name, "" if person.is_active else "inactive"), "person",
    ),
    Source(
        "Department", "building", departments_visible_to, ("name", "slug"), "",
        lambda department: (department.name, department.slug), "department", "slug",
    ),
)  # fmt: skip

# Title, page, and the action that the person must be allowed in some department.
ACTIONS = (
    ("New model", "model_new", Action.MODEL_CREATE, "model"),
    ("New dataset", "dataset_new", Action.DATASET_CREATE, "dataset"),
    ("New knowledge base", "knowledge_base_new", Action.KNOWLEDGE_CREATE, "knowledge"),
    ("Upload for checks", "intake_new", Action.INTAKE_CREATE, "intake"),
    ("Connect a hosted model", "intake_hosted", Action.INTAKE_CREATE, "intake"),
    ("New fine-tune: choose a model", "models", Action.JOB_CREATE, "job"),
    ("Evaluate a version: choose a model", "models", Action.JOB_CREATE, "job"),
    ("Set a gate: choose a model", "models", Action.GATE_SET, "gate"),
    ("Request a release: choose a model", "models", Action.RELEASE_SUBMIT, "release"),
    ("Recall a version: choose a model", "models", Action.VERSION_RECALL, "version"),
    ("Report an incident: choose a deployment", "deployments", Action.INCIDENT_OPEN, "incident"),
    ("Scale a deployment: choose one", "deployments", Action.DEPLOYMENT_PLACE, "deployment"),
    ("Stop a deployment: choose one", "deployments", Action.DEPLOYMENT_STOP, "deployment"),
    ("Compare runs: choose jobs", "jobs", Action.JOB_VIEW, "job"),
    ("Create an API key", "keys", Action.KEY_CREATE, "key"),
    ("Enter a credential", "credential_new", Action.CREDENTIAL_CREATE, "credential"),
    ("Invite a person", "people", Action.PERSON_CREATE, "person"),
    ("Create a department", "departments", Action.DEPARTMENT_CREATE, "department"),
)
_LOG = (Action.AUDIT_VIEW, "audit")
_PEOPLE = (Action.PERSON_VIEW, "person")
_EXPLAIN = (Action.POLICY_EXPLAIN, "policy")
# Pages outside the menu.
PAGES = (
    Entry("Your account", "portal:account", "user"),
    Entry("Intakes", "portal:intakes", "package-import"),
    Entry("Release drafts", "portal:release_drafts", "git-pull-request"),
    Entry("Task catalog", "portal:model_tasks", "box"),
    Entry("Schedules", "portal:schedules", "calendar"),
    Entry("What served when", "portal:served", "clock"),
    Entry("Review policies", "portal:review_policies", "clipboard-check"),
    Entry("Absences", "portal:absences", "calendar"),
    Entry("Policy versions", "portal:policy_versions", "shield-lock"),
    Entry("Explain a policy decision", "portal:policy_why", "shield-lock", needs=_EXPLAIN),
    Entry("Who can do something", "portal:policy_who", "shield-lock", needs=_EXPLAIN),
    Entry("Health", "portal:health", "server-2", needs=_LOG, at_large=True),
    Entry("Data retention", "portal:retention", "server-2", needs=_LOG, at_large=True),
    Entry("Single sign-on", "portal:sign_on_status", "server-2", needs=_LOG, at_large=True),
    Entry("Audit checkpoints", "portal:audit_checkpoints", "lock", needs=_LOG, at_large=True),
    Entry("Audit streaming", "portal:audit_streams", "send", needs=_LOG, at_large=True),
    Entry("Groups", "portal:groups", "users", needs=_PEOPLE, at_large=True),
    Entry("Role requests", "portal:role_requests", "users", needs=_PEOPLE, at_large=True),
)


def palette(actor: Principal, text: str) -> list[Result]:
    """Return results for `text`, the best first; all pages and actions if it has no words."""
    meant = meanings(text)
    results = [*_actions(actor, meant), *_pages(actor, meant)]
    if not meant:
        return results
    words = [word for word, *_ in meant]
    results += [each for source in SOURCES for each in source.matches(actor, words)]
    results.sort(key=lambda each: _rank(each, " ".join(words)))
    return results[:RESULTS_MAX]


def _rank(result: Result, text: str) -> int:
    title = result.title.lower()
    if title == text:
        return 0
    if title.startswith(text):
        return 1
    # A synonym may have found a page or an action.
    return 2 if f" {text}" in title or result.kind in {"Page", "Action"} else 3


def _fits(title: str, meant: list[list[str]]) -> bool:
    lower = title.lower()
    return all(
        typed in lower or any(f" {word}" in f" {lower}" for word in title_words)
        for typed, *title_words in meant
    )


def _pages(actor: Principal, meant: list[list[str]]) -> Iterator[Result]:
    for entry in (*(entry for _, entries in MENU for entry in entries), *PAGES):
        if _fits(entry.title, meant) and entry.shown_to(actor):
            yield Result("Page", entry.icon, entry.title, "", reverse(entry.url))


def _actions(actor: Principal, meant: list[list[str]]) -> Iterator[Result]:
    for title, url, action, kind in ACTIONS:
        if _fits(title, meant) and may_somewhere(actor, action, kind=kind):
            yield Result("Action", "plus", title, "", reverse(f"portal:{url}"))
