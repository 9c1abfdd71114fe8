"""The job that indexes a knowledge base: from documents to vectors that are searched."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from django.conf import settings
from django.db import connection, transaction
from django.utils import timezone

from governance.errors import NotFound, WrongState
from registry.knowledge.documents import document_draft_delete, document_version_recall
from registry.knowledge.index_files import best_rows, read_index
from registry.knowledge.index_format import LoadedIndex
from registry.knowledge.models import KnowledgeBase, KnowledgeIndex
from registry.knowledge.selectors import index_is_stale
from registry.manifests import Manifest, ManifestMismatch, build_manifest
from registry.storage import store
from registry.versions.models import ModelVersion
from tests.stored import stored_file, version_part
from tests.unit.registry.knowledge_world import LEAVE, TRAVEL, base, document
from tests.unit.registry.test_recall_races import somebody_waits
from tests.unit.tasks.tiny_encoders import LENGTH, save_encoder
from tests.unit.workers import company
from tests.waiting import PATIENCE_S
from workers.celery_tasks.jobs import run
from workers.jobs import orders
from workers.jobs.finishing import job_finish
from workers.jobs.knowledge import document_publish_request, index_request
from workers.jobs.leases import job_claim
from workers.jobs.models import Job, JobState

pytestmark = [pytest.mark.torch, pytest.mark.django_db(transaction=True)]


@pytest.fixture
def handbook(tmp_path: Path, minilm: Path) -> KnowledgeBase:
    folder = save_encoder(minilm, "BertModel", tmp_path / "encoder")
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    embedding = company.version(company.model("tiny", "embeddings"), files=files)
    return base(
        company.person("Lena", "lead", "clinical"), company.department("clinical"), embedding
    )


@contextmanager
def version_changed(handbook: KnowledgeBase) -> Iterator[Path]:
    """Make what is written to a folder the index of the base."""
    with tempfile.TemporaryDirectory(dir=settings.DATA_DIR.parent) as scratch:
        yield Path(scratch)
        manifest = build_manifest(Path(scratch))
        store.adopt(Path(scratch), manifest)
    assert handbook.index is not None
    KnowledgeIndex.objects.filter(pk=handbook.index.pk).update(
        digest=manifest.digest, manifest=manifest.to_json()
    )


def built(handbook: KnowledgeBase) -> Job:
    """The base's newest job, run and registered."""
    job = Job.objects.filter(kind="index", state="queued").get()
    run(str(job.pk))
    job.refresh_from_db()
    assert job.state == JobState.FINISHING, job.error
    assert job_finish(job.pk) == JobState.SUCCEEDED
    handbook.refresh_from_db()
    job.refresh_from_db()
    return job


def loaded(handbook: KnowledgeBase) -> LoadedIndex:
    assert handbook.index is not None
    manifest = Manifest.from_json(handbook.index.manifest)
    return read_index(manifest)


def test_documents_are_embedded_by_the_governed_version_and_found(handbook: KnowledgeBase) -> None:
    lead = company.person("Lena", "lead", "clinical")
    leave = document(lead, handbook, publish=False)
    document_publish_request(actor=lead, version_id=leave.pk)
    assert index_is_stale(handbook)
    job = built(handbook)
    assert handbook.index is not None
    assert job.result is not None
    assert not index_is_stale(handbook)
    assert handbook.index.embedding_digest == handbook.embedding_version.digest
    assert handbook.index.versions == [leave.pk]
    index = loaded(handbook)
    assert np.linalg.norm(index.vectors, axis=1) == pytest.approx(1, abs=1e-5)
    (best, score), *_ = best_rows(index, index.vectors[0], frozenset({leave.pk}), 3)
    assert (best, score) == (0, pytest.approx(1, abs=1e-5))
    start, end = index.spans[0]
    assert LEAVE.decode()[start:end].startswith("Annual leave")
    assert best_rows(index, index.vectors[0], frozenset(), 3) == []


def test_unchanged_chunks_keep_their_vectors_and_the_same_documents_the_same_digest(
    handbook: KnowledgeBase,
) -> None:
    lead = company.person("Lena", "lead", "clinical")
    document_publish_request(actor=lead, version_id=document(lead, handbook, publish=False).pk)
    built(handbook)
    first = handbook.index
    assert first is not None
    index_request(actor=lead, base=handbook)
    assert built(handbook).result["reused"] == first.chunks  # type: ignore[index]
    assert handbook.index is not None
    assert handbook.index.digest == first.digest


def test_no_passage_is_longer_than_the_embedding_model_reads(
    handbook: KnowledgeBase, minilm: Path
) -> None:
    """The model reads 64 tokens; chunks by characters have up to 800."""
    import transformers

    lead = company.person("Lena", "lead", "clinical")
    rules = " ".join(
        f"Rule {n}: form #{n * 7919:x}/{n} is due on day {n % 28 + 1}." for n in range(90)
    )
    text = f"{rules}\n\n{'漢字仮名' * 120}\n\n{'Supercalifragilistic' * 60}"
    version = document(lead, handbook, text.encode(), "rules.txt", publish=False)
    document_publish_request(actor=lead, version_id=version.pk)
    job = built(handbook)
    index = loaded(handbook)
    assert index.window == LENGTH
    tokenizer = transformers.AutoTokenizer.from_pretrained(minilm)
    pieces = [text[start:end] for start, end in index.spans.tolist()]
    lengths = [len(ids) for ids in tokenizer(pieces, verbose=False)["input_ids"]]
    assert max(lengths) <= LENGTH < sum(lengths)
    covered = set()
    for start, end in index.spans.tolist():
        covered |= set(range(start, end))
    assert {at for at, letter in enumerate(text) if not letter.isspace()} <= covered
    assert job.events.filter(message__contains="more chunks than by characters").exists()
    assert not job.events.filter(message__contains="longer than").exists()
    # And again, from the vectors that are known.
    index_request(actor=lead, base=handbook)
    assert built(handbook).result["reused"] == len(pieces)  # type: ignore[index]
    assert loaded(handbook).digest == index.digest


def test_an_index_whose_passages_were_cut_is_not_reused(handbook: KnowledgeBase) -> None:
    """One from before windows were recorded may hold vectors of parts of its chunks."""
    from registry.knowledge.index_format import write_index

    lead = company.person("Lena", "lead", "clinical")
    version = document(lead, handbook, publish=False)
    document_publish_request(actor=lead, version_id=version.pk)
    built(handbook)
    index = loaded(handbook)
    for window, reused in ((0, 0), (LENGTH + 1, 0), (LENGTH, len(index.spans))):
        with version_changed(handbook) as folder:
            write_index(folder, index.vectors, index.documents, window)
        index_request(actor=lead, base=handbook)
        assert built(handbook).result["reused"] == reused, window  # type: ignore[index]


def test_publications_in_a_row_share_one_job_and_a_recalled_version_leaves_with_the_next(
    handbook: KnowledgeBase,
) -> None:
    lead = company.person("Lena", "lead", "clinical")
    leave = document(lead, handbook, publish=False)
    travel = document(lead, handbook, TRAVEL, "travel.txt", publish=False)
    for each in (leave, travel):
        document_publish_request(actor=lead, version_id=each.pk)
    built(handbook)
    assert handbook.index is not None
    assert handbook.index.versions == [leave.pk, travel.pk]
    document_version_recall(actor=lead, version_id=leave.pk, reason="Wrong.")
    assert index_is_stale(handbook)
    index_request(actor=lead, base=handbook)
    built(handbook)
    assert handbook.index.versions == [travel.pk]


def test_a_rebuild_does_not_need_the_texts_of_the_index_before_it(handbook: KnowledgeBase) -> None:
    lead = company.person("Lena", "lead", "clinical")
    first = document(lead, handbook, publish=False)
    document_publish_request(actor=lead, version_id=first.pk)
    built(handbook)
    second = document(lead, handbook, TRAVEL, replaces=first.pk, publish=False)
    document_publish_request(actor=lead, version_id=second.pk)
    stored_file(first.text_sha256).unlink()
    job = built(handbook)
    assert handbook.index is not None
    assert handbook.index.versions == [second.pk]
    assert job.events.filter(message__contains="is not in the store").exists()


def test_an_older_index_that_is_registered_late_replaces_no_newer_one(
    handbook: KnowledgeBase,
) -> None:
    lead = company.person("Lena", "lead", "clinical")
    jobs = []
    for content, name in ((LEAVE, "leave.txt"), (TRAVEL, "travel.txt")):
        draft = document(lead, handbook, content, name, publish=False)
        document_publish_request(actor=lead, version_id=draft.pk)
        jobs.append(Job.objects.get(kind="index", state="queued"))
        run(str(jobs[-1].pk))
    older, newer = jobs
    assert job_finish(newer.pk) == JobState.SUCCEEDED
    assert job_finish(older.pk) == JobState.FAILED
    older.refresh_from_db()
    assert older.error == "handbook has a newer index in use; this one is not used."
    handbook.refresh_from_db()
    assert handbook.index is not None
    assert handbook.index.job_id == newer.pk
    assert not index_is_stale(handbook)


def test_no_worker_takes_a_waiting_job_before_the_publication_is_committed(
    handbook: KnowledgeBase,
) -> None:
    lead = company.person("Lena", "lead", "clinical")
    job = index_request(actor=lead, base=handbook)
    draft = document(lead, handbook, publish=False)
    with transaction.atomic(), ThreadPoolExecutor(1) as another:
        document_publish_request(actor=lead, version_id=draft.pk)
        assert Job.objects.get() == job
        assert not another.submit(may_be_taken, job).result(PATIENCE_S)


def may_be_taken(job: Job) -> bool:
    """Return whether no other transaction holds the job's row."""
    try:
        with transaction.atomic():
            return Job.objects.select_for_update(skip_locked=True).filter(pk=job.pk).exists()
    finally:
        connection.close()


def test_an_index_with_other_bytes_is_refused_and_built_anew(handbook: KnowledgeBase) -> None:
    lead = company.person("Lena", "lead", "clinical")
    document_publish_request(actor=lead, version_id=document(lead, handbook, publish=False).pk)
    built(handbook)
    assert handbook.index is not None
    table = version_part(handbook.index.digest, "chunks.json")
    table.chmod(0o644)
    table.write_bytes(table.read_bytes().replace(b'"version"', b'"Version"'))
    with pytest.raises(ManifestMismatch):
        loaded(handbook)
    index_request(actor=lead, base=handbook)
    job = Job.objects.filter(kind="index", state="queued").get()
    run(str(job.pk))
    job.refresh_from_db()
    assert job.result is not None
    assert job.result["reused"] == 0


def test_a_store_that_is_away_loses_no_work(
    handbook: KnowledgeBase, tmp_path: Path, settings: Any
) -> None:
    lead = company.person("Lena", "lead", "clinical")
    document_publish_request(actor=lead, version_id=document(lead, handbook, publish=False).pk)
    url, away = settings.STORE_URL, tmp_path / "file"
    away.write_text("no folder")
    job = Job.objects.get()
    settings.STORE_URL = away.as_uri()
    run(str(job.pk))
    job.refresh_from_db()
    assert job.state == JobState.QUEUED
    assert "cannot be used" in job.error
    settings.STORE_URL = url
    Job.objects.update(dispatch_after=timezone.now())
    run(str(job.pk))
    settings.STORE_URL = away.as_uri()
    assert job_finish(job.pk) == JobState.FINISHING
    settings.STORE_URL = url
    assert job_finish(job.pk) == JobState.SUCCEEDED


def test_more_chunks_than_an_index_holds_fail_the_job_with_a_sentence(
    handbook: KnowledgeBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(orders, "MAX_CHUNKS", 0)
    lead = company.person("Lena", "lead", "clinical")
    document_publish_request(actor=lead, version_id=document(lead, handbook, publish=False).pk)
    job = Job.objects.get()
    run(str(job.pk))
    job.refresh_from_db()
    assert job.state == JobState.FAILED
    assert "more than 0 chunks" in job.error


def test_a_recalled_embedding_version_indexes_nothing(handbook: KnowledgeBase) -> None:
    ModelVersion.objects.update(state="recalled")
    lead = company.person("Lena", "lead", "clinical")
    with pytest.raises(WrongState):
        index_request(actor=lead, base=handbook)


def test_an_index_holds_documents_of_its_own_base_alone(handbook: KnowledgeBase) -> None:
    """A worker states which documents are in it; the next one is given their texts."""
    lead = company.person("Lena", "lead", "clinical")
    finance = company.person("Fred", "lead", "finance")
    other = company.version(company.model("other", "embeddings", "finance"))
    theirs = base(finance, company.department("finance"), other, name="ledger")
    secret = document(finance, theirs, b"The merger is in May.", "secret.txt")
    document_publish_request(actor=lead, version_id=document(lead, handbook, publish=False).pk)
    job = Job.objects.get(spec__base=handbook.pk)
    run(str(job.pk))
    job.refresh_from_db()
    assert job.result is not None
    job.result["versions"].append(secret.pk)
    job.save(update_fields=["result"])
    assert job_finish(job.pk) == JobState.FAILED
    job.refresh_from_db()
    assert "documents of Index handbook that handbook does not have" in job.error
    # And should one have been registered, it takes no text along.
    index_request(actor=lead, base=handbook)
    built(handbook)
    KnowledgeIndex.objects.update(versions=[secret.pk])
    index_request(actor=lead, base=handbook)
    (waiting,) = Job.objects.filter(spec__base=handbook.pk, state="queued")
    claim = job_claim(job_id=waiting.pk, worker="w1")
    assert claim is not None
    order = orders.order_make(claim)
    assert secret.text_sha256 not in order.model_dump_json()


def test_a_draft_that_is_deleted_meanwhile_is_not_published(handbook: KnowledgeBase) -> None:
    lead = company.person("Lena", "lead", "clinical")
    draft = document(lead, handbook, publish=False)

    def publish() -> str:
        try:
            document_publish_request(actor=lead, version_id=draft.pk)
        except NotFound as error:
            return error.message
        finally:
            connection.close()
        return "published"

    with ThreadPoolExecutor(1) as another:
        with transaction.atomic():
            document_draft_delete(actor=lead, version_id=draft.pk)
            said = another.submit(publish)
            while not somebody_waits():
                assert not said.done()
        assert said.result(PATIENCE_S) == "The document was deleted meanwhile."
