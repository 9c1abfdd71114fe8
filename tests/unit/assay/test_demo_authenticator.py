"""The story's reviewers: an authenticator app put on by way of the portal, and removed again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from assay.accounts.factors import factors_of
from assay_demo.authenticator import Authenticators, totp
from assay_demo.client import Api
from governance.keys.models import ApiKey
from governance.people.links import BOOTSTRAP, password_link_create
from governance.people.models import Person
from tests.unit.assay.sign_in_support import PASSWORD, recovery_address, with_password

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.sweep]


def test_codes_are_those_of_the_standard() -> None:
    """RFC 6238, appendix B, the last six digits."""
    secret = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"
    assert totp(secret, 59 // 30) == "287082"
    assert totp(secret, 1_111_111_109 // 30) == "081804"


def test_an_app_proves_a_token_and_is_gone_afterwards(
    live_server: Any, policy: Any, person: Callable[..., Person], tmp_path: Path
) -> None:
    carla = with_password(person("Carla", "reviewer:compliance"))
    file = tmp_path / "secrets" / "apps.json"
    api = Api.sign_in(live_server.url, carla.email, PASSWORD)

    def permit(handle: str) -> tuple[str, str]:
        return recovery_address(carla), ""

    def made() -> Authenticators:
        return Authenticators(live_server.url, file, lambda handle: (carla.email, PASSWORD), permit)

    apps = made()
    apps.prove("carla", lambda code: api.post("auth/step-up", code=code))
    key = ApiKey.objects.get()
    assert key.proof_method == "totp"
    assert factors_of(carla.pk).totp is not None
    assert file.stat().st_mode & 0o077 == 0

    # Once in a while is enough.
    apps.prove("carla", pytest.fail)
    made().remove_all()
    assert not factors_of(carla.pk).any
    assert json.loads(file.read_text()) == {}
    Api.sign_in(live_server.url, carla.email, PASSWORD)


def test_an_invitation_sets_the_password_and_the_app_of_who_decides_for_others(
    live_server: Any, policy: Any, person: Callable[..., Person], tmp_path: Path
) -> None:
    for handle, roles, has_app in (
        ("carla", ("reviewer:compliance",), True),
        ("fay", ("lead@finance",), False),
    ):
        invited = person(handle.title(), *roles)
        if has_app:
            link = recovery_address(invited, "password")
        else:
            link = password_link_create(actor=BOOTSTRAP, person_id=invited.pk)[1]
        email = invited.email
        apps = Authenticators(
            live_server.url,
            tmp_path / f"{handle}.json",
            lambda handle, email=email: (email, PASSWORD),  # type: ignore[misc]
            pytest.fail,
        )
        apps.accept(handle, link)
        assert factors_of(invited.pk).any is has_app
        Api.sign_in(live_server.url, email, PASSWORD, apps.code(handle))


def test_an_administrator_without_a_factor_gets_one_by_a_link(
    live_server: Any, policy: Any, person: Callable[..., Person], tmp_path: Path, settings: Any
) -> None:
    settings.SECOND_FACTOR_ROLES = ["admin"]
    ada = with_password(person("Ada", "admin"))
    apps = Authenticators(
        live_server.url,
        tmp_path / "apps.json",
        lambda handle: (ada.email, PASSWORD),
        lambda handle: (recovery_address(ada), ""),
    )
    apps.enroll("ada")
    assert factors_of(ada.pk).any


@pytest.mark.parametrize(("second", "period"), [(3.0, 999), (29.5, 1000)])
def test_a_code_is_valid_until_a_busy_server_verifies_it(
    second: float, period: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "apps.json"
    file.write_text(json.dumps({"carla": {"secret": "A" * 32, "used": 0}}))
    apps = Authenticators("", file, lambda handle: ("", ""), pytest.fail)
    monkeypatch.setattr("assay_demo.authenticator.time.time", lambda: 1000 * 30 + second)
    assert apps.code("carla") == totp("A" * 32, period)
