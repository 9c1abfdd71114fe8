"""The chart's objects for runs, and its admission policies: evaluated as the cluster's API does it.

The evaluator is Google's for C++, Kubernetes has the one for Go. That one refuses literals of mixed
types, which this one takes.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import helm_python as helm
import yaml
from cel_expr_python import cel

ROOT = Path(__file__).resolve().parents[3]
NAMESPACE = "runs"
VALUES = {"runs": {"enabled": True, "namespace": NAMESPACE, "claim": "shared", "device": "cpu"}}
WORKER = "system:serviceaccount:models:assay-compute"
# The chart's folder of runs.
WORK = "/var/lib/assay/work"
_ENVIRONMENT = cel.NewEnv(variables=dict.fromkeys(("object", "request", "variables"), cel.Type.DYN))


@cache
def charts(template: str) -> list[dict[str, Any]]:
    """The objects of one of the chart's templates."""
    texts = helm.Chart.load(str(ROOT / "deploy" / "helm" / "assay")).render(
        VALUES, name="assay", namespace="models"
    )
    (text,) = (text for path, text in texts.items() if path.endswith(f"/{template}.yaml"))
    return [each for each in yaml.safe_load_all(text) if each]


def refusal(made: dict[str, Any], user: str, work: str = WORK) -> str:
    """Return why the policies refuse that a user creates an object; empty when they do not.

    `work` takes the place of the chart's folder of runs.
    """
    plural = {"NetworkPolicy": "networkpolicies"}.get(made["kind"], f"{made['kind'].lower()}s")
    given: dict[str, Any] = {"object": made, "request": {"userInfo": {"username": user}}}

    def value(expression: str) -> Any:
        found = _compiled(expression.replace(WORK, work)).eval(data=given)
        if found.type() == cel.Type.ERROR:
            raise ValueError(found.value())
        return found.plain_value()

    for policy in charts("admission"):
        spec = policy["spec"]
        if policy["kind"] != "ValidatingAdmissionPolicy":
            continue
        (rule,) = spec["matchConstraints"]["resourceRules"]
        conditions = (each["expression"] for each in spec.get("matchConditions", ()))
        if rule["resources"] != [plural] or not all(map(value, conditions)):
            continue
        given["variables"] = {}
        for each in spec.get("variables", ()):
            # One that cannot be computed makes those expressions fail that use it.
            try:
                given["variables"][each["name"]] = value(each["expression"])
            except ValueError:
                continue
        for each in spec["validations"]:
            try:
                if value(each["expression"]) is not True:
                    return str(each["message"])
            except ValueError as error:
                return f"The expression failed: {error}"
    return ""


@cache
def _compiled(expression: str) -> cel.Expression:
    return _ENVIRONMENT.compile(expression)
