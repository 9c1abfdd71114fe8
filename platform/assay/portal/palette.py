"""The search over everything that a person may see: pages, actions, and things by their names.

Each kind of thing is read by its own `visible_to` selector, so that no name shows, and no match
counts, beyond what its page would show.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from django.db.models import Case, IntegerField, Q, QuerySet, Value, When
from django.urls import reverse

from assay.portal.access import may_somewhere
from assay.portal.context import MENU
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

QUERY_MAX = 64
RESULTS_MAX = 20
# Of one kind of thing.
EACH_MAX = 5
WORDS_MAX = 6
# A number above every possible ID is not looked up.
_NUMBER_MAX = 2**31


@dataclass(frozen=True, slots=True)
class Found:
    """One result: what it is, and where it leads."""

    kind: str
    icon: str
    title: str
    detail: str
    href: str


@dataclass(frozen=True, slots=True)
class Source:
    """One kind of thing: its rows that a person may see, the columns that its words are looked for
    in, the first of which is its name, the column of its number, and how a row shows."""

    kind: str
    icon: str
    rows: Callable[[Principal], QuerySet[Any]]
    columns: tuple[str, ...]
    number: str
    shown: Callable[[Any], tuple[str, str]]
    page: str
    argument: str = "pk"

    def found(self, actor: Principal, words: list[str]) -> Iterator[Found]:
        """The rows that fit, the best first."""
        # "release 7" asks for releases.
        named = [word for word in words if not self.kind.lower().startswith(word.lower())]
        words = named if len(words) > 1 else words
        rows = self.rows(actor).filter(self._fitting(words))
        first = words[0] if words else ""
        begins = When(Q(**{f"{self.columns[0]}__istartswith": first}), then=Value(0))
        best = Case(begins, default=Value(1), output_field=IntegerField())
        for row in rows.order_by(best, "-pk")[:EACH_MAX]:
            title, detail = self.shown(row)
            argument = getattr(row, self.argument)
            href = reverse(f"portal:{self.page}", args=[argument])
            yield Found(self.kind, self.icon, title, detail, href)

    def _fitting(self, words: list[str]) -> Q:
        query = Q()
        for word in words:
            each = Q(pk__in=())
            for column in self.columns:
                each |= Q(**{f"{column}__icontains": word})
            if (number := _number(word)) and self.number:
                each |= Q(**{self.number: number})
            query &= each
        return query


def _number(word: str) -> int:
    digits = word.lstrip("#v")
    known = digits.isascii() and digits.isdigit() and len(digits) <= 10
    return int(digits) if known and int(digits) < _NUMBER_MAX else 0


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

# Title, page, and what one must be allowed to do in some department.
ACTIONS = (
    ("New model", "model_new", Action.MODEL_CREATE, "model"),
    ("New dataset", "dataset_new", Action.DATASET_CREATE, "dataset"),
    ("New knowledge base", "knowledge_base_new", Action.KNOWLEDGE_CREATE, "knowledge"),
    ("Upload for checks", "intake_new", Action.INTAKE_CREATE, "intake"),
    ("New fine-tune: choose a model", "models", Action.JOB_CREATE, "job"),
    ("Create an API key", "keys", Action.KEY_CREATE, "key"),
    ("Invite a person", "people", Action.PERSON_CREATE, "person"),
    ("Create a department", "departments", Action.DEPARTMENT_CREATE, "department"),
)
# Pages that everybody may open and that are not in the menu.
PAGES = (
    ("Your account", "user", "account"),
    ("Intakes", "package-import", "intakes"),
    ("Review policies", "clipboard-check", "review_policies"),
    ("Absences", "calendar", "absences"),
)


def palette(actor: Principal, text: str) -> list[Found]:
    """Return results for `text`, the best first; without any, the pages and actions.

    Characters beyond `QUERY_MAX` are ignored.
    """
    words = text.replace("\x00", "")[:QUERY_MAX].split()[:WORDS_MAX]
    found = [*_actions(actor, words), *_pages(actor, words)]
    if words:
        found += [each for source in SOURCES for each in source.found(actor, words)]
        whole = " ".join(words).lower()
        found.sort(key=lambda each: _rank(each.title.lower(), whole))
    return found[:RESULTS_MAX]


def _rank(title: str, text: str) -> int:
    if title == text:
        return 0
    return 1 if title.startswith(text) else 2 if f" {text}" in title else 3


def _fits(title: str, words: list[str]) -> bool:
    return all(word.lower() in title.lower() for word in words)


def _pages(actor: Principal, words: list[str]) -> Iterator[Found]:
    for _, entries in MENU:
        for entry in entries:
            if _fits(entry.title, words) and entry.shown_to(actor):
                yield Found("Page", entry.icon, entry.title, "", reverse(entry.url))
    for title, icon, url in PAGES:
        if _fits(title, words):
            yield Found("Page", icon, title, "", reverse(f"portal:{url}"))


def _actions(actor: Principal, words: list[str]) -> Iterator[Found]:
    for title, url, action, kind in ACTIONS:
        if _fits(title, words) and may_somewhere(actor, action, kind=kind):
            yield Found("Action", "plus", title, "", reverse(f"portal:{url}"))
