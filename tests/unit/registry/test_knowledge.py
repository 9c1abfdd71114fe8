"""Knowledge bases: what is taken in, what is in force, who may see it, and what a recall ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from django.db import DatabaseError, transaction
from fpdf import FPDF
from hypothesis import given
from hypothesis import strategies as st

from governance.audit.models import AuditEvent
from governance.errors import (
    DomainError,
    InvalidInput,
    NotFound,
    NotPermitted,
    Unavailable,
    WrongState,
)
from governance.people.models import Department, Person
from governance.principals import Principal
from governance.rowsecurity import scope
from registry.catalog.hosted import Operation
from registry.knowledge import extraction
from registry.knowledge.chunks import chunk_spans, fitted_spans
from registry.knowledge.documents import (
    ALLOWED_TRANSITIONS,
    DOCUMENT_STATES,
    document_draft_delete,
    document_version_add,
    document_version_publish,
    document_version_recall,
)
from registry.knowledge.models import Document, DocumentState, DocumentVersion, KnowledgeBase
from registry.knowledge.selectors import (
    document_read,
    document_versions_visible_to,
    knowledge_base_get,
    knowledge_bases_visible_to,
    may_read,
    newest_versions,
    same_text,
    stored_text,
)
from registry.knowledge.services import knowledge_base_share
from registry.sandbox.places import FairPlaces
from tests.stored import stored_file
from tests.unit.registry.hosted_world import described_as, hosted_version
from tests.unit.registry.knowledge_world import LEAVE, TRAVEL, base, document
from tests.unit.registry.objects import Upload, model, version

pytestmark = pytest.mark.django_db
HTML = b"<html><title>no</title><style>p{}</style><p>Hello &amp; welcome</p><script>x()</script>"


@pytest.fixture
def lead(actor: Callable[..., Principal]) -> Principal:
    return actor("Lena", "lead@clinical")


@pytest.fixture
def handbook(lead: Principal, department: Callable[[str], Department]) -> KnowledgeBase:
    owner = department("clinical")
    person = _person(lead)
    made = model(person, owner, name="minilm", task="embeddings")
    return base(lead, owner, version(made, person))


def _person(actor: Principal) -> Any:
    from governance.people.models import Person

    return Person.objects.get(pk=actor.person_id)


def pdf(text: str) -> bytes:
    page = FPDF()
    page.add_page()
    page.set_font("Helvetica", size=12)
    page.multi_cell(0, 8, text)
    return bytes(page.output())


@pytest.mark.parametrize(
    ("name", "content", "found"),
    [
        ("leave.md", b"\xef\xbb\xbf# Leave\r\n\r\nThirty   days.", "# Leave\n\nThirty days."),
        ("page.html", HTML, "Hello & welcome"),
        ("page.pdf", pdf("Thirty days of leave."), "Thirty days of leave."),
    ],
)
def test_text_is_taken_out_of_a_document(
    lead: Principal, handbook: KnowledgeBase, name: str, content: bytes, found: str
) -> None:
    made = document(lead, handbook, content, name)
    assert stored_text(made.text_sha256) == found
    assert made.characters == len(found)
    assert stored_file(made.sha256).read_bytes() == content
    assert str(made) == f"{name.split('.')[0]} v1"


def test_a_department_does_not_hold_all_readers(
    lead: Principal, handbook: KnowledgeBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = FairPlaces(2, wait_s=0.1, refusal="Too many uploads.")
    monkeypatch.setattr(extraction, "_places", places)
    with places.place(str(handbook.department_id)), pytest.raises(Unavailable):
        document(lead, handbook)
    with places.place("another department"):
        document(lead, handbook)


def test_a_model_of_a_provider_does_not_embed_documents(
    lead: Principal, handbook: KnowledgeBase
) -> None:
    embedding = hosted_version(
        handbook.embedding_version.model,
        Person.objects.earliest("pk"),
        **described_as(Operation.EMBEDDINGS),
    )
    with pytest.raises(InvalidInput, match="is run by a provider") as refused:
        base(lead, handbook.department, embedding, name="second")
    assert "embedding_version" in refused.value.fields


FAMILY = "\U0001f468\u200d\U0001f469\u200d\U0001f467 \u2764\ufe0f\u200d\U0001f525"
PERSIAN = "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645"


@pytest.mark.parametrize(
    ("written", "read"),
    [
        # Words in characters that no screen shows, and marks that show a text in another order.
        ("a" + "".join(chr(0xE0000 + ord(each)) for each in "obey") + "b", "ab"),
        ("a" + "".join(chr(0xFE00 + number) for number in range(16)) + "b", "a\ufe00b"),
        ("\u202e\u2066Pay 03\u2069\u202c", "Pay 03"),
        ("pay\u200b\u2060\u00adment \u3164x", "payment x"),
        ("a\u200d\u200c\u200d\u200cb", "ab"),
        ("\x1b[31mred\x07\x9b", "[31mred"),
        ("one\u2028two\u2029three", "one\ntwo\n\nthree"),
        (FAMILY, FAMILY),
        (PERSIAN, PERSIAN),
    ],
)
def test_a_model_reads_what_a_publisher_sees(
    lead: Principal, handbook: KnowledgeBase, written: str, read: str
) -> None:
    made = document(lead, handbook, written.encode(), "text.txt")
    assert stored_text(made.text_sha256) == read


def test_a_title_shows_what_it_holds(lead: Principal, handbook: KnowledgeBase) -> None:
    made = document(lead, handbook, name="a\u202etxt.exe\n\x1b[2J.txt")
    assert (made.filename, made.document.title) == ("atxt.exe [2J.txt", "atxt.exe [2J")
    with pytest.raises(InvalidInput, match="title is empty"):
        document(lead, handbook, TRAVEL, title="\u200b\u2060")
    document(lead, handbook, LEAVE, title="leave")
    with pytest.raises(WrongState, match="already has a document called 'leave'"):
        document(lead, handbook, TRAVEL, title="le\u200bave")


@pytest.mark.parametrize(
    ("name", "content", "code"),
    [
        ("empty.txt", b"  \n", "empty_document"),
        ("binary.txt", b"\xff\xfe\x00\x01", "binary_document"),
        ("nul.txt", b"a\0b", "binary_document"),
        ("run.exe", b"MZ", "unsupported_document"),
        ("nothing", b"text", "unsupported_document"),
        ("broken.pdf", b"%PDF-1.7 nothing", "unreadable_pdf"),
        ("scan.pdf", pdf(" "), "empty_document"),
    ],
)
def test_what_holds_no_text_is_refused_with_the_reason(
    lead: Principal, handbook: KnowledgeBase, name: str, content: bytes, code: str
) -> None:
    with pytest.raises(InvalidInput) as refused:
        document(lead, handbook, content, name)
    assert refused.value.code == code
    assert not DocumentVersion.objects.exists()


def test_a_document_over_the_limit_is_refused(
    lead: Principal, handbook: KnowledgeBase, settings: Any
) -> None:
    settings.DOCUMENT_MAX_BYTES = 10
    with pytest.raises(DomainError) as refused:
        document(lead, handbook)
    assert refused.value.status == 413


def test_a_new_version_supersedes_the_one_in_force(
    lead: Principal, handbook: KnowledgeBase
) -> None:
    first = document(lead, handbook)
    second = document(lead, handbook, TRAVEL, replaces=first.pk, publish=False)
    assert (second.number, second.state) == (2, "draft")
    before = KnowledgeBase.objects.get().revision
    document_version_publish(actor=lead, version_id=second.pk)
    first.refresh_from_db()
    second.refresh_from_db()
    assert (first.state, second.state) == ("superseded", "current")
    assert KnowledgeBase.objects.get().revision == before + 1
    assert [each.pk for each in newest_versions(lead, handbook)] == [second.pk]
    actions = AuditEvent.objects.order_by("id").values_list("action", flat=True)
    assert list(actions)[-2:] == ["document:add", "document:publish"]


def test_a_recall_needs_a_reason_and_a_second_factor_and_is_final(
    lead: Principal, handbook: KnowledgeBase
) -> None:
    made = document(lead, handbook)
    unproven = replace(lead, proof=None)
    with pytest.raises(NotPermitted) as refused:
        document_version_recall(actor=unproven, version_id=made.pk, reason="Wrong.")
    assert refused.value.code == "step_up_required"
    with pytest.raises(InvalidInput):
        document_version_recall(actor=lead, version_id=made.pk, reason=" ")
    recalled = document_version_recall(actor=lead, version_id=made.pk, reason="Wrong.")
    assert recalled.state == "recalled"
    with pytest.raises(WrongState):
        document_version_recall(actor=lead, version_id=made.pk, reason="Again.")
    with pytest.raises(WrongState) as again:
        document(lead, handbook, LEAVE, "copy.txt")
    assert again.value.code == "recalled_document"
    with pytest.raises(DatabaseError), transaction.atomic():
        DocumentVersion.objects.update(state="current", recall_reason="")


def test_a_recalled_text_comes_back_neither_in_another_file_nor_as_a_draft(
    lead: Principal, handbook: KnowledgeBase
) -> None:
    made = document(lead, handbook)
    draft = document(lead, handbook, LEAVE, "copy.txt", publish=False)
    padded = document(lead, handbook, LEAVE + b" \n\n ", "padded.txt", publish=False)
    assert padded.text_sha256 == made.text_sha256 != padded.sha256
    document_version_recall(actor=lead, version_id=made.pk, reason="Wrong.")
    for each in (draft, padded):
        with pytest.raises(WrongState, match="leave v1, which was recalled") as refused:
            document_version_publish(actor=lead, version_id=each.pk)
        assert refused.value.code == "recalled_document"
    for content in (b"\n" + LEAVE, "\u200b".encode() + LEAVE):
        with pytest.raises(WrongState) as again:
            document(lead, handbook, content, "new.txt")
        assert again.value.code == "recalled_document"


def test_a_recall_says_where_the_text_stays_in_force(
    lead: Principal, handbook: KnowledgeBase, department: Callable[[str], Department]
) -> None:
    made, copy = document(lead, handbook), document(lead, handbook, LEAVE, "copy.txt")
    second = base(lead, department("clinical"), handbook.embedding_version, name="second")
    elsewhere = document(lead, second, LEAVE)
    document(lead, second, LEAVE, "draft.txt", publish=False)
    document(lead, second, TRAVEL, "travel.txt")
    document_version_recall(actor=lead, version_id=made.pk, reason="Wrong.")
    assert list(same_text(lead, made)) == [copy, elsewhere]
    document_version_recall(actor=lead, version_id=copy.pk, reason="Wrong.")
    assert list(same_text(lead, copy)) == [elsewhere]


def test_a_document_moves_only_as_its_table_allows() -> None:
    assert set(ALLOWED_TRANSITIONS) == set(DocumentState)
    for start in DocumentState:
        for end in DocumentState:
            row = DocumentVersion(document=Document(title="Leave"), number=1, state=start)
            if end in ALLOWED_TRANSITIONS[start]:
                DOCUMENT_STATES.set_state(row, end)
                assert row.state == end
            else:
                with pytest.raises(WrongState, match=f"Document Leave v1 is {start}; it cannot"):
                    DOCUMENT_STATES.set_state(row, end)


def test_a_published_version_keeps_its_content_and_is_not_deleted(
    lead: Principal, handbook: KnowledgeBase
) -> None:
    made = document(lead, handbook)
    with pytest.raises(WrongState):
        document_draft_delete(actor=lead, version_id=made.pk)
    with pytest.raises(DatabaseError), transaction.atomic():
        DocumentVersion.objects.update(sha256="0" * 64)
    with pytest.raises(DatabaseError), transaction.atomic():
        made.delete()


def test_a_draft_is_deleted_with_a_document_that_has_nothing_else(
    lead: Principal, handbook: KnowledgeBase
) -> None:
    made = document(lead, handbook, publish=False)
    document_draft_delete(actor=lead, version_id=made.pk)
    assert not handbook.documents.exists()


def test_another_department_finds_no_base_and_no_document(
    lead: Principal, handbook: KnowledgeBase, actor: Callable[..., Principal]
) -> None:
    document(lead, handbook)
    other = actor("Otto", "lead@finance")
    with scope(other):
        with pytest.raises(NotFound):
            knowledge_base_get(actor=other, name="handbook")
        assert not KnowledgeBase.objects.exists()
        assert not DocumentVersion.objects.exists()


def test_a_version_of_a_document_that_is_gone_or_elsewhere_is_not_added(
    lead: Principal, handbook: KnowledgeBase
) -> None:
    draft = document(lead, handbook, publish=False)

    class DeletesTheDraft(Upload):
        def chunks(self) -> Iterator[bytes]:
            document_draft_delete(actor=lead, version_id=draft.pk)
            return super().chunks()

    with pytest.raises(NotFound, match="handbook has no document version"):
        document_version_add(
            actor=lead,
            base=handbook,
            file=DeletesTheDraft("travel.txt", TRAVEL),
            classification="internal",
            replaces=draft.pk,
        )
    embedding = handbook.embedding_version
    other = base(lead, handbook.department, embedding, name="other")
    with pytest.raises(NotFound, match="handbook has no document version"):
        document(lead, handbook, TRAVEL, replaces=document(lead, other).pk)
    assert not handbook.documents.exists()


def test_a_shared_base_shows_all_but_restricted_documents(
    lead: Principal,
    handbook: KnowledgeBase,
    actor: Callable[..., Principal],
    department: Callable[[str], Department],
) -> None:
    seen = document(lead, handbook)
    hidden = document(lead, handbook, TRAVEL, "travel.txt", classification="restricted")
    finance = department("finance")
    with pytest.raises(NotPermitted):
        knowledge_base_share(actor=replace(lead, proof=None), base=handbook, departments=[finance])
    knowledge_base_share(actor=lead, base=handbook, departments=[finance])
    other = actor("Otto", "viewer@finance")
    with scope(other):
        assert knowledge_base_get(actor=other, name="handbook").embedding_name == "minilm v1"
        assert [each.pk for each in document_versions_visible_to(other)] == [seen.pk]
        read = document_read(actor=other, version=seen, start=0, end=20)
        assert read.text == LEAVE.decode()[:20]
        with pytest.raises(NotFound):
            document_read(actor=other, version=hidden, start=0, end=20)


def test_a_draft_is_only_for_those_who_may_publish_it(
    lead: Principal,
    handbook: KnowledgeBase,
    actor: Callable[..., Principal],
    department: Callable[[str], Department],
) -> None:
    first = document(lead, handbook)
    draft = document(lead, handbook, TRAVEL, replaces=first.pk, publish=False)
    knowledge_base_share(actor=lead, base=handbook, departments=[department("finance")])
    for other in (actor("Otto", "lead@finance"), actor("Vera", "viewer@clinical")):
        with scope(other):
            assert list(document_versions_visible_to(other)) == [first]
            assert list(newest_versions(other, handbook)) == [first]
            assert not may_read(other, draft)
            with pytest.raises(NotFound):
                document_read(actor=other, version=draft, start=0, end=20)
    developer = actor("Dora", "developer@clinical")
    with scope(developer):
        assert list(newest_versions(developer, handbook)) == [draft]
        assert may_read(developer, draft)
        assert document_read(actor=developer, version=draft, start=0, end=6).text == "Travel"


def test_a_recalled_text_is_read_only_by_those_who_may_recall(
    lead: Principal, handbook: KnowledgeBase, actor: Callable[..., Principal]
) -> None:
    made = document(lead, handbook)
    document_version_recall(actor=lead, version_id=made.pk, reason="Wrong.")
    made.refresh_from_db()
    assert document_read(actor=lead, version=made, start=0, end=10).text == "Annual lea"
    with pytest.raises(NotPermitted):
        document_read(actor=actor("Vera", "viewer@clinical"), version=made, start=0, end=10)


def test_the_list_of_bases_takes_three_queries(
    lead: Principal, handbook: KnowledgeBase, django_assert_num_queries: Any
) -> None:
    document(lead, handbook)
    # The policy, the bases and the departments that they are shared with.
    with django_assert_num_queries(3):
        (found,) = knowledge_bases_visible_to(lead)
        assert found.current_count == 1
        assert list(found.departments.all()) == []


@given(st.text(alphabet="ab 漢.\n", max_size=3000), st.integers(10, 400))
def test_chunks_are_split_until_each_fits_and_still_cover_every_word(text: str, most: int) -> None:
    def weight(piece: str) -> int:
        return sum(7 if letter == "漢" else 1 for letter in piece)

    spans = fitted_spans(
        text,
        chunk_spans(text, 200, 40),
        40,
        lambda pieces: [weight(each) <= most for each in pieces],
    )
    covered: set[int] = set()
    for start, end in spans:
        assert weight(text[start:end]) <= most
        covered.update(range(start, end))
    assert all(at in covered for at, each in enumerate(text) if not each.isspace())
    assert spans == sorted(spans)


def test_a_character_that_no_chunk_can_hold_is_told() -> None:
    with pytest.raises(ValueError, match="the character 'a' is longer"):
        fitted_spans("aaa", [(0, 3)], 0, lambda pieces: [False for _ in pieces])


@given(st.text(alphabet="ab .\n", max_size=3000))
def test_chunks_cover_every_word_and_keep_to_their_size(text: str) -> None:
    spans = chunk_spans(text, 200, 40)
    covered: set[int] = set()
    for start, end in spans:
        assert 0 < end - start <= 200
        assert text[start:end] == text[start:end].strip()
        covered.update(range(start, end))
    assert all(at in covered for at, each in enumerate(text) if not each.isspace())
    assert spans == sorted(set(spans))
