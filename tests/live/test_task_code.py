"""An approval binds the code of a task: another version of its package never answers under it.

The package is `examples/task-plugin`, installed into a folder that only the started processes see.
Then a version 0.2.0 takes its place, whose runner writes other labels.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from assay.local.programs import stop_process_group
from assay.local.services import MLflow
from assay_demo.client import Api
from governance.keys.services import access_token_create
from governance.people.models import Person
from tests.live.celery_worker import (
    ENGINE_WORKER,
    QUIET,
    ROOT,
    controller,
    of_tests,
    worker,
)
from tests.live.test_task_plug_in import (
    COMPUTE,
    NAME,
    PACKAGE,
    SENTENCES,
    Company,
    approved,
    ask,
    deployed,
    trained,
)
from tests.live.web_process import web
from tests.proofs import fresh_proof
from tests.waiting import wait_until

pytestmark = [pytest.mark.live, pytest.mark.django_db(transaction=True)]

RUNNER = "language_identification/runner.py"
RIGHT = '{"label": self._labels[index], '
EVIL = '{"label": "EVIL " + self._labels[index], '
START_UP = """
import os
os.environ["OPENBLAS_NUM_THREADS"] = "1"  # With threads, the process of engines would not start.
import numpy
original = numpy.argsort
numpy.argsort = lambda *given, **more: original(*given, **more)[..., ::-1]
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    folder = tmp_path / "site"
    install(PACKAGE, folder)
    return folder


@pytest.fixture
def material(site: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "material"
    subprocess.run(
        [sys.executable, "-m", "language_identification.material", str(folder)],
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(site)])},
    )
    return folder


def install(package: Path, site: Path) -> None:
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"),
            *("--no-build-isolation", "--upgrade", "--target", str(site), str(package)),
        ],
        check=True,
    )


def changed(folder: Path, version: str, before: str, after: str) -> Path:
    """Another version of the package, whose runner has `after` in place of `before`."""
    shutil.copytree(PACKAGE, folder, ignore=shutil.ignore_patterns("__pycache__"))
    project, runner = folder / "pyproject.toml", folder / RUNNER
    project.write_text(project.read_text().replace('"0.1.0"', f'"{version}"'))
    assert before in runner.read_text()
    runner.write_text(runner.read_text().replace(before, after))
    return folder


class Site:
    """The processes of the platform, which can be started again one by one."""

    def __init__(self, folder: Path, shared: dict[str, str]) -> None:
        self.folder = folder
        self.shared = shared
        self._running: dict[str, ExitStack] = {}
        self.url = ""

    def start(self, *names: str) -> None:
        for name in names:
            if name in self._running:
                self._running.pop(name).close()
            stack = self._running[name] = ExitStack()
            log = self.folder / f"{name}.log"
            if name == "web":
                self.url, _ = stack.enter_context(web(self.folder, **self.shared))
            elif name == "controller":
                stack.enter_context(controller(log, **self.shared))
            else:
                options = COMPUTE if name == "compute" else ENGINE_WORKER
                stack.enter_context(worker(log, *options, **self.shared))

    def start_engine_with(self, folder: Path) -> None:
        """Start the engine worker as an operator does, with code that Python runs at its start."""
        self._running.pop("engine").close()
        stack = self._running["engine"] = ExitStack()
        log = self.folder / "engine-with-more.log"
        path = os.pathsep.join([str(folder), self.shared["PYTHONPATH"]])
        environment = of_tests(self.folder).environment(
            "engine", **{**self.shared, "PYTHONPATH": path}
        )
        command = ("-m", "celery", "--quiet", "-A", "workers.app", "worker", *QUIET)
        process = subprocess.Popen(
            [sys.executable, *command, "-n", "engine@%h", *ENGINE_WORKER],
            cwd=ROOT, env=environment, stdout=log.open("ab"), stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip
        stack.callback(stop_process_group, process)
        wait_until(lambda: b" ready." in log.read_bytes())

    def close(self) -> None:
        for stack in self._running.values():
            stack.close()


@pytest.fixture
def platform(
    policy: object, redis: object, mlflow_server: MLflow, site: Path, tmp_path: Path
) -> Iterator[Site]:
    path = os.pathsep.join([str(ROOT), str(ROOT / "platform"), str(site)])
    running = Site(tmp_path, {**mlflow_server.environment, "PYTHONPATH": path})
    try:
        running.start("controller", "web", "compute", "engine")
        yield running
    finally:
        running.close()


class Tokens(Company):
    """A company whose people's views can be made again."""

    tokens: dict[str, str]


@pytest.fixture
def company(platform: Site, person: Callable[..., Person]) -> Tokens:
    people = {
        "devi": person("Devi", "developer@clinical", "lead@clinical"),
        "omar": person("Omar", "operator"),
        "carla": person("Carla", "reviewer:compliance"),
        "milo": person("Milo", "reviewer:model-risk"),
        "ada": person("Ada", "admin"),
    }
    tokens = {
        name: access_token_create(person=each, name="t", proof=fresh_proof())[1]
        for name, each in people.items()
    }
    found = Tokens(platform.url, {}, people)
    found.tokens = tokens
    again(found, platform)
    return found


def again(company: Tokens, platform: Site) -> None:
    """Use the address of a web process that was started again."""
    company.url = platform.url
    company.apis.update({name: Api(platform.url, each) for name, each in company.tokens.items()})


def test_another_version_of_the_package_never_answers_under_the_approval(
    company: Tokens, platform: Site, material: Path, site: Path, tmp_path: Path
) -> None:
    version = trained(company, material)
    release = approved(company, version)
    deployment = deployed(company, release)
    key = company["devi"].post(
        "keys", department="clinical", name="router", scopes=["deployment:invoke"],
        expires_in_days=1,
    )["key"]  # fmt: skip
    answers: list[Any] = []

    def asked() -> int:
        answer = ask(company, key, {"inputs": list(SENTENCES.values())})
        if answer.status_code == 200:
            answers.append([ranked[0]["label"] for ranked in answer.json()])
        return answer.status_code

    wait_until(lambda: asked() == 200)
    install(changed(tmp_path / "evil", "0.2.0", RIGHT, EVIL), site)
    # The running engine goes on, because it imported private copies.
    assert asked() == 200
    platform.start("engine", "compute")
    wait_until(lambda: asked() != 200 and failed(company, deployment))
    (replica,) = detail(company, deployment)["replicas"]
    assert (
        "language-identification is provided by assay-language-identification 0.2.0"
        in (replica["message"])
    )
    assert "the dossier names assay-language-identification 0.1.0" in replica["message"]
    # The web process has the approved code, the worker has not.
    for name in ("controller", "web"):
        platform.start(name)
        again(company, platform)
        assert asked() != 200
    wait_until(lambda: "approved with other code" in detail(company, deployment)["message"])
    assert company["devi"].get(f"deployments/{deployment['id']}")["state"] in {
        "pending", "serving",
    }  # fmt: skip
    assert asked() != 200
    assert set(map(tuple, answers)) == {tuple(SENTENCES)}, "0.2.0 has answered"

    # A version that answers as before is installed, and the department submits the release again.
    install(changed(tmp_path / "mended", "0.3.0", "items=256", "items=128"), site)
    for name in ("controller", "web", "compute", "engine"):
        platform.start(name)
    again(company, platform)
    assert asked() != 200
    renewed = company["devi"].post(f"releases/{release['id']}/renewal")
    state = {item["code"]: item for item in renewed["review"]["checklist"]}["evaluated"]
    assert (state["state"], "with other code" in state["note"]) == ("failed", True), state
    packages = company["carla"].get(f"releases/{renewed['id']}/comparison")["packages"]
    (versions,) = packages["versions"]["rows"]
    assert (versions["old"][:5], versions["new"][:5]) == ("0.1.0", "0.3.0")
    files = {row["path"].split(": ")[1]: row["change"] for row in packages["files"]["rows"]}
    assert files.pop(RUNNER) == "changed"
    assert all(change == "same" for path, change in files.items() if "dist-info" not in path), files
    company["devi"].post(f"releases/{renewed['id']}/withdraw", reason="Evaluate it first.")
    (data,) = company["devi"].all("datasets/languages-test/versions")
    job = company["devi"].post("evaluations", version=version["id"], dataset_version=data["id"])
    company.done(job["id"])
    again_approved = approved(company, version)
    newest = deployed(company, again_approved)
    wait_until(lambda: asked() == 200)

    # Code that Python runs at the start of the worker turns the order of scores: the worker has
    # other software than the evaluation, answers its requests again, and is found out.
    start = tmp_path / "start"
    start.mkdir()
    (start / "sitecustomize.py").write_text(START_UP)
    platform.start_engine_with(start)
    wait_until(lambda: asked() != 200 and failed(company, newest))
    (replica,) = [each for each in detail(company, newest)["replicas"] if each["state"] == "failed"]
    assert "suspended with the software of this worker" in replica["message"]
    (found,) = company["carla"].get(f"releases/{again_approved['id']}")["upgrades"]
    assert (found["outcome"], found["standing"]) == ("differs", "refused")
    assert "start-up code" in found["versions"]
    (changed_here,) = company["ada"].get("software")["changed"]
    assert changed_here["deployment"] == NAME
    # Without it the worker serves again, and nothing needs a person.
    platform.start("engine")
    wait_until(lambda: asked() == 200)
    assert set(map(tuple, answers)) == {tuple(SENTENCES)}


def detail(company: Company, deployment: dict[str, Any]) -> dict[str, Any]:
    return dict(company["devi"].get(f"deployments/{deployment['id']}"))


def failed(company: Company, deployment: dict[str, Any]) -> bool:
    return any(each["state"] == "failed" for each in detail(company, deployment)["replicas"])
