"""Proofs of the log, checked by independent code: the transparency log packages with
which every Go installation checks Go's own checksum database (golang.org/x/mod/sumdb, note and
tlog, BSD license). `independent_check.go` reads a proof as a stranger would."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sysconfig
from collections.abc import Callable, Iterable
from copy import deepcopy
from itertools import combinations_with_replacement
from pathlib import Path
from typing import Any

import go
import pytest
from django.db import transaction

from governance.audit.checkpoint import BadCheckpoint
from governance.audit.models import AuditCheckpoint, AuditEvent
from governance.audit.sealer import seal_once
from governance.audit.services import AuditEntry, Subject, audit_record_many
from governance.audit.signing import audit_public_keys, audit_signer
from governance.audit.tree.proof_files import BadProof, check_proof
from governance.audit.tree.proofs import consistency_proof, inclusion_proof
from governance.policy.services import policy_bootstrap
from governance.principals import ActorRole, Principal, PrincipalKind, service_principal

pytestmark = [pytest.mark.django_db, pytest.mark.sweep]
AUDITOR = Principal(
    PrincipalKind.PERSON, "1", "Asha", roles=frozenset({ActorRole("auditor")}), person_id=1
)
# Trees around the width of a tile, and what is neither a power of two nor a multiple of one.
SIZES = (1, 2, 7, 255, 256, 257, 600, 1029)
EVENTS_A_TREE = 200 // len(SIZES)
HERE = Path(__file__)
X_MOD = Path(go.__file__).parent / "src/cmd/vendor/golang.org/x/mod/sumdb"

Checker = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def checker(tmp_path_factory: pytest.TempPathFactory) -> Checker:
    """The program, built without a network; `checker("proofs", keys, input=...)` runs it."""
    folder = tmp_path_factory.mktemp("independent")
    shutil.copy(HERE.with_name("independent_check.go"), folder)
    for name in ("note", "tlog"):
        shutil.copytree(X_MOD / name, folder / "mod/sumdb" / name)
    (folder / "mod/go.mod").write_text("module golang.org/x/mod\n\ngo 1.24\n")
    (folder / "go.mod").write_text(
        "module check\n\ngo 1.24\n\nrequire golang.org/x/mod v0.0.0\n\n"
        "replace golang.org/x/mod => ./mod\n"
    )
    environment = {
        **os.environ,
        "GOCACHE": str(HERE.parents[3] / ".cache/go-build"),
        "GOPATH": str(folder / "path"),
        "GOPROXY": "off",
        "GOTOOLCHAIN": "local",
        "GOFLAGS": "-mod=mod",
        "GOWORK": "off",
        "CGO_ENABLED": "0",
    }
    program = Path(sysconfig.get_path("scripts")) / "go"
    built = subprocess.run(
        [program, "build", "-o", "check", "."],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr

    def run(*words: str, **options: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [folder / "check", *words], capture_output=True, text=True, check=False, **options
        )

    return run


@pytest.fixture(autouse=True)
def folder(settings: Any, tmp_path: Path) -> Path:
    settings.AUDIT_SIGNING_KEY = "01" * 32
    settings.AUDIT_PUBLISH_DIR = tmp_path / "published"
    return settings.AUDIT_PUBLISH_DIR


@pytest.fixture
def rules(db: None) -> None:
    """The rules of access, whose coming into force is the log's one event so far."""
    policy_bootstrap()


def grow(size: int) -> None:
    """Record and seal until the log has `size` events."""
    more = size - AuditEvent.objects.count()
    with transaction.atomic():
        audit_record_many(
            AuditEntry(service_principal("t"), "model:create", Subject("model", str(i), 'ä"\\'))
            for i in range(more)
        )
    while seal_once():
        pass
    assert AuditCheckpoint.objects.latest("tree_size").tree_size == size


def said_of(checker: Checker, documents: Iterable[dict[str, Any]]) -> list[str]:
    """Return the independent program's verdict on each: "ok", or the fault."""
    lines = "".join(json.dumps(document) + "\n" for document in documents)
    done = checker("proofs", audit_public_keys(), input=lines)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def flipped(hexadecimal: str, draw: random.Random) -> str:
    bit = draw.randrange(len(hexadecimal) * 4)
    return f"{int(hexadecimal, 16) ^ 1 << bit:0{len(hexadecimal)}x}"


def forged(document: dict[str, Any], draw: random.Random) -> list[dict[str, Any]]:
    """The document with each thing that it claims changed, one at a time."""
    changes: list[dict[str, Any]] = []
    for place, step in enumerate(document["path"]):
        changes.append({"path": [*document["path"]]})
        changes[-1]["path"][place] = flipped(step, draw)
    if document["path"]:
        changes += [{"path": document["path"][1:]}, {"path": document["path"][:-1]}]
    changes.append({"path": [*document["path"], "00" * 32]})
    if document["kind"] == "inclusion":
        changes.append({"canonical": document["canonical"].replace(":", ": ", 1)})
        if document["tree_size"] > 1:
            changes.append({"sequence": (document["sequence"] + 1) % document["tree_size"]})
        changes.append({"sequence": document["tree_size"]})
    for name in ("checkpoint", "old_checkpoint", "new_checkpoint"):
        if name in document:
            note = document[name]
            # The size that is signed, then the signature.
            changes.append({name: note.replace("\n", "\n1", 1)})
            end = note.rstrip("\n")
            changes.append({name: end[:-9] + ("A" if end[-9] != "A" else "B") + end[-8:] + "\n"})
    return [{**deepcopy(document), **change} for change in changes]


def refused_here(document: dict[str, Any]) -> bool:
    try:
        check_proof(document, public_keys=audit_public_keys())
    except (BadProof, BadCheckpoint):
        return True
    return False


@pytest.mark.usefixtures("rules")
def test_proofs_hold_for_an_independent_implementation_and_forged_ones_do_not(
    checker: Checker,
) -> None:
    draw = random.Random(6962)
    inclusions = []
    for size in SIZES:
        grow(size)
        for _ in range(EVENTS_A_TREE):
            event = AuditEvent.objects.get(sequence=draw.randrange(size))
            inclusions.append(inclusion_proof(event))
    consistencies = [
        consistency_proof(actor=AUDITOR, old_size=old, new_size=new)
        for old, new in combinations_with_replacement(SIZES, 2)
    ]
    good = inclusions + consistencies
    assert len(inclusions) == 200
    assert said_of(checker, good) == ["ok"] * len(good)

    bad = [forgery for document in good for forgery in forged(document, draw)]
    said = said_of(checker, bad)
    assert len(said) == len(bad) > 2000
    assert [bad[i] for i, words in enumerate(said) if words == "ok"] == []
    assert [document for document in bad if not refused_here(document)] == []


@pytest.mark.usefixtures("rules")
def test_a_rewritten_history_is_not_consistent_for_it_either(checker: Checker) -> None:
    grow(300)
    kept = AuditCheckpoint.objects.latest("tree_size").note
    grow(400)
    document = consistency_proof(actor=AUDITOR, old_size=300)
    assert said_of(checker, [document]) == ["ok"]
    # Somebody who has the key signs another history of as many events.
    rewritten = audit_signer().sign(300, bytes(32))
    assert rewritten != kept
    (said,) = said_of(checker, [{**document, "old_checkpoint": rewritten}])
    assert said != "ok"


def test_checkpoints_of_a_retired_key_and_of_another_log_are_told_apart(
    checker: Checker, settings: Any
) -> None:
    grow(3)
    retired = audit_signer().public_key
    settings.AUDIT_SIGNING_KEY = "02" * 32
    settings.AUDIT_RETIRED_KEYS = [retired]
    before = inclusion_proof(AuditEvent.objects.get(sequence=1))
    grow(5)
    after = inclusion_proof(AuditEvent.objects.get(sequence=1))
    assert said_of(checker, [before, after]) == ["ok", "ok"]
    settings.AUDIT_RETIRED_KEYS = []
    said = said_of(checker, [before, after])
    assert "no verifiable signatures" in said[0]
    assert said[1] == "ok"


def test_published_tiles_prove_every_leaf_to_it_and_a_changed_tile_proves_none(
    checker: Checker, folder: Path
) -> None:
    for size in (300, 513, 1029):
        grow(size)
    leaves = AuditEvent.objects.order_by("sequence").values_list("leaf_hash", flat=True)
    done = checker("tiles", audit_public_keys(), str(folder))
    assert done.stdout.splitlines() == [bytes(leaf).hex() for leaf in leaves]
    for tile in ("tile/0/001", "tile/0/004.p/5", "tile/1/000.p/4"):
        whole = (folder / tile).read_bytes()
        (folder / tile).write_bytes(bytes([whole[0] ^ 1]) + whole[1:])
        done = checker("tiles", audit_public_keys(), str(folder))
        assert (done.returncode, done.stdout) == (1, "")
        (folder / tile).write_bytes(whole)
