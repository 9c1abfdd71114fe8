"""Credentials of providers: entered once, sealed at once, and given back to nobody."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from django.db import DatabaseError, IntegrityError, transaction

from governance import rowsecurity
from governance.audit.models import AuditEvent
from governance.audit.services import Subject, audit_record
from governance.credentials.models import Credential, CredentialUse
from governance.credentials.schemas import CredentialRotation, NewCredential, secret_of
from governance.credentials.sealing import (
    KeyOpener,
    NotOpened,
    fingerprint,
    public_key_of,
    seal,
    secret_context,
)
from governance.credentials.secrets import HeaderSecret
from governance.credentials.selectors import credential_get, credentials_visible_to
from governance.credentials.services import (
    credential_create,
    credential_revoke,
    credential_rotate,
    credential_use,
)
from governance.errors import InvalidInput, NotFound, NotPermitted, Unavailable, WrongState
from governance.people.models import Department, Person
from governance.people.selectors import principal_for_person
from governance.principals import Principal, PrincipalKind, service_principal
from governance.schemas import parsed
from tests.database_roles import acting_as
from tests.unit.audit_support import bodies
from tests.unit.dump import found

PRIVATE, OTHER = b"\x11" * 32, b"\x22" * 32
CANARY = "sk-quicksilver-7f3a91"
WORKER = service_principal("engine-worker")


@pytest.fixture(autouse=True)
def keys(settings: Any) -> None:
    """A web process, which has the public key alone."""
    settings.EGRESS_PUBLIC_KEY = public_key_of(PRIVATE).hex()
    settings.EGRESS_KEYS = []


@pytest.fixture
def lead(actor: Callable[..., Principal]) -> Principal:
    return actor("Lena", "lead@clinical")


Make = Callable[..., Credential]


def new(**changes: Any) -> NewCredential:
    given = {
        "department": "clinical",
        "name": "openai",
        "kind": "header",
        "hosts": ["api.openai.com"],
        "secret": f"Bearer {CANARY}",
    }
    return parsed(NewCredential, given | changes)


@pytest.fixture
def make(lead: Principal, department: Callable[[str], Department]) -> Make:
    def create(actor: Principal = lead, **changes: Any) -> Credential:
        body = new(**changes)
        return credential_create(
            actor=actor,
            department=department(body.department),
            name=body.name,
            kind=body.kind,
            hosts=body.hosts,
            entered=body,
        )

    return create


def rotation(**changes: Any) -> CredentialRotation:
    return parsed(CredentialRotation, {"secret": f"Bearer {CANARY}-2"} | changes)


def context_of(credential: Credential, **changes: Any) -> bytes:
    bound: dict[str, Any] = {
        "department": credential.department.slug,
        "name": credential.name,
        "kind": credential.kind,
        "hosts": credential.hosts,
        "version": credential.version,
    }
    return secret_context(**(bound | changes))


def opened(credential: Credential, *keys: bytes, **changes: Any) -> HeaderSecret:
    row = Credential.objects.get(pk=credential.pk)
    content = KeyOpener(keys or [PRIVATE]).open(bytes(row.sealed), context_of(row, **changes))
    return HeaderSecret.opened(content)


def test_only_the_private_key_opens_what_is_sealed(make: Make) -> None:
    credential = make()
    assert opened(credential).value.get_secret_value() == f"Bearer {CANARY}"
    assert opened(credential, OTHER, PRIVATE).header == "authorization"
    with pytest.raises(NotOpened):
        opened(credential, OTHER)
    # All that a web process has: the public key, and its database.
    with pytest.raises(NotOpened):
        opened(credential, public_key_of(PRIVATE))
    with pytest.raises(NotOpened):
        KeyOpener([]).open(bytes(credential.sealed), context_of(credential))


@pytest.mark.parametrize(
    "moved",
    [
        {"department": "finance"},
        {"name": "mistral"},
        {"kind": "oauth2"},
        {"hosts": ["api.openai.com", "evil.example"]},
        {"hosts": ["evil.example"]},
        {"version": 2},
    ],
    ids=lambda moved: next(iter(moved)),
)
def test_a_secret_that_is_moved_or_whose_row_changes_does_not_open(
    make: Make, moved: dict[str, Any]
) -> None:
    with pytest.raises(NotOpened):
        opened(make(), **moved)


def test_no_byte_of_a_sealed_value_can_change() -> None:
    public, context = public_key_of(PRIVATE), b"context"
    sealed = seal(b'{"a":1}', public=public, context=context)
    opener = KeyOpener([PRIVATE])
    assert opener.open(sealed, context) == b'{"a":1}'
    for place in (0, 1, 20, 33, len(sealed) - 1):
        changed = bytearray(sealed)
        changed[place] ^= 1
        with pytest.raises(NotOpened):
            opener.open(bytes(changed), context)
    for wrong in (b"", sealed[:20], sealed[:33], sealed[:-1], sealed + b"x", b"\x01" * 40_000):
        with pytest.raises(NotOpened):
            opener.open(wrong, context)
    # An ephemeral key of low order would make the shared secret known to everybody.
    with pytest.raises(NotOpened):
        opener.open(b"\x01" + bytes(32) + sealed[33:], context)


def test_sealed_values_reveal_neither_length_nor_equality() -> None:
    public = public_key_of(PRIVATE)
    one, same, longer = (
        seal(secret, public=public, context=b"") for secret in (b"a", b"a", b"a" * 900)
    )
    assert one != same
    assert len(one) == len(longer)
    with pytest.raises(ValueError, match="at most"):
        seal(b"a" * 40_000, public=public, context=b"")


def test_the_secret_is_nowhere_in_the_database(make: Make, lead: Principal) -> None:
    credential = make()
    credential_rotate(actor=lead, credential_id=credential.pk, entered=rotation())
    credential_revoke(actor=lead, credential_id=credential.pk)
    assert found([CANARY, "quicksilver"]) == []
    events = AuditEvent.objects.filter(subject_type="credential").order_by("pk")
    assert [event.action for event in events] == [
        "credential:create",
        "credential:rotate",
        "credential:revoke",
    ]
    body = bodies(subject_type="credential")[0]
    assert body["data"]["hosts"] == ["api.openai.com"]
    assert body["data"]["sealed_to"] == fingerprint(public_key_of(PRIVATE))
    assert body["department"] == "clinical"


def test_no_error_or_log_has_a_part_of_a_secret(
    make: Make, lead: Principal, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    logger = logging.getLogger("test")
    wrong: list[dict[str, Any]] = [
        {"secret": f"{CANARY}\r\nx-evil: 1"},
        {"secret": f"Bearer {CANARY}\x00"},
        {"secret": f"Bearer {CANARY}é"},
        {"secret": CANARY},
        {"secret": f"Bearer {CANARY}" * 5_000},
        {"secret": [CANARY]},
        {"secret": {"value": CANARY}},
        {"secret": f"Bearer {CANARY}", "region": "eu-1"},
        {"secret": f"Bearer {CANARY}", "kind": "google"},
        {"secret": f'{{"type": "service_account", "private_key": "{CANARY}"}}', "kind": "google"},
        {"secret": f'{{"type": "{CANARY}"}}', "kind": "google"},
        {"secret": f"Bearer {CANARY}", "kind": "aws", "access_key_id": "x"},
        {"secret": f"Bearer {CANARY}", "header": "host"},
        {"secret": f"Bearer {CANARY}", "name": "Not A Slug"},
    ]
    for each in wrong:
        with pytest.raises(InvalidInput) as caught:
            make(**each)
        error = caught.value
        told = f"{error.message} {error.fields} {error.hint} {error!r}"
        assert "quicksilver" not in told, each
        logger.error("refused", exc_info=error)
    body = new()
    assert "quicksilver" not in f"{body!r} {body} {body.model_dump()}"
    secret = secret_of("header", body)
    assert "quicksilver" not in f"{secret!r} {secret}"
    assert "quicksilver" not in caplog.text
    assert "refused" in caplog.text
    assert not Credential.objects.exists()


def pem(bits: int) -> str:
    key = rsa.generate_private_key(65537, bits)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def test_each_kind_takes_what_belongs_to_it(make: Make) -> None:
    account = {
        "type": "service_account",
        "client_email": "assay@project.iam.gserviceaccount.com",
        "private_key_id": "ab12",
        "private_key": pem(2048),
        "token_uri": "https://oauth2.googleapis.com/token",
        "universe_domain": "googleapis.com",
    }
    entra = "https://login.microsoftonline.com/t/oauth2/v2.0/token"
    oauth2 = {"kind": "oauth2", "token_url": entra, "client_id": "id", "secret": "s3cret~value"}
    assert make(name="entra", **oauth2).hosts == ["api.openai.com", "login.microsoftonline.com"]
    google = make(name="google", kind="google", secret=json.dumps(account))
    assert google.hosts == ["api.openai.com", "oauth2.googleapis.com"]
    aws = {"access_key_id": "AKIAIOSFODNN7EXAMPLE", "region": "eu-west-1", "secret": "wJalr/K+x"}
    make(name="aws", kind="aws", **aws)
    make(name="azure", header="api-key", secret="0123456789abcdef")
    make(name="title-case", header="X-Api-Key", secret="0123456789abcdef")

    refused: list[tuple[str, dict[str, Any]]] = [
        ("token_url", oauth2 | {"token_url": "http://login.example/token"}),
        ("token_url", oauth2 | {"token_url": "https://user:pw@login.example/token"}),
        ("token_url", oauth2 | {"token_url": "https://login.example:0/token"}),
        ("token_url", {name: value for name, value in oauth2.items() if name != "token_url"}),
        ("client_id", oauth2 | {"client_id": ""}),
        ("header", oauth2 | {"header": "api-key"}),
        ("secret", {"kind": "google", "secret": "[" * 10_000}),
        ("secret", {"kind": "google", "secret": json.dumps(account | {"private_key": 5})}),
        ("secret", {"kind": "google", "secret": json.dumps(account | {"token_uri": "ftp://x"})}),
        ("secret", {"kind": "google", "secret": json.dumps(account | {"client_email": "a b"})}),
        ("access_key_id", {"kind": "aws", **aws, "access_key_id": "AKIA"}),
        ("region", {"kind": "aws", **aws, "region": "eu west"}),
        ("header", {"header": "Transfer-Encoding"}),
        ("header", {"header": "x-amz-date"}),
        ("header", {"header": "cookie"}),
        ("header", {"header": "a:b"}),
        ("header", {"header": "a\r\nb"}),
        ("hosts", {"hosts": []}),
        ("hosts", {"hosts": [f"h{n}.example" for n in range(21)]}),
        ("hosts", oauth2 | {"hosts": [f"h{n}.example" for n in range(20)]}),
        ("hosts.0", {"hosts": ["https://api.openai.com"]}),
        ("hosts.0", {"hosts": ["api.openai.com:443"]}),
        ("hosts.0", {"hosts": ["api.openai.com/v1"]}),
        ("hosts.0", {"hosts": ["*.openai.com"]}),
        ("hosts.0", {"hosts": [""]}),
        ("name", {"name": "x" * 61}),
        ("kind", {"kind": "password"}),
    ]
    for field, changes in refused:
        with pytest.raises(InvalidInput) as caught:
            make(**({"name": "refused"} | changes))
        assert field in caught.value.fields, (field, changes, caught.value.fields)
    assert not Credential.objects.filter(name="refused").exists()


def test_without_a_public_key_nothing_can_be_entered(make: Make, settings: Any) -> None:
    settings.EGRESS_PUBLIC_KEY = ""
    with pytest.raises(Unavailable, match="no ASSAY_EGRESS_PUBLIC_KEY") as caught:
        make()
    assert "egress_public_key" in caught.value.hint


def test_who_may(
    make: Make,
    lead: Principal,
    actor: Callable[..., Principal],
    person: Callable[..., Person],
) -> None:
    credential = make()
    admin = actor("Ada", "admin")
    make(actor=admin, name="by-admin")
    developer = actor("Dev", "developer@clinical")
    with pytest.raises(NotPermitted):
        make(actor=developer, name="by-developer")
    assert set(credentials_visible_to(developer)) == set(credentials_visible_to(lead))
    for stranger in (actor("Fay", "lead@finance"), actor("Vi", "viewer@clinical")):
        assert not credentials_visible_to(stranger).exists()
        with pytest.raises(NotFound):
            credential_get(actor=stranger, credential_id=credential.pk)
    with pytest.raises(NotFound) as hidden:
        credential_revoke(actor=actor("Flo", "lead@finance"), credential_id=credential.pk)
    with pytest.raises(NotFound) as missing:
        credential_revoke(actor=lead, credential_id=10**9)
    assert hidden.value.message == missing.value.message
    for refused in (
        lambda: make(actor=actor("Fi", "lead@finance"), name="theirs"),
        lambda: make(actor=actor("Aud", "auditor", "lead@clinical"), name="by-auditor"),
    ):
        with pytest.raises((NotFound, NotPermitted)):
            refused()
    unproven = principal_for_person(person("Lee", "lead@clinical"))
    with pytest.raises(NotPermitted) as step_up:
        make(actor=unproven, name="unproven")
    assert step_up.value.code == "step_up_required"
    with pytest.raises(NotPermitted):
        credential_rotate(actor=unproven, credential_id=credential.pk, entered=rotation())
    key = Principal(
        kind=PrincipalKind.KEY, id="1", name="app", department="clinical", key_id=1,
        scopes=frozenset({"credential:create"}),
    )  # fmt: skip
    with pytest.raises((NotFound, NotPermitted)):
        make(actor=key, name="by-key")
    # Taking access away needs no second factor.
    credential_revoke(actor=unproven, credential_id=credential.pk)


def test_rotation_replaces_secret_and_hosts(make: Make, lead: Principal, settings: Any) -> None:
    credential = make()
    settings.EGRESS_PUBLIC_KEY = public_key_of(OTHER).hex()
    rotated = credential_rotate(actor=lead, credential_id=credential.pk, entered=rotation())
    assert (rotated.version, rotated.hosts) == (2, ["api.openai.com"])
    assert opened(rotated, OTHER).value.get_secret_value() == f"Bearer {CANARY}-2"
    assert rotated.sealed_to == fingerprint(public_key_of(OTHER)) != credential.sealed_to
    moved = credential_rotate(
        actor=lead, credential_id=credential.pk, entered=rotation(), hosts=["eu.api.openai.com"]
    )
    assert (moved.version, moved.hosts) == (3, ["eu.api.openai.com"])
    assert opened(moved, OTHER).header == "authorization"


def test_of_two_who_rotate_at_once_the_second_is_told(make: Make, lead: Principal) -> None:
    credential = make()
    both = {"actor": lead, "credential_id": credential.pk, "version": 1}
    credential_rotate(entered=rotation(), **both)
    with pytest.raises(WrongState, match="another person has rotated it") as caught:
        credential_rotate(entered=rotation(secret="Bearer third"), **both)
    assert caught.value.code == "credential_rotated"
    assert opened(credential).value.get_secret_value() == f"Bearer {CANARY}-2"


def test_a_name_is_taken_once_in_a_department(make: Make, actor: Callable[..., Principal]) -> None:
    make()
    with pytest.raises(WrongState, match="already has a credential openai"):
        make()
    make(actor=actor("Fay", "lead@finance"), department="finance")
    twin = Credential.objects.get(department__slug="clinical")
    twin.pk = None
    with pytest.raises(IntegrityError), transaction.atomic():
        twin.save(force_insert=True)


def test_a_revoked_credential_holds_no_secret_until_it_gets_a_new_one(
    make: Make, lead: Principal
) -> None:
    credential = make()
    credential_revoke(actor=lead, credential_id=credential.pk)
    revoked = Credential.objects.get(pk=credential.pk)
    assert (bytes(revoked.sealed), revoked.state) == (b"", "revoked")
    with pytest.raises(WrongState):
        credential_revoke(actor=lead, credential_id=credential.pk)
    again = credential_rotate(actor=lead, credential_id=credential.pk, entered=rotation())
    assert (again.state, again.version, again.revoked_at) == ("active", 2, None)


@pytest.mark.parametrize(
    "change",
    [
        {"sealed": b"other"},
        {"hosts": ["evil.example"]},
        {"version": 1},
        {"version": 4},
        {"name": "other"},
        {"kind": "aws"},
        {"state": "revoked"},
        {"hosts": [], "version": 3},
        {"sealed": b"", "version": 3},
    ],
    ids=str,
)
def test_the_database_keeps_a_secret_with_its_version(
    make: Make, lead: Principal, change: dict[str, Any]
) -> None:
    credential = make()
    credential_rotate(actor=lead, credential_id=credential.pk, entered=rotation())
    with pytest.raises(DatabaseError), transaction.atomic():
        Credential.objects.filter(pk=credential.pk).update(**change)


def test_rows_of_other_departments_are_hidden_from_requests(
    make: Make, actor: Callable[..., Principal]
) -> None:
    ours = make()
    theirs = make(actor=actor("Fay", "lead@finance"), department="finance")
    for credential in (ours, theirs):
        CredentialUse.objects.create(
            credential=credential, deployment="d", used_at=credential.created_at
        )
    with rowsecurity.scope(actor("Leo", "lead@clinical")):
        assert list(Credential.objects.values_list("pk", flat=True)) == [ours.pk]
        assert list(CredentialUse.objects.values_list("credential_id", flat=True)) == [ours.pk]


def use(department: Department, **changes: Any) -> Credential:
    asked = {"name": "openai", "host": "api.openai.com", "deployment": "chat", "worker": "e1"}
    return credential_use(actor=WORKER, department=department, **(asked | changes))


def test_use_is_recorded_once_for_credential_deployment_and_hour(
    make: Make, department: Callable[[str], Department]
) -> None:
    clinical, credential = department("clinical"), make()
    for _ in range(3):
        assert use(clinical).pk == credential.pk
    use(clinical, deployment="mail")
    events = AuditEvent.objects.filter(action="credential:use").order_by("pk")
    assert [body["data"]["deployment"] for body in bodies(action="credential:use")] == [
        "chat",
        "mail",
    ]
    CredentialUse.objects.filter(deployment="chat").update(used_at="2026-01-01T00:59:59Z")
    use(clinical)
    use(clinical)
    assert events.count() == 3
    assert CredentialUse.objects.count() == 2


def test_a_credential_is_refused_that_is_missing_revoked_or_for_other_hosts(
    make: Make, lead: Principal, department: Callable[[str], Department]
) -> None:
    clinical, credential = department("clinical"), make()
    refused: list[dict[str, Any]] = [{"name": "none"}, {"host": "evil.example"}]
    for changes in refused:
        with pytest.raises(Unavailable) as caught:
            use(clinical, **changes)
        assert caught.value.code == "credential_unavailable"
    with pytest.raises(Unavailable):
        use(department("finance"))
    credential_revoke(actor=lead, credential_id=credential.pk)
    with pytest.raises(Unavailable, match="is revoked"):
        use(clinical)
    assert not AuditEvent.objects.filter(action="credential:use").exists()


def test_a_worker_reads_and_records_use_but_changes_nothing(
    make: Make, department: Callable[[str], Department]
) -> None:
    make()
    with acting_as("worker"):
        use(department("clinical"))
    for change in (
        lambda: Credential.objects.update(hosts=["evil.example"], version=2),
        lambda: Credential.objects.all()._raw_delete("default"),
        lambda: CredentialUse.objects.all()._raw_delete("default"),
    ):
        with pytest.raises(DatabaseError), transaction.atomic(), acting_as("worker"):
            change()


def test_a_worker_records_only_uses_of_credentials_that_exist(
    make: Make, department: Callable[[str], Department]
) -> None:
    credential = make()
    for subject, slug in (("999999", "clinical"), (str(credential.pk), "finance")):
        with pytest.raises(DatabaseError), transaction.atomic(), acting_as("worker"):
            audit_record(
                actor=WORKER,
                action="credential:use",
                subject=Subject("credential", subject, "openai"),
                department=slug,
            )
