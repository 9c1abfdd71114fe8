"""The screens of batches: what they show to whom, and canceling."""

from __future__ import annotations

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from governance.audit.models import AuditEvent
from registry.batches.models import Batch, BatchLine
from tests.proofs import signed_in
from tests.unit.assay.portal_data import Company
from tests.unit.assay.test_portal_pages import inline_in

pytestmark = [pytest.mark.django_db, pytest.mark.sweep]


def text(client: Client, address: str) -> str:
    response = client.get(address)
    assert response.status_code == 200, address
    return str(response.content.decode())


@pytest.mark.parametrize("who", ["ada", "asha", "enzo", "devi", "vera"])
def test_members_and_platform_roles_see_the_batches(company: Company, who: str) -> None:
    client = signed_in(Client(), company.people[who])
    listed = text(client, "/batches")
    assert "batch_aaaaaaaaaaaa" in listed
    assert "433 / 1200" in listed
    for batch in Batch.objects.all():
        for address in (f"/batches/{batch.pk}", f"/batches/{batch.pk}/progress"):
            assert inline_in(text(client, address)) == [], address


def test_a_page_states_key_cost_failures_and_errors(company: Company) -> None:
    client = signed_in(Client(), company.enzo)
    running = text(client, f"/batches/{company.batch.pk}")
    for words in (
        "editor plug-in",
        "1.2040",
        "engine_error",
        "nightly",
        "192.0.2.7",
        "Cancel batch",
    ):
        assert words in running
    failed = text(client, "/batches/batch_" + "c" * 32)
    assert "Line 7: The line is not valid JSON." in failed
    assert "Cancel batch" not in failed
    assert "batch_cccc" not in text(client, "/batches?state=completed")


def test_others_find_no_batch(company: Company) -> None:
    for person in (company.fay, company.carla):
        client = signed_in(Client(), person)
        assert "No batches" in text(client, "/batches")
        for address in (f"/batches/{company.batch.pk}", "/batches/none", "/batches/%00"):
            assert client.get(address).status_code == 404, address
        assert client.post(f"/batches/{company.batch.pk}/cancel").status_code == 404


def test_developers_cancel_a_batch_once_and_viewers_do_not(company: Company) -> None:
    address = f"/batches/{company.batch.pk}/cancel"
    viewer = signed_in(Client(), company.vera)
    assert "Cancel batch" not in text(viewer, f"/batches/{company.batch.pk}")
    assert viewer.post(address).status_code == 403
    client = signed_in(Client(), company.devi)
    assert client.post(address).status_code == 302
    assert Batch.objects.get(pk=company.batch.pk).state == "cancelling"
    assert client.post(address).status_code == 302
    assert AuditEvent.objects.filter(action="batch:cancel", outcome="allowed").count() == 1
    ended = client.post("/batches/batch_" + "b" * 32 + "/cancel")
    assert ended.status_code == 409
    assert "is completed; it cannot become canceling" in ended.content.decode()


def test_a_page_is_loaded_again_once_the_state_that_it_shows_is_over(company: Company) -> None:
    client = signed_in(Client(), company.vera)
    page = f"/batches/{company.batch.pk}"
    polled = f"{page}/progress?state=in_progress"
    assert f'hx-get="{polled}"' in text(client, page)
    assert "HX-Redirect" not in client.get(polled).headers
    Batch.objects.filter(pk=company.batch.pk).update(state="cancelling")
    assert client.get(polled).headers["HX-Redirect"] == page


def test_a_list_and_a_page_cost_as_many_queries_for_many_rows_as_for_one(company: Company) -> None:
    client = signed_in(Client(), company.enzo)
    addresses = ("/batches", f"/batches/{company.batch.pk}")

    def queries() -> list[int]:
        found = []
        for address in addresses:
            with CaptureQueriesContext(connection) as captured:
                assert client.get(address).status_code == 200
            found.append(len(captured))
        return found

    queries()
    few = queries()
    for number in range(12):
        batch = Batch.objects.get(pk=company.batch.pk)
        batch.pk = f"batch_{number:032x}"
        batch.save(force_insert=True)
        BatchLine.objects.create(
            batch=company.batch, number=number + 2, custom_id=str(number), offset=0, size=1,
            state="done", error=f"error_{number}",
        )  # fmt: skip
    assert queries() == few
    assert few[1] <= 14
