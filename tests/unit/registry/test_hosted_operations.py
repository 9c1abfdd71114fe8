"""Operations of providers: the tasks, shapes, fields and parameters of their descriptions."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from governance.errors import InvalidInput
from registry.catalog import TASKS
from registry.catalog.hosted import OPERATIONS, HostedDescription, Operation, WireShape
from tests.unit.registry.hosted_world import FIELDS, described_as, description
from workers.engines.hosted.engine import SHAPES


def test_an_earlier_description_keeps_its_digest() -> None:
    digest = hashlib.sha256(description().canonical()).hexdigest()
    assert digest == "791c70b67b22346428989ac01d7face7e08e47d201de7431033718e5c50ce10f"


def test_a_full_description_of_every_operation_is_read_again_as_it_was() -> None:
    for operation in Operation:
        each = HostedDescription.read(described_as(operation))
        assert HostedDescription.read(each.canonical()) == each


def test_every_operation_has_its_shapes_in_the_engine_and_the_unit_of_its_task() -> None:
    declared = {(shape, name) for name, rules in OPERATIONS.items() for shape in rules.shapes}
    assert declared == set(SHAPES)
    for rules in OPERATIONS.values():
        if rules.task:
            assert rules.unit == TASKS[rules.task].unit


def refusal(operation: Operation, **changes: Any) -> str:
    with pytest.raises(InvalidInput) as refused:
        HostedDescription.read({**described_as(operation), **changes})
    return refused.value.message


@pytest.mark.parametrize("operation", list(Operation))
def test_a_description_has_the_fields_and_parameters_of_its_operation_alone(
    operation: Operation,
) -> None:
    rules = OPERATIONS[operation]
    for name, value in FIELDS.items():
        if name in rules.fields:
            empty: Any = [] if isinstance(value, list) else 0
            assert f"{name} is required" in refusal(operation, **{name: empty})
        else:
            assert f"has no {name}" in refusal(operation, **{name: value})
    others = frozenset().union(*(each.parameters for each in OPERATIONS.values()))
    for name in others - rules.parameters:
        assert f"has no parameter {name}" in refusal(operation, parameters=[name])
    for shape in set(WireShape) - rules.shapes:
        assert f"has no operation {operation}" in refusal(operation, shape=shape.value)
    prices = {"unit": 1} if rules.unit == "tokens" else {"prompt": 1}
    assert "is priced per" in refusal(operation, prices=prices)
