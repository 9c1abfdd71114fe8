"""A small company with real rows and real files, for the tests of jobs and deployments."""

from __future__ import annotations

import hashlib
from pathlib import Path

from django.conf import settings

from governance.people.models import Department, Person, RoleAssignment
from governance.policy.services import policy_bootstrap
from governance.principals import Principal
from governance.reviews.policies.shipping import review_policies_bootstrap
from registry import store
from registry.datasets.models import Dataset, DatasetVersion
from registry.manifests import Manifest, build_manifest
from registry.versions.models import Model, ModelVersion
from tests.proofs import proven
from tests.stored import stored_file


def department(slug: str) -> Department:
    policy_bootstrap()
    review_policies_bootstrap()
    found, _ = Department.objects.get_or_create(slug=slug, defaults={"name": slug.title()})
    return found


def person(name: str, role: str, where: str | None = None, specialty: str = "") -> Principal:
    """A person with one role, as the principal that services take."""
    policy_bootstrap()
    human, _ = Person.objects.get_or_create(email=f"{name}@example.org", defaults={"name": name})
    RoleAssignment.objects.get_or_create(
        person=human,
        role=role,
        department=department(where) if where else None,
        specialty=specialty,
    )
    return proven(human)


def developer(where: str = "clinical") -> Principal:
    return person(f"dev-{where}", "developer", where)


def _someone() -> Person:
    found, _ = Person.objects.get_or_create(email="maker@example.org", defaults={"name": "Maker"})
    return found


def model(name: str, task: str, where: str = "clinical", *, shared: bool = False) -> Model:
    found, _ = Model.objects.get_or_create(
        name=name,
        defaults={
            "department": department(where),
            "task": task,
            "shared": shared,
            "created_by": _someone(),
        },
    )
    return found


def stored(files: dict[str, bytes], base_digest: str | None = None) -> Manifest:
    """`files` as a version's folder in the artifact store."""
    key = hashlib.sha256(repr(sorted(files.items())).encode()).hexdigest()[:16]
    folder = Path(settings.DATA_DIR) / "making" / key
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    manifest = build_manifest(folder, base_digest=base_digest)
    store.adopt(folder, manifest)
    return manifest


def version(
    of: Model,
    kind: str = "base",
    *,
    base: ModelVersion | None = None,
    files: dict[str, bytes] | None = None,
) -> ModelVersion:
    manifest = stored(
        files or {"config.json": b"{}", "weights.bin": f"{of.name} {kind}".encode()},
        base.digest if base is not None and kind != "full" else None,
    )
    return ModelVersion.objects.create(
        model=of,
        number=of.versions.count() + 1,
        kind=kind,
        base=base,
        digest=manifest.digest,
        manifest=manifest.to_json(),
        size_bytes=manifest.size_bytes,
        license="Apache-2.0",
        created_by=_someone(),
    )


def data(
    name: str, task: str, where: str = "clinical", classification: str = "internal"
) -> DatasetVersion:
    content = f'{{"text": "{name}"}}\n'.encode()
    digest = hashlib.sha256(content).hexdigest()
    file = stored_file(digest)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    dataset = Dataset.objects.create(
        name=name,
        department=department(where),
        task=task,
        classification=classification,
        license="CC0",
        created_by=_someone(),
    )
    return DatasetVersion.objects.create(
        dataset=dataset,
        number=1,
        digest=digest,
        rows=1,
        size_bytes=len(content),
        schema={},
        created_by=_someone(),
    )
