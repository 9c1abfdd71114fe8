"""The example of `docs/how-to/use-the-command-line.md`, run as it stands, on real processes."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from governance.keys.services import access_token_create
from registry.evaluations.models import Evaluation
from registry.releases.models import Release
from tests.live.celery_worker import ROOT
from tests.live.test_task_plug_in import TASK, Company, ask, company, material, site
from tests.proofs import fresh_proof
from workers.deployments.models import Deployment

__all__ = ["company", "material", "site"]

pytestmark = [
    pytest.mark.live,
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(shutil.which("jq") is None, reason="no jq on this machine"),
]
PAGE = ROOT / "docs" / "how-to" / "use-the-command-line.md"
NAMES = {"developer": "devi", "operator": "omar", "compliance": "carla", "model-risk": "milo"}


@pytest.mark.long
def test_a_model_from_outside_is_deployed_by_commands_alone(
    company: Company, material: Path, tmp_path: Path
) -> None:
    shutil.copytree(material / "initial", tmp_path / "encoder")
    for part in ("train", "test"):
        shutil.copy(material / f"{part}.jsonl", tmp_path)
    heading = "\n## Deploy a model from outside\n"
    example = PAGE.read_text().partition(heading)[2].partition("\n## ")[0]
    blocks = re.findall(r"```bash\n(.+?)```", example, re.DOTALL)
    # The task of the example package needs neither torch nor a downloaded model.
    script = "".join(blocks).replace("DEPARTMENT=engineering", "DEPARTMENT=clinical")
    script = script.replace("TASK=text-classification", f"TASK={TASK}")
    script = re.sub(
        r"^# ([a-z-]+)$",
        lambda line: f"export ASSAY_TOKEN={token(company, line[1])}",
        script,
        flags=re.MULTILINE,
    )
    process = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", f"{script}\necho key=$KEY"],
        cwd=tmp_path, capture_output=True, text=True, timeout=900, check=False,
        env={
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "platform")]),
            "HOME": str(tmp_path), "ASSAY_SERVER": company.url,
        },
    )  # fmt: skip
    assert process.returncode == 0, process.stdout + process.stderr

    (evaluation,) = Evaluation.objects.all()
    assert [result.passed for result in evaluation.gate_results.all()] == [True]
    release = Release.objects.get()
    assert (release.state, release.version) == ("approved", evaluation.version)
    deployment = Deployment.objects.get()
    assert (deployment.state, deployment.release) == ("serving", release)
    for text in ("approvals missing: 1 × model-risk", "desk-sorter serves"):
        assert text in process.stdout, process.stdout
    key = process.stdout.rpartition("key=")[2].strip()
    assert ask(company, key, {"inputs": "Bitte melden Sie sich an."}, "desk-sorter").is_success


def token(company: Company, role: str) -> str:
    person = company.people[NAMES[role]]
    return access_token_create(person=person, name=role, proof=fresh_proof())[1]
