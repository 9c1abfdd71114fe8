"""A worker gets the credential of the department that owns the deployment, and no other."""

from __future__ import annotations

from typing import Any

import pytest

from governance.audit.models import AuditEvent
from governance.credentials.models import Credential, CredentialUse
from governance.credentials.schemas import NewCredential
from governance.credentials.sealing import KeyOpener, secret_context
from governance.credentials.services import credential_create, credential_revoke
from governance.errors import NotFound, Unavailable
from governance.schemas import parsed
from tests.database_roles import acting_as
from tests.unit.audit_support import bodies
from tests.unit.workers import company
from tests.unit.workers.releases import adapter, release
from workers.control.direct import DirectControl
from workers.control.protocol import SealedCredential
from workers.deployments.models import Deployment
from workers.deployments.services import deployment_create, deployment_stop
from workers.remote.control import RemoteControl

pytestmark = pytest.mark.django_db

HOST = "api.example.com"


@pytest.fixture
def deployment() -> Deployment:
    return deployment_create(
        actor=company.developer(), release_id=release(adapter(b"adapter"), name="chat").pk
    )


def entered(department: str, secret: str) -> Credential:
    body = parsed(
        NewCredential,
        {
            "department": department,
            "name": "provider",
            "kind": "header",
            "hosts": [HOST],
            "secret": secret,
        },
    )
    return credential_create(
        actor=company.person(f"lead-{department}", "lead", department),
        department=company.department(department),
        name=body.name,
        kind=body.kind,
        hosts=body.hosts,
        entered=body,
    )


def asked(deployment: Deployment, **changes: Any) -> SealedCredential:
    asks = {"deployment_id": deployment.pk, "name": "provider", "host": HOST}
    with acting_as("worker"):
        return DirectControl().credential(worker="egress-1", **(asks | changes))


def test_the_secret_of_the_deployments_department_is_given_and_its_use_recorded(
    deployment: Deployment,
) -> None:
    entered("finance", "Bearer theirs")
    with pytest.raises(Unavailable, match="clinical has no credential provider"):
        asked(deployment)
    ours = entered("clinical", "Bearer ours")
    for _ in range(3):
        sealed = asked(deployment)
    assert (sealed.id, sealed.department, sealed.hosts) == (ours.pk, "clinical", (HOST,))
    context = secret_context(
        department=sealed.department,
        name=sealed.name,
        kind=sealed.kind,
        hosts=sealed.hosts,
        version=sealed.version,
    )
    assert b"Bearer ours" in KeyOpener([b"\x11" * 32]).open(sealed.sealed, context)
    (event,) = bodies(action="credential:use")
    assert event["department"] == "clinical"
    assert event["data"] == {
        "deployment": "chat", "host": HOST, "version": 1, "worker": "egress-1",
    }  # fmt: skip
    assert CredentialUse.objects.get().credential == ours


def test_what_may_not_be_used_is_refused_without_an_event(deployment: Deployment) -> None:
    credential = entered("clinical", "Bearer ours")
    for changes in ({"name": "other"}, {"host": "evil.example"}):
        with pytest.raises(Unavailable) as caught:
            asked(deployment, **changes)
        assert caught.value.code == "credential_unavailable"
    lead = company.person("lead-clinical", "lead", "clinical")
    credential_revoke(actor=lead, credential_id=credential.pk)
    with pytest.raises(Unavailable, match="is revoked"):
        asked(deployment)
    deployment_stop(actor=lead, deployment_id=deployment.pk)
    for number in (deployment.pk, 10**9):
        with pytest.raises(NotFound):
            asked(deployment, deployment_id=number)
    assert not AuditEvent.objects.filter(action="credential:use").exists()


def test_a_node_gets_no_credential() -> None:
    control = RemoteControl(client=None, cache=None)  # type: ignore[arg-type]
    with pytest.raises(Unavailable, match="Workers on nodes get no credentials"):
        control.credential(worker="gpu-1/e1", deployment_id=1, name="provider", host=HOST)
