"""`assay releases evidence`: the pack downloaded, and checked there and later."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from governance.audit.checkpoint import Signer
from governance.audit.sealer import seal_once
from governance.audit.signing import audit_public_keys, audit_signer
from governance.people.models import Department, Person
from tests.unit.assay.test_cli import Run, ada, run, signed_in
from tests.unit.registry.office import Office

__all__ = ["ada", "run", "signed_in"]

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.sweep]


def test_a_pack_is_downloaded_and_checked(
    signed_in: Run,
    person: Callable[..., Person],
    department: Callable[[str], Department],
    tmp_path: Path,
) -> None:
    release = Office(person, department).submit()
    pack = tmp_path / "pack.zip"
    _, _, err = signed_in("releases", "evidence", str(release.pk), str(pack), code=4)
    assert "not sealed in the log yet" in err
    assert not pack.exists()
    seal_once()
    _, out, err = signed_in("releases", "evidence", str(release.pk), str(pack), code=0)
    assert "Separation of duties: no person decided on what they submitted or made" in out
    assert "the key that is in the evidence pack" in err

    check = ("releases", "check-evidence")
    _, _, err = signed_in(*check, str(pack), "--key", audit_public_keys(), code=0)
    assert "the key that is in" not in err
    other = Signer(audit_signer().name, bytes(range(32))).public_key
    _, out, err = signed_in(*check, str(pack), "--key", other, code=1)
    assert "no valid signature" in out
    assert "is not valid" in err
    with zipfile.ZipFile(pack, "a") as archive:
        archive.writestr("more.txt", "more")
    _, out, _ = signed_in(*check, str(pack), code=1)
    assert "more.txt is not of the pack" in out
    pack.write_bytes(b"no archive")
    _, _, err = signed_in(*check, str(pack), code=1)
    assert "cannot be read" in err
    gone = tmp_path / "nowhere" / "pack.zip"
    _, _, err = signed_in("releases", "evidence", str(release.pk), str(gone), code=1)
    assert "is not a folder" in err
