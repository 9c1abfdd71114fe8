"""Lookup of policy resources by type and name or number."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from uuid import UUID

from governance.errors import InvalidInput, NotFound
from governance.keys.selectors import key_get
from governance.keys.services import key_resource
from governance.people.selectors import (
    department_get,
    department_resource,
    person_get,
    person_resource,
)
from governance.policy.engine import Resource
from governance.principals import Principal
from registry.datasets.selectors import dataset_get
from registry.intake.selectors import intake_get
from registry.releases.selectors import release_get
from registry.resources import dataset_resource, intake_resource, model_resource, release_resource
from registry.versions.selectors import model_get
from workers.deployments.resources import deployment_resource
from workers.deployments.selectors import deployments_visible_to
from workers.jobs.selectors import job_get
from workers.jobs.services import job_resource

Find = Callable[[Principal, str], Resource]


def _deployment(actor: Principal, name: str) -> Resource:
    """Return the newest deployment with that name; names of stopped deployments are reused."""
    deployment = deployments_visible_to(actor).filter(name=name).order_by("-pk").first()
    if deployment is None:
        raise NotFound(f"Deployment {name[:80]} does not exist, or you may not see it.")
    return deployment_resource(deployment)


def _id(kind: str, text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise NotFound(f"There is no {kind} {text[:40]}.", hint="Use its number.")
    return int(text)


def _job(actor: Principal, text: str) -> Resource:
    try:
        job_id = UUID(text)
    except ValueError:
        raise NotFound(f"There is no job {text[:40]}.") from None
    return job_resource(job_get(actor=actor, job_id=job_id))


# Lookup by type: some by name, others by number.
FINDERS: Mapping[str, Find] = MappingProxyType(
    {
        "dataset": lambda actor, name: dataset_resource(dataset_get(actor=actor, name=name)),
        "department": lambda actor, slug: department_resource(
            department_get(actor=actor, slug=slug)
        ),
        "deployment": _deployment,
        "intake": lambda actor, text: intake_resource(
            intake_get(actor=actor, id=_id("intake", text))
        ),
        "job": _job,
        "key": lambda actor, text: key_resource(key_get(actor=actor, key_id=_id("key", text))),
        "model": lambda actor, name: model_resource(model_get(actor=actor, name=name)),
        "person": lambda actor, text: person_resource(
            person_get(actor=actor, person_id=_id("person", text))
        ),
        "release": lambda actor, text: release_resource(
            release_get(actor=actor, id=_id("release", text))
        ),
    }
)


def resource_named(actor: Principal, kind: str, reference: str) -> Resource:
    """Return the policy's resource with that type and name (or number).

    Raises:
        InvalidInput: resources of that type cannot be looked up.
        NotFound: there is none, or `actor` may not see it.
    """
    find = FINDERS.get(kind)
    if find is None:
        raise InvalidInput(
            f"A {kind[:40]} cannot be looked up.",
            hint=f"Look up one of {', '.join(FINDERS)}, or state the resource's attributes.",
            fields={"resource": ["is of a type that cannot be looked up"]},
        )
    if "\x00" in reference:
        raise NotFound(f"There is no such {kind}.")
    return find(actor, reference)
