"""The page of a dataset: its first rows, the file format, and the way to training on it."""

from __future__ import annotations

import json
import re
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


def rows(client: Client, address: str) -> list[int]:
    """Return the numbers of the table's rows."""
    table = main(client, address).split('id="rows"')[1].split("</table>")[0]
    return [int(number) for number in re.findall(r'<tr>\s*<td class="num">([\d,]+)', table)]


@pytest.fixture
def reviews(company: Company) -> DatasetVersion:
    """Create a dataset version of fifty rows, every tenth of which is negative."""
    Dataset.objects.create(
        name="reviews", department=company.departments["engineering"],
        task="text-classification", classification="internal", license="CC0-1.0",
        created_by=company.enzo,
    )  # fmt: skip
    labeled = [
        {"text": f"Review {n}", "label": "negative" if n % 10 == 0 else "positive"}
        for n in range(1, 51)
    ]
    return add(company.enzo, "reviews", *labeled)


def test_all_rows_are_paged_searched_and_sorted(company: Company, reviews: DatasetVersion) -> None:
    client, address = signed_in(company.vera), "/datasets/reviews?version=1"
    assert rows(client, address) == list(range(1, 21))
    assert rows(client, f"{address}&row=41") == list(range(41, 51))
    assert rows(client, f"{address}&q=NEGATIVE") == [10, 20, 30, 40, 50]
    assert "5 of 50 rows match" in " ".join(main(client, f"{address}&q=negative").split())
    assert rows(client, f"{address}&sort=label&row=5")[:2] == [50, 1]
    assert rows(client, f"{address}&sort=text&order=desc")[0] == 9
    assert "No rows match" in main(client, f"{address}&q=nowhere")
    paged = main(client, f"{address}&sort=text&order=desc&row=21")
    assert "21–40 of 50" in paged
    assert 'name="row" value="41"' in paged
    assert '<option value="text" selected>' in paged
    # A person may have edited the address.
    odd_queries = ("row=0", "row=-1", "row=x", "row=99999999999", "sort=none", "order=up", "q=%00")
    for odd in (*odd_queries, f"q={'negative' * 1_000}", f"row={'1' * 5_000}"):
        assert rows(client, f"{address}&{odd}") == list(range(1, 21))
    assert signed_in(company.fay).get(f"{address}&q=negative").status_code == 404


def test_a_search_in_masked_text_needs_the_unmasked_rows(company: Company) -> None:
    said = [talk(f"write to {name}@example.org") for name in ("zoe", "ann", "mia")]
    version = add(company.enzo, "docstrings-train", *said)
    developer = signed_in(company.devi)
    masked = main(developer, "/datasets/docstrings-train?q=ann@")
    assert 'type="search" maxlength="200"' not in masked
    assert masked.count("•••@•••••••.•••") == 3
    address = f"/datasets/docstrings-train/rows/{version.number}"
    answer = developer.post(address, {"q": "ann@", "sort": "messages"})
    page = answer.content.decode()
    assert "write to ann@example.org" in page
    assert "zoe@example.org" not in page
    # The next search is sent to the same address, and is not in the URL.
    assert f'method="post" action="{address}#rows"' in page
    assert AuditEvent.objects.filter(action="dataset:unmask", outcome="allowed").count() == 1
    odd = {"q": "\x00" * 300, "order": "up", "row": "-1"}
    assert developer.post(address, odd).content.decode().count("@example.org") >= 3
    assert developer.post(f"{address}{'9' * 30}", odd).status_code == 404
    assert developer.post(address, {"sort": "none"}).status_code == 404
    Dataset.objects.filter(name="docstrings-train").update(classification="restricted")
    assert developer.post(address, {"q": "ann@"}).status_code == 403


def test_models_that_were_trained_on_the_data_are_listed(company: Company) -> None:
    page = main(signed_in(company.vera), "/datasets/docstrings-train")
    assert 'href="/models/docstring-writer"' in page.split(">Trained on this data</h2>")[1]
    assert "Trained on this data" not in main(signed_in(company.vera), "/datasets/docstrings-test")


def test_searching_and_sorting_costs_no_more_queries(
    company: Company, reviews: DatasetVersion
) -> None:
    client = signed_in(company.vera)
    client.get("/datasets/reviews")
    first = queries(client, "/datasets/reviews")
    assert queries(client, "/datasets/reviews?q=negative&sort=text&row=2") == first
    assert first - SCOPE == 11


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
