"""A task of another package, from intake to a served and metered answer, on real processes.

The package is `examples/task-plugin`, installed into a folder that only the started processes see.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from huggingface_hub import InferenceClient

from assay.local.services import MLflow
from assay_demo.client import Api, RequestRejected
from assay_demo.story.release import OVERSIGHT
from governance.audit.models import AuditEvent
from governance.keys.services import access_token_create
from governance.people.models import Person
from registry.catalog import TASKS
from tests.live.celery_worker import ENGINE_WORKER, ROOT, controller, worker
from tests.live.web_process import web
from tests.proofs import fresh_proof
from tests.unit.assay.sign_in_support import PASSWORD, with_password
from tests.waiting import PATIENCE_S, wait_until

pytestmark = [pytest.mark.live, pytest.mark.django_db(transaction=True)]

PACKAGE = ROOT / "examples" / "task-plugin"
TASK, PATH = "language-identification", "/v1/tasks/language-identification"
NAME = "interface-languages"
SENTENCES = {
    "de": "Bitte melden Sie sich an, um diese Seite zu sehen.",
    "fr": "Vous devez vous connecter pour voir cette page.",
    "tr": "Bu sayfayı görmek için lütfen oturum açın.",
}
COMPUTE = ("-I", "workers.celery_tasks.jobs", "-Q", "compute", "-P", "threads", "-c", "1")
RISKS = {
    "intended_purpose": "Route messages to people who read their language.",
    "affected_people": "Employees who read the messages.",
    "vulnerable_groups": False,
    "eu_ai_act_role": "deployer",
    "annex_iii": "none",
    "data_classification": "internal",
    "personal_data": False,
    "special_categories": False,
    "autonomy": "suggests",
    "interacts_with_people": False,
    "generates_content": False,
    "general_purpose_model": False,
}


@pytest.fixture(autouse=True)
def _client_may_connect(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let Hugging Face's client reach the local server: the workers' modules turn it offline."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which the package is installed, and nothing else. Its runner ends its process,
    or hangs, for two texts."""
    folder, package = tmp_path_factory.mktemp("site"), tmp_path_factory.mktemp("source") / "package"
    shutil.copytree(PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__", ".pytest_cache"))
    with (package / "language_identification" / "runner.py").open("a") as file:
        file.write(HOSTILE)
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"),
            *("--no-build-isolation", "--target", str(folder), str(package)),
        ],
        check=True,
    )
    return folder


HOSTILE = """

import os, time

_prepare, _run = LanguageRunner.prepare, LanguageRunner.run


def hostile_prepare(self, request_id, inputs, options):
    self.asked = inputs.input[0]
    return _prepare(self, request_id, inputs, options)


def hostile_run(self, batch):
    if self.asked == "please exit":
        os._exit(3)
    if self.asked == "please hang":
        time.sleep(600)
    return _run(self, batch)


LanguageRunner.prepare, LanguageRunner.run = hostile_prepare, hostile_run
"""


@pytest.fixture(scope="session")
def material(site: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Training rows, test rows and the initial model, made by the installed package."""
    folder = tmp_path_factory.mktemp("material")
    path = os.pathsep.join([str(ROOT), str(site)])
    subprocess.run(
        [sys.executable, "-m", "language_identification.material", str(folder)],
        check=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    return folder


@dataclass
class Company:
    """The platform's address, and each person's view of its API."""

    url: str
    apis: dict[str, Api]
    people: dict[str, Person]

    def __getitem__(self, name: str) -> Api:
        return self.apis[name]

    def done(self, job: str) -> None:
        ended = self["devi"].watch_job(job, lambda _: None, PATIENCE_S)
        assert ended["state"] == "succeeded", ended["error"]

    def browser(self, name: str) -> Browser:
        """A signed-in browser."""
        return Browser(self.url, with_password(self.people[name]))


class Browser(httpx.Client):
    """A person's browser, signed in by password, by way of a proxy that ends TLS."""

    def __init__(self, url: str, person: Person) -> None:
        # The proxy's own way to the web process is not encrypted, and cookies are for TLS alone.
        super().__init__(
            base_url=url,
            timeout=60,
            headers={"x-forwarded-proto": "https"},
            event_hooks={"request": [self._carry_cookies]},
        )
        answer = self.send_form("/sign-in", "/sign-in", email=person.email, password=PASSWORD)
        assert answer.status_code == 302, answer.text

    def _carry_cookies(self, request: httpx.Request) -> None:
        kept = (f"{cookie.name}={cookie.value}" for cookie in self.cookies.jar)
        request.headers["cookie"] = "; ".join(kept)

    def send_form(self, page: str, path: str, **fields: str) -> httpx.Response:
        """Post to `path` from a page, with the page's CSRF token."""
        found = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', self.get(page).text)
        assert found is not None
        referer = str(self.base_url).replace("http:", "https:").rstrip("/")
        headers = {"referer": f"{referer}{page}"}
        return self.post(path, data={**fields, "csrfmiddlewaretoken": found[1]}, headers=headers)


@pytest.fixture
def company(
    policy: object,
    redis: object,
    person: Callable[..., Person],
    mlflow_server: MLflow,
    site: Path,
    tmp_path: Path,
) -> Iterator[Company]:
    """Every process of the platform, each started where the package is installed."""
    people = {
        "devi": person("Devi", "developer@clinical", "lead@clinical"),
        "omar": person("Omar", "operator"),
        "carla": person("Carla", "reviewer:compliance"),
        "milo": person("Milo", "reviewer:model-risk"),
        "ada": person("Ada", "admin"),
    }
    path = os.pathsep.join([str(ROOT), str(ROOT / "platform"), str(site)])
    shared = {**mlflow_server.environment, "PYTHONPATH": path}
    with ExitStack() as processes:
        processes.enter_context(controller(tmp_path / "controller.log", **shared))
        url, _ = processes.enter_context(web(tmp_path, **shared))
        processes.enter_context(worker(tmp_path / "compute.log", *COMPUTE, **shared))
        engine = {**shared, "ASSAY_ENGINE_BATCH_TIMEOUT_S": "4"}
        processes.enter_context(worker(tmp_path / "engine.log", *ENGINE_WORKER, **engine))
        yield Company(
            url,
            {
                name: Api(url, access_token_create(person=each, name="t", proof=fresh_proof())[1])
                for name, each in people.items()
            },
            people,
        )


@pytest.mark.long  # `test_task_code.py` walks most of this way.
def test_a_task_of_another_package_goes_from_intake_to_a_metered_answer(
    company: Company, material: Path
) -> None:
    before = tree_of_assay()
    assert TASK not in TASKS, "Assay's own environment has the package."
    (declared,) = [task for task in company["devi"].get("tasks") if task["name"] == TASK]
    assert (declared["unit"], declared["endpoint"]) == ("characters", PATH)

    version = trained(company, material)
    release = approved(company, version)
    deployment = deployed(company, release)
    key = company["devi"].post(
        "keys", department="clinical", name="router", scopes=["deployment:invoke"],
        expires_in_days=1,
    )  # fmt: skip
    answers_are_right(company, key["key"])
    use_is_metered_in_characters(company, key["key"])
    playground_serves_it(company)
    a_runner_that_ends_or_hangs_is_loaded_again(company, key["key"], deployment["id"])
    pages_open(company, version["id"], release["id"], deployment["id"])
    assert tree_of_assay() == before


def trained(company: Company, material: Path) -> dict[str, Any]:
    """Take the initial model in, and train and evaluate a version of it behind two gates."""
    devi = company["devi"]
    devi.post("models", name=NAME, department="clinical", task=TASK, description="Languages.")
    intake = devi.upload(
        "intakes",
        fields={"model": NAME, "source": "language_identification.material", "license": "MIT"},
        files=[("files", file) for file in sorted((material / "initial").iterdir())],
    )
    company.done(intake["job"])
    with pytest.raises(RequestRejected, match="403"):
        devi.post(f"intakes/{intake['id']}/sign-off", accept=True, reason="Mine.")
    signed = company["omar"].post(
        f"intakes/{intake['id']}/sign-off", accept=True, reason="Its source is known."
    )
    assert signed["state"] == "trusted"
    (base,) = devi.all(f"models/{NAME}/versions")
    data = {part: dataset(devi, material, part) for part in ("train", "test")}
    with pytest.raises(RequestRejected, match=r"Line 1: label"):
        upload(devi, "languages-test", material / "broken.jsonl", '{"text": "Hello"}\n')
    for metric, threshold in (("accuracy", 0.9), ("macro_f1", 0.9)):
        devi.post(
            "gates", model=NAME, dataset="languages-test", metric=metric, comparator=">=",
            threshold=threshold,
        )  # fmt: skip
    with pytest.raises(RequestRejected, match="epochs"):
        fine_tune(devi, base, data["train"], epochs=0)
    company.done(fine_tune(devi, base, data["train"], epochs=4)["id"])
    version = max(devi.all(f"models/{NAME}/versions"), key=lambda each: each["number"])
    assert version["kind"] == "full"
    detail: dict[str, Any] = devi.get(f"versions/{version['id']}")
    assert detail["mlflow_version"]
    assert detail["parameters"]["package"] == "assay-language-identification 0.1.0"
    job = devi.post("evaluations", version=version["id"], dataset_version=data["test"]["id"])
    company.done(job["id"])
    (found,) = devi.all("evaluations", version=version["id"])
    measured = devi.get(f"evaluations/{found['id']}")
    assert measured["sample_size"] == data["test"]["rows"]
    assert measured["metrics"]["accuracy"] > 0.9 > 0.1 > measured["baseline"]["accuracy"]
    assert [gate["passed"] for gate in measured["gates"]] == [True, True]
    return detail


def dataset(devi: Api, material: Path, part: str) -> dict[str, Any]:
    name = f"languages-{part}"
    devi.post(
        "datasets", name=name, department="clinical", task=TASK, classification="public",
        license="BSD-3-Clause", description="Translations of Django's interface.",
    )  # fmt: skip
    return upload(devi, name, material / f"{part}.jsonl")


def upload(devi: Api, name: str, file: Path, content: str = "") -> dict[str, Any]:
    if content:
        file.write_text(content)
    made: dict[str, Any] = devi.upload(
        f"datasets/{name}/versions", fields={}, files=[("file", file)]
    )
    return made


def fine_tune(devi: Api, base: dict[str, Any], data: dict[str, Any], **settings: Any) -> Any:
    return devi.post(
        "fine-tunes", model=NAME, base_version=base["id"], method="full",
        dataset_version=data["id"], hyperparameters=settings,
    )  # fmt: skip


def approved(company: Company, version: dict[str, Any]) -> dict[str, Any]:
    """Submit a release and have two reviewers approve it."""
    release = company["devi"].post(
        "releases", version=version["id"], environment="production", deployment_name=NAME,
        departments=["clinical"], visibility="department", tier="minimal",
        purpose="Route messages to people who read their language.", risk_answers=RISKS,
        dossier_fields={"oversight": OVERSIGHT},
    )  # fmt: skip
    place = f"releases/{release['id']}"
    for item in release["review"]["checklist"]:
        if not item["automatic"] and item["state"] == "open":
            company["carla"].post(f"{place}/checklist/{item['code']}", note="I read the dossier.")
    for reviewer, specialty in (("carla", "compliance"), ("milo", "model-risk")):
        current = company[reviewer].get(place)
        if current["state"] != "approved":
            release = company[reviewer].post(
                f"{place}/decisions", verdict="approve", specialty=specialty,
                reason="The evidence supports the purpose.", digest=current["dossier_digest"],
            )  # fmt: skip
    assert release["state"] == "approved", release
    dossier = company["carla"].get(f"{place}/dossier")
    assert TASK in json.dumps(dossier)
    return dict(release)


def deployed(company: Company, release: dict[str, Any]) -> dict[str, Any]:
    made = company["devi"].post("deployments", release=release["id"])

    def serving() -> bool:
        return bool(company["devi"].get(f"deployments/{made['id']}")["state"] == "serving")

    wait_until(serving)
    return dict(made)


def ask(company: Company, key: str, body: Any, name: str = NAME) -> httpx.Response:
    return httpx.post(
        f"{company.url}{PATH}/{name}", headers={"authorization": f"Bearer {key}"}, json=body,
        timeout=180,
    )  # fmt: skip


def answers_are_right(company: Company, key: str) -> None:
    wait_until(lambda: ask(company, key, {"inputs": "x"}).status_code == 200)
    answer = ask(company, key, {"inputs": list(SENTENCES.values())})
    assert [ranked[0]["label"] for ranked in answer.json()] == list(SENTENCES)
    assert sum(each["score"] for each in answer.json()[0]) == pytest.approx(1)
    (single,) = ask(company, key, {"inputs": SENTENCES["de"]}).json()
    assert single[0]["label"] == "de"
    client = InferenceClient(model=f"{company.url}{PATH}/{NAME}", token=key)
    best = client.text_classification(SENTENCES["fr"], top_k=1)
    assert [each.label for each in best] == ["fr"]
    for body in ({}, {"inputs": []}, {"inputs": [3]}, {"inputs": "x", "more": 1}, [1]):
        assert ask(company, key, body).status_code == 400, body
    assert ask(company, key, {"inputs": "x"}, name="another").status_code == 404


def a_runner_that_ends_or_hangs_is_loaded_again(company: Company, key: str, pk: int) -> None:
    for text, reason in (
        ("please exit", "its exit status is 3"),
        ("please hang", "A batch took longer than 4 s."),
    ):
        assert ask(company, key, {"inputs": text}).status_code == 503
        told = []

        def failed(told: list[str] = told, reason: str = reason) -> bool:
            places = company["devi"].get(f"deployments/{pk}")["replicas"]
            told[:] = [each["message"] for each in places]
            return any(reason in each for each in told)

        wait_until(failed)
        wait_until(lambda: ask(company, key, {"inputs": SENTENCES["de"]}).status_code == 200)


def use_is_metered_in_characters(company: Company, key: str) -> None:
    text = SENTENCES["tr"]
    answer = ask(company, key, {"inputs": text})
    request_id = answer.headers["x-request-id"]
    found: list[dict[str, Any]] = []

    def recorded() -> bool:
        rows = company["devi"].all("usage", deployment=NAME)
        found[:] = [row for row in rows if row["request_id"] == request_id]
        return bool(found)

    wait_until(recorded)
    (row,) = found
    assert (row["unit"], row["units"]) == ("characters", len(text))
    company["ada"].post("quotas", deployment=NAME, kind="characters_per_minute", limit=10)
    wait_until(lambda: ask(company, key, {"inputs": text}).status_code == 429)
    company["ada"].post("quotas", deployment=NAME, kind="characters_per_minute", limit=None)
    wait_until(lambda: ask(company, key, {"inputs": text}).status_code == 200)


def playground_serves_it(company: Company) -> None:
    with closing(company.browser("devi")) as browser:
        page = browser.get("/playground")
        assert page.status_code == 200
        assert NAME in page.text
        assert PATH in page.text
        opened = browser.send_form("/playground", "/playground/token", deployment=NAME)
        assert opened.status_code == 200, opened.text
        answer = browser.post(
            f"{PATH}/{NAME}",
            json={"inputs": SENTENCES["fr"]},
            headers={"authorization": f"Bearer {opened.json()['token']}"},
        )
        assert answer.json()[0][0]["label"] == "fr"


def pages_open(company: Company, version: int, release: int, deployment: int) -> None:
    with closing(company.browser("devi")) as browser:
        for path in (
            "/models", f"/models/{NAME}", f"/versions/{version}", "/datasets",
            "/datasets/languages-test", "/jobs", f"/releases/{release}", "/deployments", "/usage",
        ):  # fmt: skip
            page = browser.get(path)
            assert page.status_code == 200, path
        assert "Language identification" in browser.get(f"/models/{NAME}").text
        example = browser.get(f"/deployments/{deployment}").text
        assert f"{company.url.replace('http:', 'https:')}{PATH}/{NAME} " in example
    assert not AuditEvent.objects.filter(outcome="error").exists()


def tree_of_assay() -> dict[str, float]:
    """Modification time of each file of Assay, outside of caches."""
    return {
        str(file): file.stat().st_mtime
        for folder in (*OWN, "examples")
        for file in (ROOT / folder).rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }


OWN = ("governance", "registry", "workers", "tasks", "platform")


def test_assay_does_not_name_the_task() -> None:
    names = re.compile(r"language[-_ ]?identification|ngram_classifier|CharacterNgram", re.I)
    files = [ROOT / "pyproject.toml"]
    for folder in OWN:
        files += [
            file
            for file in (ROOT / folder).rglob("*")
            if file.suffix in {".py", ".html", ".js", ".css", ".json", ".toml", ".txt"}
        ]
    assert len(files) > 500
    named = [str(file) for file in files if names.search(file.read_text(encoding="utf-8"))]
    assert named == []


def test_the_package_passes_its_own_tests_in_the_environment_of_assay() -> None:
    options = ("-q", "-p", "no:cacheprovider", "--rootdir", str(PACKAGE))
    environment = {name: value for name, value in os.environ.items() if name != "PYTEST_ADDOPTS"}
    ran = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", *options),
            *("-c", str(PACKAGE / "pyproject.toml"), str(PACKAGE)),
        ],
        cwd=ROOT, env={**environment, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout
