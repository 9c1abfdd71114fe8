"""Comparison of two policies, rule by rule and test by test. Imports no Django."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from governance.english import counted


class ChangedRule(NamedTuple):
    """A rule that differs between two policies; `members` names its members that differ."""

    id: str
    before: dict[str, Any]
    after: dict[str, Any]
    members: list[str]


@dataclass(frozen=True, slots=True)
class Difference:
    """Difference between two policies. Rules are identified by ID, cases by name."""

    added: list[dict[str, Any]]
    removed: list[dict[str, Any]]
    changed: list[ChangedRule]
    reordered: bool
    tests_added: list[str]
    tests_removed: list[str]
    tests_changed: list[str]

    def as_dict(self) -> dict[str, Any]:
        """Return the difference as the API and the command line print it."""
        return {**asdict(self), "changed": [rule._asdict() for rule in self.changed]}

    @property
    def empty(self) -> bool:
        """Return whether the policies are equal."""
        return not any(
            (
                self.added,
                self.removed,
                self.changed,
                self.reordered,
                self.tests_added,
                self.tests_removed,
                self.tests_changed,
            )
        )


@dataclass(frozen=True, slots=True)
class Removals:
    """IDs of rules and names of tests of a policy's base that the policy does not have."""

    rules: list[str]
    tests: list[str]

    def __bool__(self) -> bool:
        return bool(self.rules or self.tests)

    def __str__(self) -> str:
        counts = ((len(self.rules), "rule"), (len(self.tests), "test"))
        return " and ".join(counted(n, noun) for n, noun in counts if n)


def difference(
    before: list[dict[str, Any]],
    after: list[dict[str, Any]],
    tests_before: list[dict[str, Any]] = (),  # type: ignore[assignment]
    tests_after: list[dict[str, Any]] = (),  # type: ignore[assignment]
) -> Difference:
    """Compare one policy's rules and tests with another's.

    A new order of the rules does not change decisions, only which rule explains them first.
    """
    old, new = {rule["id"]: rule for rule in before}, {rule["id"]: rule for rule in after}
    common = [name for name in old if name in new]
    changed = [
        ChangedRule(
            name,
            old[name],
            new[name],
            [
                member
                for member in dict.fromkeys((*old[name], *new[name]))
                if old[name].get(member) != new[name].get(member)
            ],
        )
        for name in common
        if old[name] != new[name]
    ]
    old_cases = {case["name"]: case for case in tests_before}
    new_cases = {case["name"]: case for case in tests_after}
    return Difference(
        added=[rule for name, rule in new.items() if name not in old],
        removed=[rule for name, rule in old.items() if name not in new],
        changed=changed,
        reordered=common != [name for name in new if name in old],
        tests_added=[name for name in new_cases if name not in old_cases],
        tests_removed=[name for name in old_cases if name not in new_cases],
        tests_changed=[
            name
            for name, case in old_cases.items()
            if name in new_cases and new_cases[name] != case
        ],
    )
