"""Models: the list, one with its versions and gates, comparison, and new gates."""

from __future__ import annotations

from typing import Any

from django.db.models import Exists, Max, OuterRef, QuerySet
from django.http import HttpResponse

from assay.portal.access import departments_where, may
from assay.portal.comparison import pair_of
from assay.portal.forms.models import GateForm, ModelForm
from assay.portal.http import ActionScreen, Screen, cleaned, page_of
from assay.portal.lists import Field, ListScreen
from assay.portal.model_overview import (
    live_deployments,
    model_card,
    model_reviews,
    model_trend,
    model_usage,
)
from assay.portal.readiness import gate_line
from assay.portal.since import model_news
from assay.portal.views.deployments import examples
from governance.database.narrow import narrowed
from governance.errors import NotFound
from governance.people.models import Department
from governance.permissions import Action
from governance.principals import Principal
from registry.catalog import TASKS, unavailable_reason
from registry.catalog.declaration import Task
from registry.catalog.prompt import takes_prompts
from registry.datasets.selectors import datasets_visible_to
from registry.evaluations.selectors import (
    evaluations_visible_to,
    gate_standings,
    gates_visible_to,
)
from registry.evaluations.services import gate_set
from registry.versions.hosted import takes_hosted
from registry.versions.models import Model, ModelVersion
from registry.versions.selectors import (
    licenses_visible_to,
    model_get,
    model_relatives,
    models_visible_to,
    versions_visible_to,
)
from registry.versions.services import model_create
from workers.deployments.models import Deployment, DeploymentState
from workers.deployments.playground import trials_of
from workers.deployments.selectors import deployments_visible_to

COMPARED_SHOWN = 200


class Models(ListScreen):
    """Every model the person may see."""

    template_name = "portal/models/list.html"
    title = "Models"
    lead = "Base models and the versions that departments fine-tuned from them."
    columns = "Model | Task | Department | # Versions | Newest"
    creates = (Action.MODEL_CREATE, "model")

    def rows(self) -> QuerySet[Model]:
        rows = models_visible_to(self.actor).annotate(newest=Max("versions__created_at"))
        name, family, task, licensed_as, department = map(
            self.text, ("q", "family", "task", "license", "department")
        )
        if name:
            rows = rows.filter(name__icontains=name)
        if task in TASKS:
            rows = rows.filter(task=task)
        if department:
            rows = rows.filter(department__slug=department)
        if family:
            tasks = [task.name for task in TASKS.values() if task.family == family]
            rows = rows.filter(task__in=tasks)
        if licensed_as:
            licensed = versions_visible_to(self.actor).filter(license=licensed_as)
            rows = rows.filter(pk__in=licensed.order_by().values("model"))
        return rows.order_by("name")

    def text(self, name: str) -> str:
        """Return a text parameter of the query string."""
        return self.request.GET.get(name, "").replace("\x00", "").strip()[:80]

    def context(self, **kwargs: Any) -> dict[str, Any]:
        owners = models_visible_to(self.actor).order_by().values("department")
        departments = Department.objects.filter(pk__in=owners).order_by("name")
        titles = sorted((task.name, task.title) for task in TASKS.values())
        families = sorted({task.family.value for task in TASKS.values()})
        licenses = licenses_visible_to(self.actor)
        fields = (
            Field("family", "Family", [(family, family) for family in families]),
            Field("task", "Task", titles),
            Field("license", "License", [(each, each) for each in licenses]),
            Field("department", "Department", list(departments.values_list("slug", "name"))),
        )
        offered = [
            field for field in fields if len(field.choices or ()) > 1 or self.text(field.name)
        ]
        return {**super().context(**kwargs), "toolbar": [Field("q", "Name"), *offered]}


class ModelNew(ActionScreen):
    """The form for a new model."""

    template_name = "portal/form.html"

    def form(self) -> ModelForm:
        departments = departments_where(self.actor, Action.MODEL_CREATE, kind="model")
        return ModelForm(self.request.POST or None, departments=departments)

    def context(self, **kwargs: Any) -> dict[str, Any]:
        return {
            "form": self.form(),
            "title": "New model",
            "lead": "A model and its versions. Intakes add base versions; jobs add fine-tunes.",
            "submit": "Register the model",
            "back": ("portal:models", "Models"),
        }

    def act(self, **kwargs: Any) -> HttpResponse:
        model = model_create(actor=self.actor, **cleaned(self.form()))
        return self.done(f"{model.name} is registered.", "portal:model", name=model.name)


def with_results(actor: Principal, gates: list[Any], versions: list[ModelVersion]) -> list[Any]:
    """Return the gates, each with the latest results of these versions as `latest`."""
    standings = gate_standings(actor, gates, [version.pk for version in versions])
    for place, gate in enumerate(gates):
        gate.latest = [
            (version, gate_line(standings[version.pk][place], version.model.task))
            for version in versions
        ]
    return gates


def compare_choices(
    actor: Principal, model: Model, new: int | None = None, old: int | None = None
) -> dict[str, Any]:
    """Return the versions that can be compared, newest first, and the two chosen ones; by default
    the newest, and the live version or the one before."""
    serving = deployments_visible_to(actor).filter(
        release__version=OuterRef("pk"), state=DeploymentState.SERVING
    )
    rows = versions_visible_to(actor).filter(model=model).annotate(live=Exists(serving))
    choices = list(rows.order_by("-number").values_list("number", "live")[:COMPARED_SHOWN])
    if new is None and choices:
        new = choices[0][0]
    others = [number for number, live in choices if live and number != new]
    others += [number for number, _ in choices if number != new]
    if old is None and others:
        old = others[0]
    return {"choices": choices, "new": new, "old": old}


def preselected(versions: list[ModelVersion]) -> set[int]:
    """Return the IDs of the page's newest version and of the live version, or else the one before
    it; empty for fewer than two versions."""
    if len(versions) < 2:
        return set()
    newest, *others = versions
    other = next((each for each in others if each.live), others[0])  # type: ignore[attr-defined]
    return {newest.pk, other.pk}


class ModelPage(ActionScreen):
    """One model: its card, live deployments, versions, gates, trend, usage, lineage and reviews."""

    template_name = "portal/models/model.html"

    def context(self, *, name: str, **kwargs: Any) -> dict[str, Any]:
        model = model_get(actor=self.actor, name=name)
        department = model.department.slug
        page = page_of(self.request, self.versions(model))
        gates = list(gates_visible_to(self.actor).filter(model=model))
        task = TASKS.get(model.task)
        may_work = may(self.actor, Action.JOB_CREATE, kind="job", department=department)
        live = live_deployments(self.actor, model)
        numbers = {each.release.version.number for each in live}
        chosen = self.request.GET.get("metric", "")
        return {
            "model": model,
            "task": task,
            "unavailable": unavailable_reason(model.task),
            "page": page,
            "gates": with_results(self.actor, gates, list(page.object_list)),
            "preselected": preselected(list(page.object_list)),
            "live": live,
            "trials": self.trials(task, live),
            "examples": examples(self.request, live[0]) if live else [],
            "card": model_card(self.actor, model, numbers),
            "trend": task and model_trend(self.actor, model, task, chosen, gates, numbers),
            "usage": model_usage(self.actor, model),
            "relatives": model_relatives(self.actor, model),
            "reviews": model_reviews(self.actor, model),
            "news": model_news(self.actor, model),
            "may_adapt": task is not None and bool(task.recipes) and may_work,
            "may_prompt": task is not None and takes_prompts(task) and may_work,
            "may_schedule": task is not None and task.evaluation is not None and may_work,
            "may_gate": task is not None
            and may(self.actor, Action.GATE_SET, kind="gate", department=department),
            "takes_hosted": task is not None and takes_hosted(task),
            "may_deliver": task is not None
            and may(self.actor, Action.INTAKE_CREATE, kind="intake", department=department),
        }

    def versions(self, model: Model) -> QuerySet[ModelVersion]:
        """Return the model's versions with their state."""
        versions = narrowed(
            versions_visible_to(self.actor).filter(model=model),
            *("number", "kind", "state", "digest", "metrics", "license", "created_at"),
            *("created_by__name", "base__number", "base__model__name", "model__task"),
        )
        serving = deployments_visible_to(self.actor).filter(
            release__version=OuterRef("pk"), state=DeploymentState.SERVING
        )
        measured = evaluations_visible_to(self.actor).filter(version=OuterRef("pk"))
        return versions.annotate(
            evaluated=Exists(measured),
            held_out=Exists(measured.filter(on_training_data=False)),
            live=Exists(serving),
        )

    def trials(self, task: Task | None, live: list[Deployment]) -> list[str]:
        """Return the names of the deployments that the person may use in the playground."""
        if task is None or task.playground is None:
            return []
        return [trial.deployment.name for trial in trials_of(self.actor, live)]


class ModelCompare(Screen):
    """Two versions of a model side by side: `?new=3&old=2`."""

    template_name = "portal/models/compare.html"

    def context(self, *, name: str, **kwargs: Any) -> dict[str, Any]:
        model = model_get(actor=self.actor, name=name)
        chosen = compare_choices(self.actor, model, self.number("new"), self.number("old"))
        new, old = self.version(model, chosen["new"]), self.version(model, chosen["old"])
        return {
            "model": model,
            "subject": pair_of(self.actor, new, old),
            "old_title": f"v{old.number}",
            "new_title": f"v{new.number}",
            "not_evaluated": f"{new} was not evaluated. Evaluate both versions on the same data to "
            "compare their numbers.",
            **chosen,
        }

    def number(self, which: str) -> int | None:
        """Return the number of a version from the query string; None if absent."""
        text = self.request.GET.get(which, "")
        if not text:
            return None
        if not text.isascii() or not text.isdigit() or len(text) > 9:
            raise NotFound(f"There is no version {text[:20]!r}.")
        return int(text)

    def version(self, model: Model, number: int | None) -> ModelVersion:
        rows = versions_visible_to(self.actor).filter(model=model)
        version = rows.filter(number=number).first() if number is not None else None
        if version is None:
            raise NotFound(f"{model.name} has no such version to compare.")
        return version


class GateSet(ActionScreen):
    """Set a gate before anything is measured."""

    template_name = "portal/form.html"

    def form(self, model: Model) -> GateForm:
        datasets = datasets_visible_to(self.actor).filter(task=model.task, row_kind="")
        return GateForm(self.request.POST or None, datasets=datasets, task=model.task)

    def context(self, *, name: str, **kwargs: Any) -> dict[str, Any]:
        model = model_get(actor=self.actor, name=name)
        return {
            "form": self.form(model),
            "title": f"Set a gate on {model.name}",
            "lead": "A gate applies to evaluations that start after it is set.",
            "submit": "Set the gate",
            "back_to": model,
        }

    def act(self, *, name: str, **kwargs: Any) -> HttpResponse:
        model = model_get(actor=self.actor, name=name)
        gate = gate_set(actor=self.actor, model=model, **cleaned(self.form(model)))
        return self.done(f"The gate {gate} is set.", "portal:model", name=model.name)
