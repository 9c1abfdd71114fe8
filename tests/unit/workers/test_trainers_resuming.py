"""A run that stops at any step and is resumed elsewhere ends like one that did not stop."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.unit.workers.recording import Recorder, full_training
from workers.trainers.protocol import Canceled, TrainingResult

pytestmark = pytest.mark.torch
WORDS = {"good": ("good", "fine", "great", "happy"), "bad": ("bad", "poor", "awful", "sad")}
STEPS_PER_EPOCH, STEPS = 3, 6


class InStep(Recorder):
    """Asks to stop within a step: after the optimizer's part of it."""

    def __init__(self, step: int) -> None:
        super().__init__()
        self.left = step

    def after_step(self, *_: Any) -> None:
        self.left -= 1

    def should_stop(self) -> bool:
        return self.left <= 0


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.unit.workers.tiny import save_encoder

    return save_encoder(tmp_path_factory.mktemp("resuming") / "base", sum(WORDS.values(), ()))


def train(
    base: Path, folder: Path, progress: Recorder, resume_from: Path | None = None
) -> TrainingResult:
    """Train on texts of several lengths: batches are made of texts of the same one."""
    from tasks.text_classification.fine_tune import train as run

    rows = [
        {"text": " ".join([first, *(second,) * (1 + index)]), "label": label}
        for label, words in WORDS.items()
        for first in words
        for index, second in enumerate(words[:3])
    ]
    folder.mkdir(exist_ok=True)
    data = folder / "train.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    request = full_training(
        folder,
        task="text-classification",
        base=base,
        train_file=data,
        hyperparameters={"epochs": 2, "max_length": 16, "batch_size": 8},
        resume_from=resume_from,
    )
    return run(request, progress)


@pytest.fixture(scope="module")
def whole(base: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Recorder, Any]:
    folder, progress = tmp_path_factory.mktemp("whole"), Recorder()
    return folder, progress, train(base, folder, progress)


def weights(folder: Path) -> bytes:
    return (folder / "output" / "model.safetensors").read_bytes()


@pytest.mark.parametrize("step", [STEPS_PER_EPOCH, STEPS_PER_EPOCH + 1, STEPS])
def test_it_ends_in_the_same_bytes_wherever_it_stopped(
    step: int, base: Path, whole: tuple[Path, Recorder, TrainingResult], tmp_path: Path
) -> None:
    from torch.optim.optimizer import register_optimizer_step_post_hook

    folder, undisturbed, result = whole
    # The last epoch is not the best one.
    assert result.notes.startswith(f"The weights of step {STEPS_PER_EPOCH} were the best")
    assert undisturbed.points[-1][:2] == (STEPS, STEPS)
    cut, resumed = InStep(step), Recorder()
    hook = register_optimizer_step_post_hook(cut.after_step)
    with pytest.raises(Canceled):
        train(base, tmp_path / "first", cut)
    hook.remove()
    assert cut.checkpoints[-1].name == f"checkpoint-{step}"
    # As on another machine: the recorded checkpoints are all that is left.
    shutil.copytree(tmp_path / "first" / "checkpoints", tmp_path / "second" / "checkpoints")
    shutil.copytree(cut.checkpoints[-1], tmp_path / "resume" / cut.checkpoints[-1].name)
    shutil.rmtree(tmp_path / "first")
    copy = tmp_path / "resume" / cut.checkpoints[-1].name

    again = train(base, tmp_path / "second", resumed, copy)

    rest = [point for point in undisturbed.points if point[0] > step]
    assert [point for point in resumed.points if point[0] > step] == rest
    assert weights(tmp_path / "second") == weights(folder)
    assert again == result


def test_a_run_that_lost_its_best_weights_says_so_and_keeps_later_ones(
    base: Path, whole: tuple[Path, Recorder, TrainingResult], tmp_path: Path
) -> None:
    folder, _, result = whole
    last, progress = folder / "checkpoints" / f"checkpoint-{STEPS}", Recorder()
    again = train(base, tmp_path / "second", progress, last)
    lost = f"checkpoint-{STEPS_PER_EPOCH} had the best weights, but was not recorded"
    assert any(line.startswith(lost) for line in progress.warnings)
    assert again.notes == "The weights of the last step."
    assert again.metrics != result.metrics


class InPass(Recorder):
    """Asks to stop from the forward pass with this number on."""

    def __init__(self, number: float = float("inf")) -> None:
        super().__init__()
        self.number = number
        self.passes = self.trained = 0

    def forward(self, model: Any, *_: Any) -> None:
        self.passes += 1
        self.trained += model.training

    def should_stop(self) -> bool:
        return self.passes >= self.number


def fit(
    folder: Path, progress: InPass, resume_from: Path | None = None, **given: Any
) -> tuple[dict[str, float], str, bytes]:
    """Train a model of a few numbers, which draws some itself; return how it was measured and what
    was kept."""
    import torch
    import transformers

    from workers.trainers.training import MonitoredTrainer, arguments, run_trainer

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = torch.nn.Sequential(torch.nn.Dropout(0.3), torch.nn.Linear(4, 1))

        def forward(self, rows: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
            progress.forward(self)
            # A validation, too.
            found = self.inner(rows + 0.1 * torch.randn(rows.shape))
            return {"loss": (found[:, 0] - labels).square().mean()}

    class Rows(torch.utils.data.Dataset):  # type: ignore[misc]
        """Half of them are mirrored each time that they are read."""

        def __init__(self, count: int, seed: int) -> None:
            self.rows = torch.randn(count, 4, generator=torch.Generator().manual_seed(seed))

        def __len__(self) -> int:
            return len(self.rows)

        def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
            row = self.rows[index]
            return {"rows": row.flip(0) if torch.rand(()) < 0.5 else row, "labels": row[0]}

    request = full_training(
        folder, task="text-classification", base=folder, train_file=folder, resume_from=resume_from
    )
    transformers.set_seed(7)
    options = arguments(
        request,
        7,
        **{
            "learning_rate": 0.2,
            "per_device_train_batch_size": 4,
            "per_device_eval_batch_size": 4,
            "train_sampling_strategy": "random",
            "label_names": ["labels"],
            "prediction_loss_only": True,
            **given,
        },
    )
    net = Net()
    trainer = MonitoredTrainer(
        progress=progress,
        model=net,
        args=options,
        train_dataset=Rows(12, 1),
        eval_dataset=Rows(8, 2),
    )

    def save(output: Path) -> None:
        torch.save(net.state_dict(), output / "weights")

    metrics, notes = run_trainer(trainer, None, request, progress, save=save)
    timeless = {name: metrics[name] for name in metrics if name.endswith("loss")}
    return timeless, notes, (folder / "output" / "weights").read_bytes()


BEST = {"load_best_model_at_end": True, "metric_for_best_model": "loss"}
# They end within an epoch.
BY_STEPS = {"max_steps": 5, "eval_strategy": "steps", "eval_steps": 2, "save_strategy": "steps"}


@pytest.mark.parametrize(
    "given",
    [
        {"num_train_epochs": 2, "eval_strategy": "epoch", "save_strategy": "epoch", **BEST},
        {**BY_STEPS, "save_steps": 2, **BEST},
        {**BY_STEPS, "save_steps": 4},
    ],
    ids=["epochs", "steps", "steps without a checkpoint"],
)
def test_a_stop_in_any_pass_loses_no_step_and_changes_nothing(
    given: dict[str, Any], tmp_path: Path
) -> None:
    whole = InPass()
    result = fit(tmp_path / "whole", whole, **given)
    for number in range(1, whole.passes + 1):
        cut, rest, folder = InPass(number), InPass(), tmp_path / str(number)
        with pytest.raises(Canceled):
            fit(folder, cut, **given)
        newest = cut.checkpoints[-1] if cut.checkpoints else None
        assert (number, fit(folder, rest, newest, **given)) == (number, result)
        assert (number, cut.trained + rest.trained) == (number, whole.trained)
        assert (number, cut.points + rest.points) == (number, whole.points)


def test_a_process_that_shares_a_run_goes_on_in_the_order_of_its_epoch(tmp_path: Path) -> None:
    from accelerate.data_loader import prepare_data_loader, skip_first_batches
    from torch.utils.data import DataLoader
    from transformers import TrainerControl, TrainerState, TrainingArguments
    from transformers.trainer_pt_utils import LengthGroupedSampler

    from workers.trainers.training import Reporter

    args = TrainingArguments(output_dir=str(tmp_path), seed=7)

    def loader_at(epoch: float) -> Any:
        rows = list(range(64))
        sampler = LengthGroupedSampler(4, lengths=[1 + row % 5 for row in rows])
        loader: Any = prepare_data_loader(
            DataLoader(rows, batch_size=4, sampler=sampler),
            num_processes=2,
            process_index=1,
            use_seedable_sampler=True,
        )
        state = TrainerState(epoch=epoch)
        Reporter(Recorder()).on_epoch_begin(args, state, TrainerControl(), train_dataloader=loader)
        return loader

    def batches(loader: Any, epoch: int) -> list[list[int]]:
        loader.set_epoch(epoch)
        return [batch.tolist() for batch in loader]

    whole = batches(loader_at(1.0), 1)
    assert batches(skip_first_batches(loader_at(1.25), 2), 1) == whole[2:]
    assert batches(loader_at(0.0), 0) != whole
