"""Reads of models and versions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from django.db.models import Count, QuerySet

from governance.credentials.models import Credential
from governance.database.narrow import narrowed
from governance.errors import NotFound
from governance.permissions import Action
from governance.policy.selectors import visible_to
from governance.principals import Principal
from governance.rowsecurity import lifted
from registry.datasets.models import Dataset, DatasetVersion
from registry.datasets.selectors import datasets_visible_to
from registry.releases.models import Release
from registry.releases.selectors import releases_visible_to
from registry.versions.models import Model, ModelVersion, VersionKind

# Maximum number of dataset versions, extended by feedback, in the lineage of one.
ORIGINS_SHOWN = 10
RELATIVES_SHOWN = 50


def models_visible_to(actor: Principal) -> QuerySet[Model]:
    """Models that `actor` may see, with their department and `version_count`."""
    rows = Model.objects.select_related("department", "created_by")
    return visible_to(actor, Action.MODEL_VIEW, rows, resource_type="model").annotate(
        version_count=Count("versions", distinct=True)
    )


def models_by_task(actor: Principal) -> dict[str, int]:
    """Return how many models of each task `actor` may see."""
    visible = models_visible_to(actor).order_by().values("pk")
    rows = Model.objects.filter(pk__in=visible).order_by().values_list("task")
    return dict(rows.annotate(count=Count("pk")))


def licenses_visible_to(actor: Principal, most: int = 100) -> list[str]:
    """Return the licenses of the versions that `actor` may see, by name."""
    rows = versions_visible_to(actor).exclude(license="").order_by("license")
    return list(rows.values_list("license", flat=True).distinct()[:most])


def model_get(*, actor: Principal, name: str) -> Model:
    """Return a model; raise NotFound if it does not exist or `actor` may not see it."""
    # PostgreSQL cannot store NUL, and refuses to compare with it.
    model = None if "\x00" in name else models_visible_to(actor).filter(name=name).first()
    if model is None:
        raise NotFound(f"Model {name[:80]!r} does not exist, or you may not see it.")
    return model


def versions_visible_to(actor: Principal) -> QuerySet[ModelVersion]:
    """Return versions of models that `actor` may see, with the relations that lists show."""
    rows = ModelVersion.objects.select_related(
        "model__department",
        "base__model__department",
        "dataset_version__dataset__department",
        "created_by",
    )
    return visible_to(actor, Action.MODEL_VIEW, rows, resource_type="version")


def version_get(*, actor: Principal, id: int) -> ModelVersion:  # noqa: A002
    """Return a version; raise NotFound if it does not exist or `actor` may not see it."""
    version = versions_visible_to(actor).filter(pk=id).first()
    if version is None:
        raise NotFound(f"Version {id} does not exist, or you may not see it.")
    return version


def versions_naming_credential(
    actor: Principal, credential: Credential, most: int = RELATIVES_SHOWN
) -> list[ModelVersion]:
    """Return the newest hosted versions of the credential's department whose description names it,
    as far as `actor` may see them."""
    rows = versions_visible_to(actor).filter(
        kind=VersionKind.HOSTED,
        model__department=credential.department_id,
        parameters__credential=credential.name,
    )
    return list(rows.defer("manifest", "card", "code").order_by("-pk")[:most])


def base_chain(version: ModelVersion) -> list[ModelVersion]:
    """Return the bases of `version`, nearest first."""
    chain: list[ModelVersion] = []
    base_id = version.base_id
    while base_id is not None:
        base = ModelVersion.objects.select_related("model__department").get(pk=base_id)
        chain.append(base)
        base_id = base.base_id
    return chain


@lifted()
def training_data(version: ModelVersion) -> list[DatasetVersion]:
    """Return the data that `version` and its bases were trained on, nearest first, including data
    of a shared base's department.
    """
    chain = [version, *base_chain(version)]
    return [each.dataset_version for each in chain if each.dataset_version is not None]


def base_chains(versions: Iterable[ModelVersion]) -> dict[int, list[ModelVersion]]:
    """Return `base_chain` of many versions, in a query per level, without manifests and cards."""
    versions = list(versions)
    bases: dict[int, ModelVersion] = {}
    level = {version.base_id for version in versions if version.base_id is not None}
    rows = ModelVersion.objects.select_related("model").defer("manifest", "card")
    while level:
        bases |= rows.in_bulk(level)
        above = {bases[pk].base_id for pk in level}
        level = {pk for pk in above if pk is not None} - bases.keys()
    return {version.pk: _chain_of(version, bases) for version in versions}


def _chain_of(version: ModelVersion, bases: Mapping[int, ModelVersion]) -> list[ModelVersion]:
    chain: list[ModelVersion] = []
    base_id = version.base_id
    while base_id is not None:
        chain.append(bases[base_id])
        base_id = bases[base_id].base_id
    return chain


def lineage(version: ModelVersion, *, actor: Principal | None = None) -> dict[str, Any]:
    """Return the graph around `version`: nodes {id, type, name, state, digest}, edges {from, to}.

    It contains bases, training data with its feedback, adaptations, and the releases of the version
    and its adaptations; deployments belong to the context above. With `actor`, adaptations and
    releases that it may not see are left out; without, the graph is complete, for the platform.
    """
    below = _descendants(version, actor)
    versions = [*base_chain(version), version, *below]
    nodes: dict[str, dict[str, Any]] = {}
    edges: list[dict[str, str]] = []
    for each in versions:
        nodes[f"version:{each.pk}"] = _node("version", each.pk, str(each), each.state, each.digest)
        if each.base_id is not None:
            edges.append({"from": f"version:{each.base_id}", "to": f"version:{each.pk}"})
        if (data := each.dataset_version) is not None:
            nodes[f"dataset_version:{data.pk}"] = _node(
                "dataset_version", data.pk, str(data), "", data.digest
            )
            edges.append({"from": f"dataset_version:{data.pk}", "to": f"version:{each.pk}"})
            _add_origin(data, nodes, edges)
    releases = releases_visible_to(actor) if actor is not None else Release.objects.all()
    rows = releases.filter(version__in=[version, *below]).order_by("pk")
    for release in narrowed(rows, "version", "state", "dossier_digest"):
        nodes[f"release:{release.pk}"] = _node(
            "release", release.pk, str(release), release.state, release.dossier_digest
        )
        edges.append({"from": f"version:{release.version_id}", "to": f"release:{release.pk}"})
    return {"nodes": list(nodes.values()), "edges": edges}


def _add_origin(
    data: DatasetVersion, nodes: dict[str, dict[str, Any]], edges: list[dict[str, str]]
) -> None:
    """Add the feedback in `data`, and its base dataset version, recursively."""
    for _ in range(ORIGINS_SHOWN):
        here = f"dataset_version:{data.pk}"
        if data.feedback_count:
            name = f"{data.feedback_count} pieces of feedback"
            nodes[f"feedback:{data.pk}"] = _node("feedback", data.pk, name, "", "")
            edges.append({"from": f"feedback:{data.pk}", "to": here})
        if data.base_id is None:
            return
        is_shown = f"dataset_version:{data.base_id}" in nodes
        rows = DatasetVersion.objects.select_related("dataset")
        base = rows.filter(pk=data.base_id).first()
        # Data of another department may be invisible.
        if base is None:
            return
        nodes[f"dataset_version:{base.pk}"] = _node(
            "dataset_version", base.pk, str(base), "", base.digest
        )
        edges.append({"from": f"dataset_version:{base.pk}", "to": here})
        if is_shown:
            return
        data = base


def _node(kind: str, pk: int, name: str, state: str, digest: str) -> dict[str, Any]:
    return {"id": f"{kind}:{pk}", "type": kind, "name": name, "state": state, "digest": digest}


@dataclass(frozen=True, slots=True)
class Relatives:
    """Visible models and datasets in the lineage of a model's versions: models that they were built
    from, their training data, and models built from them."""

    bases: list[Model]
    datasets: list[Dataset]
    built: list[Model]

    @property
    def any(self) -> bool:
        return bool(self.bases or self.datasets or self.built)


def model_relatives(actor: Principal, model: Model) -> Relatives:
    """Return the lineage of a model, at most `RELATIVES_SHOWN` of each kind, by name."""
    others = ModelVersion.objects.order_by().exclude(model=model)
    data = DatasetVersion.objects.order_by().filter(trained_versions__model=model)
    models = visible_to(
        actor, Action.MODEL_VIEW, Model.objects.only("name").order_by("name"), resource_type="model"
    )
    bases = models.filter(pk__in=others.filter(adaptations__model=model).values("model"))
    built = models.filter(pk__in=others.filter(base__model=model).values("model"))
    datasets = narrowed(datasets_visible_to(actor).order_by("name"), "name").filter(
        pk__in=data.values("dataset")
    )
    return Relatives(
        list(bases[:RELATIVES_SHOWN]),
        list(datasets[:RELATIVES_SHOWN]),
        list(built[:RELATIVES_SHOWN]),
    )


def models_trained_on(actor: Principal, dataset: Dataset) -> list[Model]:
    """Return the visible models with versions trained on a dataset, at most `RELATIVES_SHOWN`, by
    name."""
    trained = ModelVersion.objects.order_by().filter(dataset_version__dataset=dataset)
    rows = models_visible_to(actor).filter(pk__in=trained.values("model"))
    return list(rows.order_by("name")[:RELATIVES_SHOWN])


def _descendants(version: ModelVersion, actor: Principal | None) -> list[ModelVersion]:
    rows = narrowed(
        versions_visible_to(actor) if actor is not None else ModelVersion.objects.all(),
        *("number", "state", "digest", "base", "model__name"),
        *("dataset_version__number", "dataset_version__digest", "dataset_version__base"),
        *("dataset_version__feedback_count", "dataset_version__dataset__name"),
    )
    descendants: list[ModelVersion] = []
    level = [version.pk]
    while level:
        children = list(rows.filter(base_id__in=level).order_by("pk"))
        descendants.extend(children)
        level = [child.pk for child in children]
    return descendants
