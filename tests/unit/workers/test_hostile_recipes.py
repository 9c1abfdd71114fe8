"""Recipes and scores of other packages that break in every way: each attempt ends with its reason,
for the right cause, and nothing of it is left behind."""

from __future__ import annotations

import json
import sys
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from registry import catalog
from tests.plug_ins import declared, install
from tests.unit.workers.test_run import Recorder
from workers.control.jobs import Cause, Claim
from workers.launchers.local import LocalLauncher
from workers.run.order import EvaluateWork, FineTuneWork, Order, Served
from workers.supervision import supervisor as supervision
from workers.supervision.supervisor import Supervisor

pytestmark = pytest.mark.torch

NAME = "hostile-recipe"
WORK = """
import json, os, signal, sys, threading, time
from workers.engines.runner import BatchLimits, Item, Prepared
from workers.trainers.protocol import EvaluationResult, TrainingResult


class Odd(BaseException):
    def __str__(self):
        raise Odd


def action(file):
    return json.loads(file.read_text().splitlines()[0])["text"]


def checkpoint(folder, name):
    (folder / name).mkdir(parents=True)
    (folder / name / "weights.bin").write_bytes(b"x")
    return folder / name


def bad_name(request, progress):
    progress.checkpoint(checkpoint(request.checkpoints, "epoch-1"))

def elsewhere(request, progress):
    progress.checkpoint(checkpoint(request.output, "checkpoint-1"))

def link(request, progress):
    made = checkpoint(request.output, "made")
    (request.checkpoints / "checkpoint-2").symlink_to(made)
    progress.checkpoint(request.checkpoints / "checkpoint-2")

def missing(request, progress):
    progress.checkpoint(request.checkpoints / "checkpoint-3")

def inner_link(request, progress):
    made = checkpoint(request.checkpoints, "checkpoint-4")
    (made / "more").symlink_to("/etc/passwd")
    progress.checkpoint(made)

def many(request, progress):
    for number in range(70):
        progress.checkpoint(checkpoint(request.checkpoints, f"checkpoint-{number}"))

def beside(request, progress):
    (request.checkpoints / "notes").mkdir()
    progress.checkpoint(checkpoint(request.checkpoints, "checkpoint-5"))

def type_error(request, progress):
    secret_of_the_data = "row 7"
    len(3)

def runtime(request, progress):
    raise RuntimeError("something")

def leaves(request, progress):
    sys.exit(0)

def ends(request, progress):
    os._exit(3)

def crashes(request, progress):
    os.kill(os.getpid(), signal.SIGSEGV)

def odd(request, progress):
    raise Odd

def full(request, progress):
    with open("/dev/full", "w") as file:
        file.write("x" * 100_000)

def wrapped(request, progress):
    try:
        full(request, progress)
    except OSError as error:
        raise ValueError("the file cannot be saved") from error

def torch_full(request, progress):
    raise RuntimeError("[enforce fail] . PytorchStreamWriter failed writing file data/0")

def network(request, progress):
    raise ConnectionResetError(104, "Connection reset by peer")

def memory(request, progress):
    raise MemoryError("Unable to allocate 9 TiB")

def thread(request, progress):
    threading.Thread(target=time.sleep, args=(600,)).start()

def closes(request, progress):
    os.closerange(3, 1024)

def moves(request, progress):
    os.chdir("/")
    os.environ.clear()

def forks(request, progress):
    if os.fork() == 0:
        time.sleep(600)

def prints(request, progress):
    for number in range(500):
        print("line", number, flush=True)
    raise ValueError("bad")

def prints_on(request, progress):
    while True:
        print("x" * 1000)

def nothing(request, progress):
    pass

RETURNS = {"none": None, "nan": {"loss": float("nan")}, "text": {"loss": "low"}}


def train(request, progress):
    name = action(request.train_file)
    if name in globals():
        globals()[name](request, progress)
    (request.output / "config.json").write_text("{}")
    if name == "none":
        return None
    return TrainingResult(metrics=RETURNS.get(name, {"loss": 0.5}), parameters={})


class Runner:
    limits = BatchLimits()

    def __init__(self, folder, *, architectures, device, dtype):
        pass

    def prepare(self, request_id, inputs, options):
        return Prepared([Item(text, size=len(text)) for text in inputs.input], units=1)

    def collate(self, items):
        return [item.payload for item in items]

    def run(self, batch):
        if batch[0] == "runner_exits":
            raise SystemExit(1)
        return batch

    def split(self, output, items):
        return [3] * len(items) if output[0] == "wrong_type" else output

    def cancel(self, request_id):
        pass

    def close(self):
        pass


SCORES = {
    "few": {"accuracy": 0.5},
    "not_finite": {"accuracy": 0.5, "macro_f1": float("nan")},
    "infinite": {"accuracy": float("inf"), "macro_f1": 0.5},
    "strings": {"accuracy": "0.5", "macro_f1": 0.5},
}


def score(request):
    name = request.rows[0]["text"]
    if name == "score_raises":
        raise KeyError("label")
    metrics = SCORES.get(name, {"accuracy": 0.5, "macro_f1": 0.5, "more": 1})
    return EvaluationResult(
        metrics=metrics, baseline={}, baseline_name="none", sample_size=len(request.rows)
    )
"""


@pytest.fixture(scope="module")
def launcher(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalLauncher]:
    """Starts runs in which the package is installed."""
    site = tmp_path_factory.mktemp("site")
    module = "hostile_recipe"
    files = {f"{module}/__init__.py": declared(module, NAME), f"{module}/work.py": WORK}
    install(site, "hostile-package", files, tasks={NAME: f"{module}:TASK"}, version="2.1.0")
    sys.path.insert(0, str(site))
    catalog._claims.cache_clear()
    yield LocalLauncher()
    sys.path.remove(str(site))
    catalog._claims.cache_clear()


class Inputs:
    """Files of one run, whose first row says what its code does."""

    def __init__(self, root: Path, action: str) -> None:
        self.root, self.action = root, action

    def attempt_folder(self, claim: Claim) -> Path:
        return self.root / str(claim.fence)

    def checkpoints_folder(self, claim: Claim) -> Path:
        return self.root / "checkpoints"

    def fetch(self, order: Order, inputs: Path) -> None:
        model = "version" if isinstance(order.work, EvaluateWork) else "base"
        for name in (model, "data"):
            (inputs / name).mkdir()
        row = json.dumps({"text": self.action, "label": "en"})
        (inputs / "data" / "data.jsonl").write_text(f"{row}\n{row}\n")

    def leave(self, claim: Claim) -> None:
        pass


def run(launcher: LocalLauncher, folder: Path, action: str, *, evaluate: bool = False) -> Recorder:
    """Run one attempt; return what the control plane was told."""
    served = Served(name="v1", digest="0" * 64, task=NAME)
    work = EvaluateWork(version=served) if evaluate else FineTuneWork(task=NAME, method="full")
    order = Order(
        job=uuid.uuid4(), title="Work", attempt=1, fence=1, work=work, max_output_bytes=10**9
    )
    claim = Claim(order.job, 1, 1, work.kind, "Work", "compute@a", lease_s=30.0)
    control = Recorder()
    Supervisor(control, Inputs(folder, action), launcher).run(claim, order)
    return control


# action: (whether it is tried again, the cause, part of the sentence)
ENDS: dict[str, tuple[bool, Cause, str]] = {
    "bad_name": (False, Cause.CODE, "called 'epoch-1'. Name the folder `checkpoint-`"),
    "elsewhere": (False, Cause.CODE, "into another folder. Write it into `request.checkpoints`."),
    "link": (False, Cause.CODE, "checkpoint-2, which is not a folder"),
    "missing": (False, Cause.CODE, "checkpoint-3, which is not a folder"),
    "inner_link": (False, Cause.CODE, "checkpoint-4 cannot be kept. more is a symbolic link"),
    "many": (False, Cause.CODE, "keeps 65 checkpoints; 64 are kept at most"),
    "type_error": (False, Cause.CODE, "The code of the work failed. TypeError: object of type"),
    "runtime": (True, Cause.WORK, "RuntimeError: something"),
    "leaves": (False, Cause.CODE, "The code of the work failed. SystemExit: 0"),
    "ends": (True, Cause.WORK, "The run ended with status 3"),
    "crashes": (True, Cause.WORK, "The run ended with signal 11"),
    "odd": (True, Cause.WORK, "Odd"),
    "full": (True, Cause.MACHINE, "On compute@a: The disk is full"),
    "wrapped": (True, Cause.MACHINE, "On compute@a: The disk is full"),
    "torch_full": (True, Cause.MACHINE, "On compute@a: The disk is full"),
    "network": (True, Cause.MACHINE, "On compute@a: The machine failed. ConnectionResetError"),
    "memory": (True, Cause.WORK, "The memory of the machine or device ran out"),
    "prints": (False, Cause.CODE, "ValueError: bad"),
    "prints_on": (False, Cause.LIMIT, "The run printed more than a job may"),
    "closes": (False, Cause.CODE, "Bad file descriptor"),
    "none": (False, Cause.CODE, "AttributeError"),
    "nan": (False, Cause.WORK, "returned nan as loss. The run diverged. Check the data"),
    "text": (False, Cause.CODE, "returned a str as loss. Return a float."),
}


# The others end by the same ways.
ALWAYS = {"bad_name", "type_error", "leaves", "full", "prints_on", "few", "not_finite"}


def variants(names: Iterable[str]) -> list[Any]:
    """Return the names as parameters; those that are not always run are marked as long."""
    return [pytest.param(name, marks=() if name in ALWAYS else pytest.mark.long) for name in names]


@pytest.mark.parametrize("action", variants(ENDS))
def test_a_recipe_that_fails_ends_its_attempt_with_the_reason_and_the_cause(
    launcher: LocalLauncher, tmp_path: Path, action: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervision, "MAX_LOG_BYTES", 1024**2)
    control = run(launcher, tmp_path, action)
    again, cause, sentence = ENDS[action]
    kind, told, retry = control.told[-1]
    assert (kind, retry, control.causes) == ("fail", again, [cause]), told
    assert sentence in told


def test_the_end_has_the_last_lines_and_a_traceback(
    launcher: LocalLauncher, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (printed,) = run(launcher, tmp_path / "a", "prints").printed
    assert "line 499" in printed
    assert "line 100\n" not in printed
    assert 'raise ValueError("bad")' in printed
    (printed,) = run(launcher, tmp_path / "b", "type_error").printed
    assert "in type_error" in printed
    # The log of the worker has the reason, and no line of the run.
    assert "attempt 1 failed, it is not tried again: The code of the work failed" in caplog.text
    assert "line 499" not in caplog.text


@pytest.mark.parametrize("action", ["thread", *variants(["nothing", "moves", "forks", "beside"])])
def test_a_recipe_that_changes_its_process_or_leaves_something_behind_delivers(
    launcher: LocalLauncher, tmp_path: Path, action: str
) -> None:
    control = run(launcher, tmp_path, action)
    kind, *result = control.told[-1]
    assert kind == "deliver", result
    assert result[0]["metrics"] == {"loss": 0.5}
    assert result[0]["parameters"]["package"] == "hostile-package 2.1.0"


def test_a_full_disk_is_told_where_the_run_can_write_nothing(
    launcher: LocalLauncher, tmp_path: Path
) -> None:
    class Full(Inputs):
        def fetch(self, order: Order, inputs: Path) -> None:
            super().fetch(order, inputs)
            for name in ("log.txt", "result.json.part"):
                (inputs.parent / name).symlink_to("/dev/full")

    order = Order(
        job=uuid.uuid4(), title="Work", attempt=1, fence=1, max_output_bytes=10**9,
        work=FineTuneWork(task=NAME, method="full"),
    )  # fmt: skip
    control = Recorder()
    claim = Claim(order.job, 1, 1, "fine_tune", "Work", "compute@a", lease_s=30.0)
    Supervisor(control, Full(tmp_path, "nothing"), launcher).run(claim, order)
    kind, told, retry = control.told[-1]
    assert (kind, retry, control.causes) == ("fail", True, [Cause.MACHINE])
    assert told.startswith("On compute@a: The disk is full")


SCORED: dict[str, tuple[Cause, str]] = {
    "few": (Cause.CODE, "hostile_recipe.work:score returned no macro_f1, which the task"),
    "not_finite": (Cause.CODE, "hostile_recipe.work:score returned nan as macro_f1. Correct"),
    "infinite": (Cause.CODE, "returned inf as accuracy"),
    "strings": (Cause.CODE, "returned a str as accuracy. Return a float."),
    "score_raises": (Cause.CODE, "KeyError: 'label'"),
    "wrong_type": (Cause.WORK, "is not of the type that the task declares"),
    "runner_exits": (Cause.WORK, "The model failed on row 1"),
}


@pytest.mark.parametrize("action", variants(SCORED))
def test_an_evaluation_that_measures_nothing_fails_and_names_the_code(
    launcher: LocalLauncher, tmp_path: Path, action: str
) -> None:
    control = run(launcher, tmp_path, action, evaluate=True)
    cause, sentence = SCORED[action]
    kind, told, retry = control.told[-1]
    assert (kind, retry, control.causes) == ("fail", False, [cause]), told
    assert sentence in told
    assert "learning rate" not in told
    if "Correct" in sentence:
        assert "of hostile-package 2.1.0." in told


@pytest.mark.long
def test_an_evaluation_may_return_more_than_the_declared_metrics(
    launcher: LocalLauncher, tmp_path: Path
) -> None:
    control = run(launcher, tmp_path, "fine", evaluate=True)
    kind, result = control.told[-1]
    assert kind == "deliver"
    assert result["metrics"] == {"accuracy": 0.5, "macro_f1": 0.5, "more": 1}


def test_a_machine_without_the_package_says_so_and_is_tried_elsewhere(
    launcher: LocalLauncher, tmp_path: Path
) -> None:
    order = Order(
        job=uuid.uuid4(), title="Work", attempt=1, fence=1, max_output_bytes=10**9,
        work=FineTuneWork(task="not-installed", method="full"),
    )  # fmt: skip
    control = Recorder()
    claim = Claim(order.job, 1, 1, "fine_tune", "Work", "compute@a", lease_s=30.0)
    Supervisor(control, Inputs(tmp_path, "nothing"), launcher).run(claim, order)
    kind, told, retry = control.told[-1]
    assert (kind, retry, control.causes) == ("fail", True, [Cause.MACHINE])
    assert told == (
        "On compute@a: There is no task 'not-installed': no installed package provides it."
    )
