"""The tab “What changed” and the sample outputs side by side."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from assay.portal.comparison import subject_of
from governance.people.selectors import principal_for_person
from governance.usage.models import UsageRecord
from registry.datasets.models import DatasetVersion
from registry.evaluations.models import Evaluation
from registry.releases.models import Release
from registry.releases.selectors import release_get
from tests.unit.assay.portal_data import Company, evaluate, sha
from tests.unit.assay.test_portal_pages import inline_in, queries, signed_in
from workers.deployments.models import Deployment

pytestmark = [pytest.mark.django_db, pytest.mark.sweep]
# Five of them ask for the policy in force. Pinned: a rise is a decision, not an accident.
QUERIES = 13


def page(company: Company, who: str = "carla", **query: str) -> str:
    answer = signed_in(company.people[who]).get(
        f"/reviews/{company.review_open.pk}", query_params=query
    )
    assert answer.status_code == 200
    html = answer.content.decode()
    assert inline_in(html) == []
    return " ".join(html.split())


def words(html: str) -> str:
    """Return the page's text, without its tags."""
    return " ".join(re.sub(r"<[^>]*>", " ", html).split())


def test_numbers_stand_beside_the_live_ones_with_what_to_make_of_them(company: Company) -> None:
    said = words(page(company))
    assert "Against docstring-writer v1, which serves as docstring-writer now." in said
    # 9.61 ± 0.4805 after 11.2 ± 0.56: of the difference that makes ± 0.7379.
    assert "9.129 to 10.09 (bootstrap)" in said
    assert "-1.590 -2.328 to -0.852" in said
    assert "Significantly better Perplexity" in said
    # 31.2 after 28.4 with a gate at 35, which the interval does not reach.
    assert "Fail Significantly better chrF n = 48 Gate ≥ 35" in said
    assert "not significantly" not in said.lower()
    assert said.index("long, over 80 characters") < said.index("short, up to 80 characters")


def test_a_result_that_the_sample_cannot_tell_from_the_gate_says_so(company: Company) -> None:
    measured = company.second.evaluations.get()
    measured.intervals["metrics"]["perplexity"] |= {"low": 7.0, "high": 12.4}
    measured.save()
    said = words(page(company))
    assert "Pass, not significantly No significant change Perplexity" in said


def test_without_the_lives_evaluation_on_that_data_it_says_what_mends_it(company: Company) -> None:
    Evaluation.objects.filter(version=company.first).delete()
    said = words(page(company))
    assert "docstring-writer v1, which serves now, was not evaluated on docstrings-test v1." in said
    assert "Untuned base" in said
    assert "Until then it is compared with its baseline." in words(page(company, tab="evidence"))


def test_with_nothing_live_all_is_new(company: Company) -> None:
    Deployment.objects.update(state="stopped")
    said = words(page(company))
    assert "No live deployment of docstring-writer is visible to you" in said
    assert "all new" in said
    assert "Model card " not in said.split("Affected departments")[0].split("Release request")[1]


def test_data_settings_card_answers_and_files_are_shown_by_what_changed(company: Company) -> None:
    other = DatasetVersion.objects.create(
        dataset=company.train.dataset, number=2, digest=sha("train-2"), rows=3300, size_bytes=9,
        schema={"properties": {"messages": {}}}, created_by=company.enzo,
        profile={"personal": {"detector": 1, "rows": 3300, "rows_left_out": 0,
                              "columns": {"messages of the user": {"e-mail": 7}}}},
    )  # fmt: skip
    type(company.second).objects.filter(pk=company.second.pk).update(
        dataset_version=other,
        parameters={"epochs": 2, "library_torch": "2.13.0", "trainer": "workers.trainers.lora"},
    )
    type(company.first).objects.filter(pk=company.first.pk).update(parameters={"epochs": 1})
    company.waiting.risk_answers["notes"] = "Nobody reads them."
    company.waiting.save()
    html = page(company)
    said = words(html)
    assert "docstrings-train v1 docstrings-train v2" in said
    assert "e-mail in 7 rows, messages of the user" in said
    datasets = signed_in(company.enzo).get("/datasets/docstrings-train").content.decode()
    assert "Signs of personal data e-mail in 7 rows, messages of the user" in words(datasets)
    assert "not searched: the version is older than the search" in said
    assert "The artifact store does not hold the rows of one of them." in said
    assert "Epochs changed 1 2" in said
    assert "torch added – 2.13.0" in said
    assert "Notes changed The tech lead reads every suggestion that is kept. Nobody reads" in said
    assert 'id="card-docstring-writer"' in html
    assert "Old card removed" in said
    assert "adapter_model.safetensors changed" in said


def name_packages(release: Release, version: str, *, listed: bool = True) -> None:
    """Write a dossier that names one package of a task, in the database alone."""
    files = [{"path": "acme_notes/runner.py", "size": 9, "sha256": sha(version)}] if listed else []
    package = {"name": "acme-notes", "version": version, "digest": sha(version), "file_count": 900}
    named = {"digest": sha(f"code {version}"), "packages": [{**package, "files": files}]}
    release.dossier["software"]["code"] = named
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL session_replication_role = replica")
        release.save(update_fields=["dossier"])
        cursor.execute("SET LOCAL session_replication_role = DEFAULT")


def test_packages_are_called_by_their_names_with_their_files(company: Company) -> None:
    name_packages(company.live, "1.4.0")
    name_packages(company.waiting, "1.5.0")
    said = words(page(company))
    digests = [f"{version} · {sha(version)[:12]}" for version in ("1.4.0", "1.5.0")]
    assert f"acme-notes changed {' '.join(digests)}" in said
    assert "Files of the packages 1 changed against docstring-writer v1" in said
    assert "acme-notes: acme_notes/runner.py changed" in said


@pytest.mark.parametrize("live", [True, False])
def test_files_that_a_dossier_does_not_list_are_not_called_unchanged(
    company: Company, live: bool
) -> None:
    name_packages(company.live, "1.4.0")
    name_packages(company.waiting, "1.5.0", listed=False)
    if not live:
        Deployment.objects.update(state="stopped")
    said = words(page(company))
    assert "The packages have too many files to list. Changed or new: acme-notes." in said
    assert "Files of the packages" not in said


def test_whom_it_reaches_is_counted_from_the_ledger(company: Company) -> None:
    for name, age in (("clinical", 1), ("finance", 40)):
        UsageRecord.objects.create(
            request_id=f"req_{name}", occurred_at=timezone.now() - timedelta(days=age),
            department=name, key_public_id="k", deployment="docstring-writer", prompt_tokens=1000,
            version_digest=company.first.digest, endpoint="/v1/chat/completions", outcome="ok",
        )  # fmt: skip
    company.waiting.departments.add(company.departments["finance"])
    reach = words(page(company)).split("Affected departments")[1]
    assert "engineering unchanged 40 requests" in reach
    assert "clinical no 1 request 1,000" in reach
    assert "finance plus" not in reach
    assert "finance new none" in reach
    # A person who may not decide sees only their own department.
    theirs = words(page(company, "enzo")).split("Affected departments")[1]
    assert "(only usage visible to you)" in theirs
    assert "clinical" not in theirs.split("Conversation")[0]


def test_samples_stand_side_by_side_and_blind_only_by_letters(company: Company) -> None:
    for n, version in enumerate((company.first, company.second)):
        measured = version.evaluations.get()
        measured.details["samples"] = [
            {"input": f"def f{i}()", "expected": f"Return {i}.", "output": f"answer {n}-{i}"}
            for i in range(8)
        ]
        measured.save()

    def sides(who: str, **query: str) -> list[tuple[str, str]]:
        html = page(company, who, tab="evidence", **query)
        return re.findall(
            r'<div class="overline">([^<]*)</div>\s*<span class="sample-text">(answer [01]-\d)<',
            html,
        )

    named = sides("carla")
    assert named[:2] == [("v1 (live)", "answer 0-0"), ("v2", "answer 1-0")]
    blind = sides("carla", blind="1")
    assert [name for name, _ in blind] == ["A", "B"] * 8
    assert sides("carla", blind="1") == blind
    revealed = sides("carla", blind="1", reveal="1")
    assert [text for _, text in revealed] == [text for _, text in blind]
    assert {(name.split(": ")[1], text.split("-")[0]) for name, text in revealed} == {
        ("v1 (live)", "answer 0"),
        ("v2", "answer 1"),
    }
    # Drawn for each pair and each person: not all alike.
    orders = {who: tuple(text for _, text in sides(who, blind="1")) for who in ("carla", "milo")}
    assert len(set(orders.values())) == 2
    assert sides("carla", reveal="1") == named


def test_the_evidence_opens_with_its_digest(company: Company) -> None:
    measured = company.second.evaluations.get()
    html = page(company, tab="evidence")
    for digest in (measured.digest, company.second.digest, company.waiting.dossier_digest):
        assert html.count(f'data-copy="{digest}"') >= 1
    assert "All recorded measurements" in html


def test_a_comment_can_be_put_where_it_belongs(company: Company) -> None:
    measured = company.second.evaluations.get()
    company.waiting.dossier |= {
        "evaluations": [{"id": measured.pk, "metrics": {"chrf": 1}, "dataset": "held-out"}],
        "card": company.second.card,
        "identity": {"files": [{"path": "adapter_model.safetensors"}]},
        "risk": {"answers": {"notes": "x"}},
        "data": {},
        "training": {},
    }
    company.waiting.save()
    html = page(company)
    asked = set(
        re.findall(
            r'name="kind" value="(\w+)"> ?<input type="hidden" name="key" value="([^"]+)"', html
        )
    )
    assert {
        ("metric", f"{measured.pk}/chrf"),
        ("card", "limitations"),
        ("file", "adapter_model.safetensors"),
        ("answer", "notes"),
        ("dossier", "data"),
        ("dossier", "training"),
    } <= asked
    # Not where there is no such place, nor on a page that is no review's.
    assert ("card", "old-card") not in asked
    assert (
        'name="kind"'
        not in signed_in(company.enzo).get(f"/versions/{company.second.pk}").content.decode()
    )


def test_it_costs_the_same_however_much_there_is_to_compare(company: Company) -> None:
    carla = principal_for_person(company.carla)

    def cost() -> int:
        release = release_get(actor=carla, id=company.waiting.pk)
        with CaptureQueriesContext(connection) as asked:
            subject_of(carla, release)
        return len(asked)

    client, address = signed_in(company.carla), f"/reviews/{company.review_open.pk}"
    client.get(address)
    few, few_of_page = cost(), queries(client, address)
    for n in range(12):
        other = DatasetVersion.objects.create(
            dataset=company.held_out.dataset, number=2 + n, digest=sha(f"more {n}"), rows=9,
            size_bytes=9, schema={}, created_by=company.enzo,
        )  # fmt: skip
        for version in (company.first, company.second):
            evaluate(version, other, {"perplexity": 9.0, "chrf": 30.0}, company.enzo)
    company.waiting.departments.add(*company.departments.values())
    assert cost() == few == QUERIES
    assert queries(client, address) == few_of_page
