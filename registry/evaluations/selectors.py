"""Reads of evaluations and gates."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection

from django.db.models import Prefetch, QuerySet

from governance.database.narrow import narrowed, own_columns
from governance.errors import NotFound
from governance.permissions import Action
from governance.policy.selectors import visible_to
from governance.principals import Principal
from registry.evaluations.models import Evaluation, Gate, GateResult
from registry.evaluations.standing import GateStanding, gate_standing

_RESULTS = Prefetch("gate_results", queryset=GateResult.objects.select_related("gate"))


def evaluations_visible_to(actor: Principal) -> QuerySet[Evaluation]:
    """Evaluations of models that `actor` may see, with their gate results."""
    rows = Evaluation.objects.select_related(
        "version__model__department", "dataset_version__dataset__department", "created_by"
    ).prefetch_related(_RESULTS)
    return visible_to(actor, Action.EVALUATION_VIEW, rows, resource_type="evaluation")


def evaluations_to_compare(actor: Principal) -> QuerySet[Evaluation]:
    """Return visible evaluations with their gate results, and the names of version and data."""
    data = ("number", "rows", "digest", "dataset__name")
    return narrowed(
        evaluations_visible_to(actor),
        *own_columns(Evaluation),
        *("version__number", "version__model__name"),
        *(f"dataset_version__{column}" for column in data),
    ).prefetch_related(_RESULTS)


def evaluation_get(*, actor: Principal, id: int) -> Evaluation:  # noqa: A002
    """Return an evaluation; raise NotFound if it does not exist or `actor` may not see it."""
    evaluation = evaluations_visible_to(actor).filter(pk=id).first()
    if evaluation is None:
        raise NotFound(f"Evaluation {id} does not exist, or you may not see it.")
    return evaluation


def gates_visible_to(actor: Principal) -> QuerySet[Gate]:
    """Gates on models that `actor` may see."""
    rows = Gate.objects.select_related("model__department", "dataset__department", "created_by")
    return visible_to(actor, Action.EVALUATION_VIEW, rows, resource_type="gate")


def newest_evaluations(actor: Principal, model_ids: Collection[int]) -> dict[int, Evaluation]:
    """Return the newest evaluation of each model that has one, by model, in one query; those on
    training data count only if there is no other."""
    rows = (
        evaluations_visible_to(actor)
        .filter(version__model__in=model_ids)
        .order_by("version__model_id", "on_training_data", "-pk")
        .distinct("version__model_id")
        .defer("slices", "intervals", "version__manifest", "version__card")
        .prefetch_related(None)
    )
    return {each.version.model_id: each for each in rows}


def gate_standings(
    actor: Principal, gates: Collection[Gate], version_ids: Collection[int]
) -> dict[int, list[GateStanding]]:
    """Return the latest result of each version against each of `gates`, by version, in two queries.

    Counts the evaluations that `actor` may see.
    """
    newest = (
        evaluations_to_compare(actor)
        .filter(
            version__in=version_ids,
            dataset_version__dataset__in={gate.dataset_id for gate in gates},
        )
        .order_by("version_id", "dataset_version__dataset_id", "-pk")
        .distinct("version_id", "dataset_version__dataset_id")
        .defer("details", "slices", "intervals")
    )
    evaluations: dict[int, list[Evaluation]] = defaultdict(list)
    for evaluation in newest if gates else ():
        evaluations[evaluation.version_id].append(evaluation)
    return {pk: [gate_standing(gate, evaluations[pk]) for gate in gates] for pk in version_ids}
