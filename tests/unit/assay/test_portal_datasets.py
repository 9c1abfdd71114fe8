"""The page of a dataset: its first rows, the file format, and the way to training on it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.test import Client

from governance.audit.models import AuditEvent
from governance.people.models import Person
from governance.people.selectors import principal_for_person
from registry.datasets.models import Dataset, DatasetVersion
from registry.datasets.services import dataset_version_add
from registry.versions.models import Model, ModelVersion
from tests.unit.assay.portal_data import Company
from tests.unit.assay.test_portal_pages import SCOPE, inline_in, queries, signed_in
from tests.unit.registry.objects import Upload, stored

pytestmark = [pytest.mark.django_db, pytest.mark.sweep]

MARKUP = "<script>alert(1)</script> & <b>bold</b>"


def add(person: Person, name: str, *rows: dict[str, Any]) -> DatasetVersion:
    """A new version of the dataset with these rows in the store."""
    lines = "".join(json.dumps(row) + "\n" for row in rows).encode()
    return dataset_version_add(
        actor=principal_for_person(person),
        dataset=Dataset.objects.get(name=name),
        file=Upload("rows.jsonl", lines),
    )


def talk(question: str, answer: str = "Fine.") -> dict[str, Any]:
    return {
        "messages": [
            {"role": "user", "content": question},
            {"role": "assistant", "content": answer},
        ]
    }


def main(client: Client, address: str) -> str:
    response = client.get(address)
    assert response.status_code == 200, address
    html = response.content.decode()
    assert inline_in(html) == []
    return html.split("<main")[1]


def test_the_first_rows_of_the_newest_version_show_and_markup_stays_text(company: Company) -> None:
    add(company.enzo, "docstrings-train", talk("the older one"))
    add(company.enzo, "docstrings-train", talk(MARKUP))
    client = signed_in(company.vera)
    page = main(client, "/datasets/docstrings-train")
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; &lt;b&gt;" in page
    assert "<script>alert" not in page
    assert "the older one" not in page
    number = DatasetVersion.objects.filter(dataset__name="docstrings-train").count() - 1
    assert "the older one" in main(client, f"/datasets/docstrings-train?version={number}")
    assert client.get("/datasets/docstrings-train?version=99").status_code == 404
    assert client.get("/datasets/docstrings-train?version=99999999999").status_code == 404


def test_a_version_whose_rows_are_gone_says_so(company: Company) -> None:
    page = main(signed_in(company.vera), "/datasets/docstrings-train")
    assert "are not in the artifact store" in page


def test_a_version_whose_rows_are_damaged_says_so(company: Company) -> None:
    (file,) = stored({"rows.jsonl": b"not JSON\n"}).files
    company.train.digest = file.sha256
    company.train.save()
    page = main(signed_in(company.vera), "/datasets/docstrings-train")
    assert f"The stored rows of {company.train} are damaged." in page


def test_masked_text_is_shown_to_a_lead_who_asks_and_the_log_knows(company: Company) -> None:
    version = add(company.enzo, "docstrings-train", talk("write to ann@example.org"))
    lead, viewer = signed_in(company.enzo), signed_in(company.vera)
    address = f"/datasets/docstrings-train/rows/{version.number}"
    for client in (lead, viewer):
        page = main(client, "/datasets/docstrings-train")
        assert "ann@example" not in page
        assert "•••@•••••••.•••" in page
        assert ("Show text" in page) == (client is lead)
    assert viewer.post(address).status_code == 403
    assert signed_in(company.fay).post(address).status_code == 404
    shown = lead.post(address)
    assert shown.headers["cache-control"] == "no-store"
    assert "write to ann@example.org" in shown.content.decode()
    assert AuditEvent.objects.filter(action="dataset:unmask", outcome="allowed").count() == 1
    # Looking again is asking again.
    assert "ann@example" not in main(lead, address)


def test_the_file_format_has_an_example_to_copy_and_to_download(company: Company) -> None:
    client = signed_in(company.enzo)
    page = main(client, "/datasets/docstrings-train")
    assert 'data-copy-from="sample"' in page
    assert "2 to 100 objects" in page
    assert "/datasets/example.jsonl?task=text-generation" in page
    sample = client.get("/datasets/example.jsonl?task=text-generation")
    assert "attachment" in sample.headers["content-disposition"]
    assert all(json.loads(line)["messages"] for line in sample.content.splitlines())
    assert client.get("/datasets/example.jsonl?task=x%00").status_code == 400
    assert "File format" not in main(signed_in(company.vera), "/datasets/docstrings-train")


def test_train_on_this_opens_the_form_with_the_data_chosen(company: Company) -> None:
    version = add(company.enzo, "docstrings-train", talk("hello"))
    client = signed_in(company.devi)
    assert "Train on this" in main(client, "/datasets/docstrings-train")
    opened = client.get(f"/datasets/docstrings-train/train/{version.number}?model=docstring-writer")
    assert opened.status_code == 302
    assert opened.url == f"/models/docstring-writer/fine-tune?dataset_version={version.pk}"
    assert f'<option value="{version.pk}" selected>' in main(client, opened.url)
    for odd in ("abc", "999999", "-1", "1'"):
        main(client, f"/models/docstring-writer/fine-tune?dataset_version={odd}")


@pytest.mark.parametrize("model", ["", "no-such-model", "%00", "a/../b", "x" * 300])
def test_train_on_this_leads_nowhere_for_a_model_that_is_not_there(
    company: Company, model: str
) -> None:
    client = signed_in(company.devi)
    assert client.get(f"/datasets/docstrings-train/train/1?model={model}").status_code == 404


def test_train_on_this_shows_only_where_it_would_work(company: Company) -> None:
    add(company.enzo, "docstrings-train", talk("hello"))
    assert "Train on this" not in main(signed_in(company.vera), "/datasets/docstrings-train")
    assert "Train on this" not in main(signed_in(company.ada), "/datasets/docstrings-train")
    ModelVersion.objects.update(state="recalled")
    assert "Train on this" not in main(signed_in(company.devi), "/datasets/docstrings-train")


def test_the_page_costs_as_many_queries_for_many_versions_and_models(company: Company) -> None:
    client = signed_in(company.devi)
    add(company.enzo, "docstrings-train", talk("hello"))
    client.get("/datasets/docstrings-train")
    few = queries(client, "/datasets/docstrings-train")
    for number in range(3):
        add(company.enzo, "docstrings-train", talk(f"hello {number}"))
        Model.objects.create(
            name=f"writer-{number}",
            department=company.departments["engineering"],
            task="text-generation",
            created_by=company.enzo,
        )
    assert queries(client, "/datasets/docstrings-train") == few
    assert few - SCOPE == 13
