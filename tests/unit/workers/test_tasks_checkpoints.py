"""A run goes on from a checkpoint only when its bytes are those that were recorded."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from registry.manifests import build_manifest
from tests.unit.workers.test_tasks_progress import claim as claim
from tests.unit.workers.test_tasks_progress import job_of, take_over
from workers.control.direct_jobs import DirectJobs
from workers.control.jobs import Claim, LeaseLost
from workers.jobs import workspace
from workers.jobs.leases import job_checkpoint
from workers.jobs.orders import order_make
from workers.supervision.checkpoints import checkpoint_copy
from workers.supervision.lease import LeaseKeeper

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def progress(claim: Claim) -> Iterator[LeaseKeeper]:
    with LeaseKeeper(claim, DirectJobs()) as progress:
        yield progress


def write(claim: Claim, progress: LeaseKeeper, step: int, *, recorded: bool = True) -> Path:
    folder = workspace.checkpoints_folder(claim.job_id) / f"checkpoint-{step}"
    folder.mkdir(parents=True)
    (folder / "optimizer.pt").write_bytes(b"state of step %d" % step)
    (folder / "trainer_state.json").write_text("{}")
    if recorded:
        there = [path.name for path in folder.parent.iterdir()]
        progress.checkpoint(folder.name, build_manifest(folder).to_json(), there)
        progress.settle()
    return folder


def resumed(claim: Claim, progress: LeaseKeeper) -> Path | None:
    target = workspace.inputs_folder(claim.job_id, claim.fence)
    folder = workspace.checkpoints_folder(claim.job_id)
    return checkpoint_copy(order_make(claim), folder, target, progress)


def lines(claim: Claim, progress: LeaseKeeper) -> str:
    progress.flush()
    return "\n".join(job_of(claim).events.values_list("message", flat=True))


def test_the_newest_is_copied_to_where_only_this_attempt_writes(
    claim: Claim, progress: LeaseKeeper
) -> None:
    assert resumed(claim, progress) is None
    write(claim, progress, 90)
    newest = write(claim, progress, 100)
    copy = resumed(claim, progress)
    assert copy == workspace.inputs_folder(claim.job_id, claim.fence) / "checkpoint-100"
    assert (copy / "optimizer.pt").read_bytes() == (newest / "optimizer.pt").read_bytes()
    assert "differs" not in lines(claim, progress)


def flip(folder: Path) -> None:
    file = folder / "optimizer.pt"
    content = bytearray(file.read_bytes())
    content[3] ^= 1
    file.write_bytes(content)


def add(folder: Path) -> None:
    (folder / "scheduler.pt").write_bytes(b"more")


def remove(folder: Path) -> None:
    (folder / "optimizer.pt").unlink()


@pytest.mark.parametrize("change", [flip, add, remove])
@pytest.mark.parametrize("step", [20, 40])
def test_one_changed_byte_starts_the_run_over_with_a_note(
    claim: Claim, progress: LeaseKeeper, change: Callable[[Path], None], step: int
) -> None:
    folders = {each: write(claim, progress, each) for each in (20, 40)}
    change(folders[step])
    assert resumed(claim, progress) is None
    assert "the run starts from the beginning" in lines(claim, progress)
    assert not workspace.checkpoints_folder(claim.job_id).exists()
    inputs = workspace.inputs_folder(claim.job_id, claim.fence)
    assert not list(inputs.glob("checkpoint-*"))


def test_one_that_was_not_recorded_is_not_used_and_the_one_before_is(
    claim: Claim, progress: LeaseKeeper
) -> None:
    write(claim, progress, 20)
    planted = write(claim, progress, 40, recorded=False)
    copy = resumed(claim, progress)
    assert copy is not None
    assert copy.name == "checkpoint-20"
    assert not planted.exists()
    assert "checkpoint-40 was not recorded" in lines(claim, progress)


def test_what_was_rotated_away_is_forgotten(claim: Claim, progress: LeaseKeeper) -> None:
    old = write(claim, progress, 20)
    for path in old.iterdir():
        path.unlink()
    old.rmdir()
    write(claim, progress, 40)
    assert set(job_of(claim).checkpoints) == {"checkpoint-40"}


def test_who_lost_the_lease_records_nothing(claim: Claim, progress: LeaseKeeper) -> None:
    take_over(claim)
    with pytest.raises(LeaseLost):
        job_checkpoint(claim, name="checkpoint-1", manifest={}, remaining=["checkpoint-1"])
    write(claim, progress, 20)
    assert progress.lost
    assert job_of(claim).checkpoints == {}
