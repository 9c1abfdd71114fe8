"""The latest result of a version against a gate."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from registry.evaluations.models import Evaluation, Gate


class GateState(StrEnum):
    """Result against a gate.

    `NOT_EVALUATED`: the version was never evaluated on the gate's dataset. `NOT_MEASURED`: the
    newest evaluation there lacks the metric; that fails the gate. `SET_LATER`: the gate, or its
    present threshold, was set after the newest evaluation started, so that one cannot pass it.
    """

    PASSED = "passed"
    FAILED = "failed"
    NOT_MEASURED = "not_measured"
    NOT_EVALUATED = "not_evaluated"
    SET_LATER = "set_later"


@dataclass(frozen=True, slots=True)
class GateStanding:
    """A gate and the newest evaluation on its dataset, if there is one."""

    gate: Gate
    state: GateState
    value: float | None = None
    evaluation: Evaluation | None = None

    @property
    def passed(self) -> bool:
        return self.state is GateState.PASSED

    @property
    def on_training_data(self) -> bool:
        """Return whether the newest evaluation measured data that the version was trained on."""
        return self.evaluation is not None and self.evaluation.on_training_data

    @property
    def why(self) -> str:
        """The state in words."""
        if self.state is GateState.SET_LATER:
            return "set after the newest evaluation started"
        if self.value is not None:
            return f"{self.state.value} with {self.value:.4g}"
        return "not measured"


def gate_standing(gate: Gate, evaluations: Iterable[Evaluation]) -> GateStanding:
    """Return a version's standing; its `evaluations` come oldest first, with gate results."""
    measured = [each for each in evaluations if each.dataset_version.dataset_id == gate.dataset_id]
    if not measured:
        return GateStanding(gate, GateState.NOT_EVALUATED)
    newest = measured[-1]
    for result in newest.gate_results.all():
        if result.gate_id == gate.pk and result.threshold == gate.threshold:
            state = GateState.PASSED if result.passed else GateState.FAILED
            if result.value is None:
                state = GateState.NOT_MEASURED
            return GateStanding(gate, state, result.value, newest)
    return GateStanding(gate, GateState.SET_LATER, evaluation=newest)
