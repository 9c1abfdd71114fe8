"""Knowledge bases in the portal and the management API."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from django.utils import timezone

from governance.people.models import Department, Person
from governance.people.selectors import principal_for_person
from governance.principals import Principal
from governance.usage.models import UsageRecord
from registry.knowledge.models import DocumentVersion, KnowledgeBase
from registry.versions.models import ModelVersion
from tests.proofs import signed_in
from tests.unit.registry.knowledge_world import LEAVE, base, document
from tests.unit.registry.objects import model, version
from workers.jobs.models import Job
from workers.jobs.pausing import job_pause

pytestmark = [pytest.mark.django_db, pytest.mark.sweep]


@pytest.fixture
def lead(policy: Any, person: Callable[..., Person]) -> Person:
    return person("Lena", "lead@clinical")


@pytest.fixture
def embedding(lead: Person, department: Callable[[str], Department]) -> ModelVersion:
    return version(model(lead, department("clinical"), name="minilm", task="embeddings"), lead)


@pytest.fixture
def handbook(lead: Person, embedding: ModelVersion) -> KnowledgeBase:
    return base(acting(lead), embedding.model.department, embedding)


def acting(person: Person) -> Principal:
    return principal_for_person(person)


def browser(person: Person) -> Client:
    return signed_in(Client(raise_request_exception=False), person)


def used(made: DocumentVersion, department: str = "clinical") -> UsageRecord:
    return UsageRecord.objects.create(
        request_id=f"req_{department}", occurred_at=timezone.now(), department=department,
        key_public_id="k", deployment="writer", version_digest="", endpoint="/v1/chat/completions",
        outcome="ok", sources=[made.pk],
    )  # fmt: skip


def test_a_base_is_created_and_a_document_added_published_and_read(
    lead: Person, embedding: ModelVersion
) -> None:
    client = browser(lead)
    made = client.post(
        "/knowledge/new",
        {
            "name": "handbook",
            "title": "Employee handbook",
            "department": embedding.model.department_id,
            "embedding_version": embedding.pk,
            "chunk_characters": 400,
            "overlap_characters": 40,
        },
    )
    assert made.headers["location"] == "/knowledge/handbook"
    sent = {"file": SimpleUploadedFile("leave.txt", LEAVE), "classification": "internal"}
    added = client.post("/knowledge/handbook", sent)
    draft = DocumentVersion.objects.get()
    assert added.headers["location"] == f"/knowledge/handbook/documents/{draft.pk}"
    page = client.get(f"/knowledge/handbook/documents/{draft.pk}?start=0&end=12")
    assert '<mark id="passage">Annual leave</mark>' in " ".join(page.content.decode().split())
    client.post(f"/knowledge/handbook/documents/{draft.pk}/publish")
    draft.refresh_from_db()
    assert draft.state == "current"
    assert Job.objects.get().kind == "index"
    assert "Being built" in client.get("/knowledge/handbook").content.decode()
    job_pause(actor=acting(lead), job_id=Job.objects.get().pk)
    assert "Its job is paused" in client.get("/knowledge/handbook").content.decode()
    file = SimpleUploadedFile("leave.txt", LEAVE + b"More.")
    sent = {"file": file, "classification": "internal", "replaces": draft.pk}
    client.post("/knowledge/handbook", sent)
    assert draft.document.versions.count() == 2
    changed = draft.document.versions.latest("number")
    said = client.post(f"/knowledge/handbook/documents/{changed.pk}/publish", follow=True)
    assert "the index is built after its paused job is resumed" in said.content.decode()
    assert Job.objects.count() == 1


def test_a_document_of_markup_is_shown_and_not_run(lead: Person, handbook: KnowledgeBase) -> None:
    markup = "<img src=x onerror=alert(1)>"
    text = f"</mark></div><script>alert(2)</script>{markup}{{{{ 7|add:7 }}}}".encode()
    made = document(acting(lead), handbook, text, "page.txt", title=markup)
    client = browser(lead)
    recalled = client.post(
        f"/api/v1/documents/{made.pk}/recall", {"reason": markup}, content_type="application/json"
    )
    assert recalled.status_code == 200, recalled.content
    pages = [
        client.get(f"/knowledge/handbook{path}").content.decode()
        for path in ("", f"/documents/{made.pk}?start=0&end=20", f"/documents/{made.pk}/recall")
    ]
    for page in pages:
        assert "&lt;img src=x onerror=alert(1)&gt;" in page
        assert "<img src=x" not in page
        assert "<script>alert" not in page
    assert "{{ 7|add:7 }}" in pages[1]


def test_a_recall_names_where_the_text_stays(lead: Person, handbook: KnowledgeBase) -> None:
    made = document(acting(lead), handbook, LEAVE, "first.txt")
    copy = document(acting(lead), handbook, LEAVE, "copy.txt")
    client = browser(lead)
    page = client.get(f"/knowledge/handbook/documents/{made.pk}/recall").content.decode()
    assert f"/knowledge/handbook/documents/{copy.pk}" in page
    assert "Recall it there too" in page
    recalled = client.post(
        f"/api/v1/documents/{made.pk}/recall", {"reason": "Wrong."}, content_type="application/json"
    )
    assert recalled.json()["same_text"] == [copy.pk]
    alone = client.get(f"/knowledge/handbook/documents/{copy.pk}/recall").content.decode()
    assert "is still published elsewhere" not in alone


def test_a_file_without_text_is_refused_on_its_field(lead: Person, handbook: KnowledgeBase) -> None:
    sent = {"file": SimpleUploadedFile("empty.txt", b" "), "classification": "internal"}
    page = browser(lead).post("/knowledge/handbook", sent)
    assert page.status_code == 400
    assert "The document holds no text." in page.content.decode()


def test_the_page_of_a_document_lists_the_answers_that_used_it(
    lead: Person, handbook: KnowledgeBase
) -> None:
    made = document(acting(lead), handbook)
    used(made)
    used(made, "finance")
    client = browser(lead)
    page = client.get(f"/knowledge/handbook/documents/{made.pk}").content.decode()
    assert "req_clinical" in page
    assert "req_finance" not in page
    recall = client.get(f"/knowledge/handbook/documents/{made.pk}/recall").content.decode()
    assert "2 answers used this version." in recall
    (listed,) = client.get(f"/api/v1/documents/{made.pk}/answers").json()["results"]
    assert listed["request_id"] == "req_clinical"
    done = client.post(f"/knowledge/handbook/documents/{made.pk}/recall", {"reason": "Wrong."})
    assert done.status_code == 302
    made.refresh_from_db()
    assert made.state == "recalled"


def test_the_pages_of_another_department_do_not_exist(
    lead: Person, handbook: KnowledgeBase, person: Callable[..., Person]
) -> None:
    made = document(acting(lead), handbook)
    client = browser(person("Otto", "lead@finance"))
    assert "handbook" not in client.get("/knowledge").content.decode()
    for path in ("", f"/documents/{made.pk}", f"/documents/{made.pk}/recall"):
        assert client.get(f"/knowledge/handbook{path}").status_code == 404


def test_a_draft_of_a_shared_base_does_not_exist_for_others(
    lead: Person, handbook: KnowledgeBase, person: Callable[..., Person]
) -> None:
    made = document(acting(lead), handbook)
    draft = document(acting(lead), handbook, LEAVE + b"Secret.", "secret.txt", publish=False)
    client = browser(person("Otto", "viewer@finance"))
    handbook.departments.set(Department.objects.filter(slug="finance"))
    (listed,) = client.get("/api/v1/knowledge-bases/handbook/documents").json()["results"]
    assert listed["id"] == made.pk
    assert "secret" not in client.get("/knowledge/handbook").content.decode()
    for path in ("/api/v1", "/knowledge/handbook"):
        assert client.get(f"{path}/documents/{made.pk}").status_code == 200
        assert client.get(f"{path}/documents/{draft.pk}").status_code == 404


def test_the_pages_take_a_fixed_number_of_queries(
    lead: Person, handbook: KnowledgeBase, django_assert_max_num_queries: Any
) -> None:
    client = browser(lead)
    for number in range(3):
        document(acting(lead), handbook, LEAVE + str(number).encode(), f"leave{number}.txt")
    made = DocumentVersion.objects.first()
    assert made is not None
    for path in ("", "/handbook", f"/handbook/documents/{made.pk}"):
        client.get(f"/knowledge{path}")
        with django_assert_max_num_queries(45) as few:
            client.get(f"/knowledge{path}")
        document(acting(lead), handbook, f"{path} again".encode(), f"more{len(path)}.txt")
        with django_assert_max_num_queries(len(few)):
            client.get(f"/knowledge{path}")


def test_the_api_creates_adds_publishes_and_lists(lead: Person, embedding: ModelVersion) -> None:
    client = browser(lead)
    made = client.post(
        "/api/v1/knowledge-bases",
        {
            "name": "handbook",
            "title": "Employee handbook",
            "department": "clinical",
            "embedding_version": embedding.pk,
        },
        content_type="application/json",
    )
    assert made.status_code == 201, made.content
    assert made.json()["embedding"] == "minilm v1"
    sent = {"file": SimpleUploadedFile("leave.txt", LEAVE), "classification": "internal"}
    added = client.post("/api/v1/knowledge-bases/handbook/documents", sent)
    assert added.status_code == 201, added.content
    published = client.post(
        f"/api/v1/documents/{added.json()['id']}/publish", {}, content_type="application/json"
    )
    assert published.json()["state"] == "current"
    (listed,) = client.get("/api/v1/knowledge-bases/handbook/documents").json()["results"]
    assert (listed["title"], listed["number"]) == ("leave", 1)
