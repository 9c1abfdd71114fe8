"""The command line against a real server: what it prints, and how it fails."""

from __future__ import annotations

import json
import logging
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from assay.cli import output
from assay.cli.client import credentials_file
from assay.cli.doctor import check_disk, check_policy
from assay.cli.findings import CheckFailed
from assay.cli.main import execute
from assay.cli.optional_checks import check_second_place
from governance.audit.models import AuditCheckpoint, AuditEvent
from governance.audit.sealer import seal_once
from governance.audit.signing import audit_signer
from governance.audit.tree.tiles import CHECKPOINT
from governance.keys.models import ApiKey
from governance.keys.services import access_token_create
from governance.people.models import Department, Person
from registry.versions.models import Model
from tests.proofs import fresh_proof
from tests.unit.assay.sign_in_support import give_totp, totp_now
from tests.unit.governance.witness_server import WitnessServer
from tests.unit.policy_support import install_rules
from workers.jobs.models import Job, JobEvent

PASSWORD = "correct horse battery staple"
Run = Callable[..., tuple[int, str, str]]
# The command line, also where the tests run in the background, whose processes ignore SIGINT.
INTERRUPTIBLE = (
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    "from assay.cli.main import main; main()"
)

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.sweep]


@pytest.fixture
def ada(
    policy: object, redis: object, person: Callable[..., Person], department: Callable[..., object]
) -> Person:
    department("clinical")
    made = person("Ada", "admin")
    made.set_password(PASSWORD)
    made.save()
    return made


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Runs `assay …` in this process with an empty home; gives exit code, stdout, stderr."""
    monkeypatch.setenv("HOME", str(tmp_path))
    # Made when they were first imported, in whatever terminal that was.
    for console in (output.console, output.errors):
        monkeypatch.setattr(console, "_width", 200)
    # Handlers of this process still hold the stream of an earlier test.
    monkeypatch.setattr(logging, "raiseExceptions", False)
    for name in ("ASSAY_SERVER", "ASSAY_TOKEN"):
        monkeypatch.delenv(name, raising=False)

    def call(*arguments: str, answers: str = "", code: int | None = None) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["assay", *arguments])
        if answers:
            monkeypatch.setattr("typer._click.termui.hidden_prompt_func", lambda _: answers)
        with pytest.raises(SystemExit) as ended:
            execute()
        out, err = capsys.readouterr()
        status = int(ended.value.code or 0)
        assert code is None or status == code, (out, err)
        assert "Traceback" not in out + err
        return status, out, err

    return call


@pytest.fixture
def signed_in(ada: Person, live_server: Any, run: Run, monkeypatch: pytest.MonkeyPatch) -> Run:
    _, token = access_token_create(person=ada, name="cli", proof=fresh_proof())
    monkeypatch.setenv("ASSAY_SERVER", live_server.url)
    monkeypatch.setenv("ASSAY_TOKEN", token)
    return run


def test_login_keeps_a_token_that_only_this_user_may_read(
    ada: Person, live_server: Any, run: Run
) -> None:
    run("login", "--server", live_server.url + "/", "--email", ada.email, answers=PASSWORD, code=0)

    path = credentials_file()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    stored = json.loads(path.read_text())
    assert stored["server"] == live_server.url
    assert PASSWORD not in path.read_text()
    _, out, _ = run("whoami", code=0)
    assert "Ada" in out
    assert "admin" in out


def test_a_wrong_password_is_one_sentence(ada: Person, live_server: Any, run: Run) -> None:
    _, out, err = run(
        "login", "--server", live_server.url, "--email", ada.email, answers="wrong", code=4
    )

    assert err.startswith("Error: The e-mail address or the password is wrong.")
    assert "assay_" not in out
    assert not credentials_file().exists()


def test_a_stored_token_is_not_sent_to_another_server(
    ada: Person, live_server: Any, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("login", "--server", live_server.url, "--email", ada.email, answers=PASSWORD, code=0)
    monkeypatch.setenv("ASSAY_SERVER", "http://127.0.0.1:9")

    _, _, err = run("whoami", code=1)

    assert "The stored token is for" in err


def test_login_asks_for_the_second_factor(
    run: Run, live_server: Any, ada: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    give_totp(ada)
    monkeypatch.setattr("typer._click.termui.visible_prompt_func", lambda _: totp_now(ada))

    run("login", "--server", live_server.url, "--email", ada.email, answers=PASSWORD, code=0)

    assert "Ada" in run("whoami", code=0)[1]


def test_without_a_token_the_hint_says_login(run: Run) -> None:
    _, _, err = run("models", "list", code=1)

    assert "assay login" in err


def test_a_server_that_is_not_there_is_one_sentence(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASSAY_SERVER", "http://127.0.0.1:9")
    monkeypatch.setenv("ASSAY_TOKEN", "assay_x")

    _, _, err = run("jobs", "list", code=1)

    assert "cannot be reached" in err


def test_models_are_listed_and_text_is_never_markup(signed_in: Run, ada: Person) -> None:
    clinical = Department.objects.get(slug="clinical")
    for number in range(3):
        Model.objects.create(
            name=f"model-{number}",
            department=clinical,
            task="embeddings",
            description="[red]not red[/]",
            created_by=ada,
        )

    _, out, _ = signed_in("models", "list", "--limit", "2", code=0)
    assert (out.count("model-"), "model-2" in out) == (2, True)
    _, out, _ = signed_in("models", "show", "model-1", code=0)
    assert "[red]not red[/]" in out
    assert "No versions yet." in out
    _, _, err = signed_in("models", "show", "nothing", code=4)
    assert "does not exist, or you may not see it" in err


def test_a_finished_job_is_watched_to_its_end(signed_in: Run, ada: Person) -> None:
    job = Job.objects.create(
        kind="fine_tune",
        state="succeeded",
        department=Department.objects.get(slug="clinical"),
        title="Fine-tune sentiment",
        spec={},
        result={"version": 7},
        progress={"step": 4, "total": 4, "phase": "succeeded"},
        created_by=ada,
    )
    JobEvent.objects.create(job=job, attempt=1, message="Loading the data")
    JobEvent.objects.create(job=job, attempt=1, step=4, data={"loss": 0.25})

    _, out, err = signed_in("jobs", "watch", str(job.pk), code=0)
    assert "Loading the data" in err
    assert "succeeded, created version 7" in out

    Job.objects.update(state="failed", error="The disk is full.")
    _, out, err = signed_in("jobs", "watch", str(job.pk), code=1)
    assert "failed" in err
    assert "The disk is full." in err
    _, out, _ = signed_in("jobs", "list", "--state", "failed", code=0)
    assert "4/4" in out
    _, _, err = signed_in("jobs", "watch", str(uuid4()), code=4)
    assert "There is no job" in err


@pytest.mark.parametrize("command", [("watch",), ("logs", "--follow")], ids=["watch", "logs"])
def test_ctrl_c_ends_the_command_and_not_the_job(
    signed_in: Run, ada: Person, command: tuple[str, ...]
) -> None:
    job = Job.objects.create(
        kind="fine_tune",
        state="queued",
        department=Department.objects.get(slug="clinical"),
        title="Fine-tune sentiment",
        spec={},
        created_by=ada,
    )
    JobEvent.objects.create(job=job, attempt=1, message="Loading the data")
    verb, *options = command
    # The server's first answer takes long on a busy machine.
    signed_in("jobs", "list", code=0)
    with subprocess.Popen(
        [sys.executable, "-c", INTERRUPTIBLE, "jobs", verb, str(job.pk), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as following:
        assert following.stdout is not None
        assert following.stdout.readline() == "Loading the data\n"
        following.send_signal(signal.SIGINT)
        rest = following.stdout.read()
    assert following.returncode == 130, rest
    # An interrupt in the middle of its output may repeat a line.
    assert rest.strip().splitlines()[-1] == (
        f"Job {job.pk} goes on. `assay jobs watch {job.pk}` follows it, "
        f"`assay jobs cancel {job.pk}` cancels it."
    )
    assert "Traceback" not in rest
    job.refresh_from_db()
    assert (job.state, job.cancel_requested) == ("queued", False)


def test_a_key_is_printed_alone_on_stdout_and_revoked(signed_in: Run) -> None:
    _, out, err = signed_in(
        "keys", "create", "clinical", "batch", "--quota", "tokens_per_day=10", code=0
    )
    assert out.startswith("assay_")
    assert len(out.split()) == 1
    key = ApiKey.objects.get(name="batch")
    assert str(key.pk) in err

    signed_in("keys", "revoke", str(key.pk), code=0)
    _, out, _ = signed_in("keys", "list", code=0)
    assert "revoked" in out
    _, _, err = signed_in("keys", "revoke", str(key.pk), code=4)
    assert "revoked" in err
    _, _, err = signed_in("keys", "create", "clinical", "x", "--quota", "many", code=1)
    assert "KIND=LIMIT" in err


def test_releases_are_listed(signed_in: Run) -> None:
    _, out, _ = signed_in("releases", "list", code=0)
    assert "No matching releases" in out
    _, _, err = signed_in("releases", "show", "7", code=4)
    assert "Release 7 does not exist" in err


def test_an_export_verifies_and_one_flipped_bit_is_named(
    signed_in: Run, tmp_path: Path, settings: Any
) -> None:
    settings.AUDIT_PUBLISH_DIR = tmp_path / "published"
    seal_once()
    export = tmp_path / "export.jsonl"
    signed_in("audit", "export", str(export), code=0)
    checkpoint = tmp_path / "published" / CHECKPOINT
    beside = ["--checkpoint", str(checkpoint)] if checkpoint.exists() else []

    _, out, _ = signed_in("audit", "verify", str(export), *beside, code=0)
    assert "match the signed checkpoint" in out
    _, out, _ = signed_in("audit", "verify", code=0)
    assert "match the signed checkpoint" in out
    report = json.loads(signed_in("audit", "verify", str(export), "--json", code=0)[1])
    assert (report["ok"], report["first_bad"]) == (True, None)

    lines = export.read_text().splitlines()
    lines[2] = lines[2].replace("key:create", "kez:create").replace("policy", "polica")
    export.write_text("\n".join(lines) + "\n")
    _, out, err = signed_in("audit", "verify", str(export), "--json", code=1)
    assert "Row 1 was changed" in err
    assert (json.loads(out)["ok"], json.loads(out)["first_bad"]) == (False, 1)


def test_verifying_can_require_that_witnesses_cosigned_what_was_published(
    signed_in: Run, tmp_path: Path, settings: Any
) -> None:
    settings.AUDIT_PUBLISH_DIR = tmp_path / "published"
    export = tmp_path / "export.jsonl"
    stranger = WitnessServer("witness.example/stranger").vkey
    with WitnessServer("witness.example/one", audit_signer().public_key) as server:
        settings.AUDIT_WITNESSES = [server.setting]
        seal_once()
        signed_in("audit", "export", str(export), code=0)
        kept = ["--checkpoint", str(tmp_path / "published" / CHECKPOINT)]
        asked = ["audit", "verify", str(export), "--witness", server.vkey]

        _, out, _ = signed_in(*asked, *kept, code=0)
        assert "witness.example/one" in out
        _, _, err = signed_in(*asked, code=1)
        assert "A checkpoint needs cosignatures" in err
        _, _, err = signed_in(*asked, "--witness", stranger, *kept, code=1)
        assert "of 2 of the 2 witnesses" in err
        signed_in(*asked, "--witness", stranger, "--quorum", "1", *kept, code=0)
        _, _, err = signed_in("audit", "verify", str(export), "--witness", "nonsense", code=1)
        assert "not of the form" in err


def test_one_event_and_the_logs_growth_are_proved_kept_and_checked_offline(
    signed_in: Run, ada: Person, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seal_once()
    event, kept = AuditEvent.objects.earliest("id"), tmp_path / "kept"
    kept.write_text(AuditCheckpoint.objects.latest("id").note)
    one, growth = tmp_path / "one.json", tmp_path / "growth.json"
    access_token_create(person=ada, name="another event")
    seal_once()

    _, out, err = signed_in("audit", "proof", str(event.pk), "--out", str(one), code=0)
    assert "is in the log" in out
    assert "the key that is in the proof" in err
    _, out, _ = signed_in("audit", "proof", str(event.pk), "--json", code=0)
    assert json.loads(out) == json.loads(one.read_text())
    _, out, _ = signed_in("audit", "consistent", str(kept), "--out", str(growth), code=0)
    assert "only grew" in out

    monkeypatch.setenv("ASSAY_SERVER", "http://127.0.0.1:9")
    monkeypatch.setenv("ASSAY_AUDIT_KEY", audit_signer().public_key)
    for proof in (one, growth):
        _, out, err = signed_in("audit", "check", str(proof), "--json", code=0)
        assert json.loads(out)["ok"]
        assert err == ""
    one.write_text(one.read_text().replace("assay", "essay"))
    _, _, err = signed_in("audit", "check", str(one), code=1)
    assert "The proof is not valid." in err
    for text in ("", "[", "7", "[]", "[" * 100_000):
        one.write_text(text)
        _, _, err = signed_in("audit", "check", str(one), code=1)
        assert err.startswith("Error: ")
    _, _, err = signed_in("audit", "consistent", str(one), code=1)
    assert "is not a checkpoint" in err


def test_verify_needs_neither_server_nor_django(tmp_path: Path) -> None:
    export = tmp_path / "export.jsonl"
    export.write_text("{}\n")
    script = (
        "import sys; from assay.cli.main import app\n"
        f"try: app(['audit', 'verify', {str(export)!r}])\n"
        "except BaseException as error: print(type(error).__name__, error)\n"
        "print(sorted(m for m in ('django', 'celery', 'mlflow', 'torch') if m in sys.modules))"
    )

    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )

    assert "is not an export" in done.stdout
    assert done.stdout.rstrip().endswith("[]")


def test_doctor_says_what_is_wrong_and_what_mends_it(ada: Person, run: Run, settings: Any) -> None:
    settings.MLFLOW_TRACKING_URI = "http://127.0.0.1:9"
    settings.AUDIT_WITNESSES = ["nonsense"]

    _, out, err = run("doctor", code=1)

    lines = {line[2:].split("  ")[0].strip(): line for line in out.splitlines()}
    assert lines["PostgreSQL"].startswith("✓")
    assert lines["Redis or Valkey"].startswith("✓")
    assert lines["Migrations"].startswith("✓")
    assert lines["Policy"].startswith("✓")
    assert lines["Second place"].startswith("–")
    assert lines["Witnesses"].startswith("✗")
    assert "ASSAY_AUDIT_WITNESSES" in out
    assert lines["MLflow"].startswith("✗")
    assert "MLFLOW_TRACKING_URI" in out
    assert lines["Workers"].startswith("✗")
    assert "checks failed" in err
    assert lines["Last backup"].startswith("✗")
    assert "assay backup" in out


def test_doctor_looks_at_the_folders_that_are_mounted_into_a_read_only_one(
    tmp_path: Path, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_only = {tmp_path}
    # Root may write everywhere but on a file system that is read-only.
    monkeypatch.setattr(os, "access", lambda path, mode: path not in read_only)
    settings.DATA_DIR = tmp_path
    with pytest.raises(CheckFailed, match=f"{tmp_path} cannot be written"):
        check_disk()
    for name in ("artifacts", "work"):
        (tmp_path / name).mkdir()

    assert check_disk().endswith(f"free under {tmp_path}")

    read_only.add(tmp_path / "work")
    with pytest.raises(CheckFailed, match="work cannot be written"):
        check_disk()


def test_the_web_process_need_not_write_to_the_folder_of_checkpoints(
    db: None, tmp_path: Path, settings: Any
) -> None:
    # A file cannot be written as a folder, not even by root.
    settings.AUDIT_PUBLISH_DIR = tmp_path / "file"
    settings.AUDIT_PUBLISH_DIR.touch()
    settings.PROCESS = "controller"
    with pytest.raises(CheckFailed, match="cannot be written"):
        check_second_place()

    settings.PROCESS = "web"
    assert check_second_place() == str(settings.AUDIT_PUBLISH_DIR)


def test_doctor_names_actions_that_an_older_policy_leaves_out(policy: Any) -> None:
    rules = [
        {**rule, "actions": [each for each in rule["actions"] if not each.startswith("batch:")]}
        for rule in policy.rules
    ]
    older = [rule for rule in rules if rule["actions"]]
    install_rules(older)
    with pytest.raises(CheckFailed) as found:
        check_policy()
    assert "batch:cancel, batch:create, batch:view, so they are denied" in found.value.detail


def test_manage_passes_everything_on_to_django(run: Run) -> None:
    _, out, _ = run("manage", "migrate", "--help", code=0)

    assert "--fake-initial" in out
