"""A void release says so, what changed, and what to do, wherever it is shown."""

from __future__ import annotations

import pytest

from governance.reviews.models import Review
from registry.releases.models import Release
from tests.unit.assay.api_support import Api, problem_of
from tests.unit.assay.portal_data import Company
from tests.unit.assay.test_portal_pages import signed_in

pytestmark = [pytest.mark.django_db, pytest.mark.sweep]
BECAUSE = "docstring-writer v2 was evaluated again since the dossier was frozen."


@pytest.fixture
def company(company: Company) -> Company:
    Release.objects.filter(pk=company.waiting.pk).update(state="voided", voided_because=BECAUSE)
    Review.objects.filter(pk=company.review_open.pk).update(state="voided")
    return company


def test_pages_of_release_and_review_say_what_changed_and_how_to_go_on(company: Company) -> None:
    for who, again in (("enzo", True), ("carla", False)):
        client = signed_in(company.people[who])
        for path in (f"/releases/{company.waiting.pk}", f"/reviews/{company.review_open.pk}"):
            page = client.get(path).content.decode()
            assert "This request is void" in page
            assert BECAUSE in page
            assert (f"/releases/{company.waiting.pk}/renewal" in page) is again, (who, path)


def test_the_api_says_what_changed_and_takes_no_decision(company: Company) -> None:
    api = Api(company.carla)
    shown = api.get(f"releases/{company.waiting.pk}").body
    assert (shown["state"], shown["voided_because"]) == ("voided", BECAUSE)
    assert shown["review"]["state"] == "voided"
    body = {"verdict": "comment", "reason": "Too late.", "digest": shown["dossier_digest"]}
    problem_of(api.post(f"releases/{company.waiting.pk}/decisions", body), 409, "wrong_state")
    listed = api.get("releases", state="voided").body["results"]
    assert [each["id"] for each in listed] == [company.waiting.pk]
    other = api.get(f"releases/{company.live.pk}").body
    assert other["voided_because"] == ""


def test_a_vote_shows_by_what_its_person_proved_who_they_are(company: Company) -> None:
    api = Api(company.carla)
    votes = api.get(f"releases/{company.waiting.pk}/decisions").body
    proved = {each["proof_method"] for each in votes if each["verdict"] != "comment"}
    assert proved == {"totp"}
    page = signed_in(company.carla).get(f"/reviews/{company.review_open.pk}").content.decode()
    assert "proved by an authenticator app" in page
