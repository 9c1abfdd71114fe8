"""Credentials for providers of hosted models. No answer contains a part of a secret."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet
from rest_framework import serializers

from assay.api.representations.common import PersonReference, slug
from assay.api.routes import Routes
from governance.credentials.models import Credential
from governance.credentials.schemas import CredentialFilter, CredentialRotation, NewCredential
from governance.credentials.selectors import (
    credential_get,
    credential_uses,
    credentials_visible_to,
)
from governance.credentials.services import (
    credential_create,
    credential_revoke,
    credential_rotate,
)
from governance.people.selectors import department_get
from governance.principals import Principal
from registry.versions.selectors import versions_naming_credential


class CredentialAnswer(serializers.Serializer[Any]):
    """A credential without its secret. `version` counts its secrets; `sealed_to` is the fingerprint
    of the public key that encrypts the secret, empty if the credential is revoked."""

    id = serializers.IntegerField()
    name = serializers.CharField()
    department = slug()
    kind = serializers.CharField()
    hosts = serializers.ListField(child=serializers.CharField())
    state = serializers.CharField()
    version = serializers.IntegerField()
    sealed_to = serializers.CharField()
    created_by = PersonReference()
    created_at = serializers.DateTimeField()
    rotated_by = PersonReference(allow_null=True)
    rotated_at = serializers.DateTimeField(allow_null=True)
    revoked_by = PersonReference(allow_null=True)
    revoked_at = serializers.DateTimeField(allow_null=True)
    last_used_at = serializers.DateTimeField(
        allow_null=True, help_text="In steps of an hour for each deployment."
    )


class CredentialUseAnswer(serializers.Serializer[Any]):
    """The latest use by a deployment, in steps of an hour."""

    deployment = serializers.CharField()
    used_at = serializers.DateTimeField()


class CredentialVersionAnswer(serializers.Serializer[Any]):
    """A hosted version whose description names the credential."""

    id = serializers.IntegerField()
    name = serializers.CharField(source="__str__")
    state = serializers.CharField()


class CredentialDetailAnswer(CredentialAnswer):
    """A credential, its latest uses, and the hosted versions that name it."""

    uses = CredentialUseAnswer(many=True, source="latest_uses")
    versions = CredentialVersionAnswer(many=True)


routes = Routes("Credentials", CredentialDetailAnswer)


@routes.list("credentials", "List credentials for providers", answer=CredentialAnswer)
def list_credentials(actor: Principal, query: CredentialFilter) -> QuerySet[Credential]:
    return query.applied(credentials_visible_to(actor))


# Requests with a secret accept no `Idempotency-Key`, which would store a digest of their body.
@routes.post("credentials", "Enter a credential", status=201, judged=True)
def create(actor: Principal, body: NewCredential) -> Any:
    credential = credential_create(
        actor=actor,
        department=department_get(slug=body.department),
        name=body.name,
        kind=body.kind,
        hosts=body.hosts,
        entered=body,
    )
    return show(actor, credential.pk)


@routes.get("credentials/<id:credential_id>", "A credential and its uses")
def show(actor: Principal, credential_id: int) -> Any:
    credential: Any = credential_get(actor=actor, credential_id=credential_id)
    credential.latest_uses = credential_uses(credential)
    credential.versions = versions_naming_credential(actor, credential)
    return credential


@routes.post(
    "credentials/<id:credential_id>/rotate", "Replace the secret of a credential", judged=True
)
def rotate(actor: Principal, credential_id: int, body: CredentialRotation) -> Any:
    credential_get(actor=actor, credential_id=credential_id)
    credential_rotate(
        actor=actor,
        credential_id=credential_id,
        entered=body,
        hosts=body.hosts,
        version=body.version,
    )
    return show(actor, credential_id)


@routes.post("credentials/<id:credential_id>/revoke", "Revoke a credential and delete its secret")
def revoke(actor: Principal, credential_id: int) -> Any:
    credential_get(actor=actor, credential_id=credential_id)
    credential_revoke(actor=actor, credential_id=credential_id)
    return show(actor, credential_id)
