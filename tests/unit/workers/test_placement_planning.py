"""A plan of placement keeps to memory, labels, engines and devices; what fits is not moved."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from registry.catalog.engines import EngineName
from workers.placement.planning import (
    WAITS,
    Availability,
    Copy,
    DesiredDeployment,
    Need,
    Plan,
    Worker,
    plan,
)

GB = 1_000_000_000
OWN, VLLM = EngineName.OWN, EngineName.VLLM


def worker(name: str, memory: float = 10, **more: object) -> Worker:
    return replace(Worker(name, int(memory * GB), node=name), **more)  # type: ignore[arg-type]


def wanted(
    number: int, size: float = 1, base: str = "", own: float = 0, **more: object
) -> DesiredDeployment:
    need = Need(base or f"base-{number}", int(size * GB), int(own * GB))
    return replace(DesiredDeployment(number, need), **more)  # type: ignore[arg-type]


def settled(
    workers: list[Worker], deployments: list[DesiredDeployment], copies: list[Copy] | None = None
) -> list[Copy]:
    """Apply plans, each of whose copies gets ready, until there is no move."""
    copies = copies or []
    for _round in range(20):
        found = plan(workers, deployments, copies)
        if not found.moves:
            return copies
        copies = applied(copies, found)
    raise AssertionError("The plan does not settle.")


def applied(copies: list[Copy], found: Plan, *, since: float = 1.0) -> list[Copy]:
    gone = {(move.deployment, move.worker) for move in found.moves if not move.add}
    added = [
        Copy(move.deployment, move.worker, since=since, ready=True)
        for move in found.moves
        if move.add
    ]
    return [copy for copy in copies if (copy.deployment, copy.worker) not in gone] + added


def places(copies: list[Copy]) -> dict[int, list[str]]:
    found: dict[int, list[str]] = {}
    for copy in copies:
        found.setdefault(copy.deployment, []).append(copy.worker)
    return {number: sorted(names) for number, names in found.items()}


def test_one_worker_with_room_is_given_everything() -> None:
    copies = settled([worker("a")], [wanted(1), wanted(2), wanted(3)])
    assert places(copies) == {1: ["a"], 2: ["a"], 3: ["a"]}


def test_adapters_go_where_their_base_is_and_need_only_their_own_bytes() -> None:
    adapters = [wanted(number, 6, base="llama", own=0.1) for number in range(1, 5)]
    copies = settled([worker("a"), worker("b")], adapters)
    assert {name for names in places(copies).values() for name in names} == {"a"}


def test_replicas_are_spread_over_nodes_before_they_share_a_base() -> None:
    workers = [worker("a1", node="a"), worker("a2", node="a"), worker("b1", node="b")]
    copies = settled(workers, [wanted(1, copies=2)])
    assert places(copies) == {1: ["a1", "b1"]}


def test_what_does_not_fit_waits_and_states_what_it_lacks() -> None:
    found = plan([worker("a", 1.2), worker("b", 1)], [wanted(1, 3.1)], [])
    assert found.moves == ()
    assert found.shortages == {1: "Needs 3.1 GB on one worker; the largest free is 1.2 GB."}
    assert plan([], [wanted(1)], []).shortages == {1: WAITS}
    cases = {
        "No running engine worker offers vLLM. Start one that has it installed.": {"engine": VLLM},
        "Needs a worker with cuda; no running one has it.": {"device": "cuda"},
        "Needs a worker with the labels eu, zone-1; no running one has.": {
            "labels": frozenset({"zone-1", "eu"})
        },
        "2 replicas are wanted; 1 worker can hold one.": {"copies": 2},
        "Every worker with room failed to load it; they try again at growing intervals.": {
            "avoid": frozenset({"a"})
        },
    }
    for sentence, more in cases.items():
        assert plan([worker("a")], [wanted(1, **more)], []).shortages == {1: sentence}


def test_a_draining_worker_is_emptied_only_once_the_new_copy_is_ready() -> None:
    copies = [Copy(1, "a", since=1, ready=True)]
    workers = [worker("a", availability=Availability.DRAINING), worker("b")]
    first = plan(workers, [wanted(1)], copies)
    assert [(move.worker, move.add) for move in first.moves] == [("b", True)]
    assert first.moves[0].reason == "Moved from a. Its worker is draining."
    loading = [*copies, Copy(1, "b", since=2)]
    assert plan(workers, [wanted(1)], loading).moves == ()
    loaded = [*copies, Copy(1, "b", since=2, ready=True)]
    assert [(move.worker, move.add) for move in plan(workers, [wanted(1)], loaded).moves] == [
        ("a", False)
    ]


def test_a_cordoned_worker_keeps_what_it_has_and_is_given_nothing() -> None:
    workers = [worker("a", availability=Availability.CORDONED)]
    found = plan(workers, [wanted(1), wanted(2)], [Copy(1, "a", ready=True)])
    assert found.moves == ()
    assert found.shortages == {2: "Every worker that fits is cordoned or draining."}


def test_a_load_that_failed_is_tried_elsewhere_and_else_stays() -> None:
    failed = wanted(1, avoid=frozenset({"a"}))
    found = plan([worker("a"), worker("b")], [failed], [Copy(1, "a")])
    assert [(move.worker, move.add) for move in found.moves] == [("a", False), ("b", True)]
    assert found.moves[1].reason == "a could not load it."
    alone = plan([worker("a")], [failed], [Copy(1, "a")])
    assert alone == Plan((), {})


def test_a_lost_worker_loses_its_copies_at_once() -> None:
    found = plan([worker("b")], [wanted(1)], [Copy(1, "a", ready=True)])
    assert [(move.worker, move.add) for move in found.moves] == [("a", False), ("b", True)]
    assert found.moves[1].reason == "a does not report."


def test_a_lost_worker_keeps_what_no_other_has_room_for() -> None:
    """It may only have been cut off, as all are while the database is away."""
    found = plan([worker("b", 1)], [wanted(1, 2)], [Copy(1, "a", ready=True)])
    assert found.moves == ()
    assert found.shortages == {1: "Needs 2.0 GB on one worker; the largest free is 1.0 GB."}


def test_a_worker_whose_memory_is_exceeded_gets_no_more() -> None:
    """Not even an adapter of the base that is loaded there."""
    large, small = wanted(1, 3, base="llama", own=1), wanted(2, 3, base="llama")
    found = plan([worker("a", 3)], [large, small], [Copy(1, "a", ready=True)])
    assert found.moves == ()
    assert set(found.shortages) == {1, 2}


def test_fewer_replicas_leave_the_oldest_ready_ones() -> None:
    workers = [worker("a"), worker("b"), worker("c")]
    copies = [Copy(1, "a", 1), Copy(1, "b", 2, ready=True), Copy(1, "c", 3, ready=True)]
    assert places(settled(workers, [wanted(1)], copies)) == {1: ["b"]}
    assert settled(workers, [wanted(1, copies=0)], copies) == []


def test_the_next_release_of_a_name_goes_where_the_base_still_is() -> None:
    ended = wanted(1, 4, base="llama", copies=0)
    following = wanted(2, 4, base="llama")
    found = plan([worker("a"), worker("b")], [ended, following], [Copy(1, "b", ready=True)])
    assert [(move.worker, move.add) for move in found.moves] == [("b", False), ("b", True)]


LABELS = st.frozensets(st.sampled_from(["eu", "fast"]), max_size=2)
DEVICES = st.sampled_from(["cpu", "cuda"])
ENGINES = st.frozensets(st.sampled_from([OWN, VLLM]), min_size=1)


@st.composite
def worlds(draw: st.DrawFn) -> tuple[list[Worker], list[DesiredDeployment], list[Copy]]:
    workers = [
        Worker(
            f"w{number}",
            draw(st.integers(0, 12)),
            node=f"n{number // 2}",
            device=draw(DEVICES),
            labels=draw(LABELS),
            engines=draw(ENGINES),
            availability=draw(st.sampled_from(list(Availability))),
        )
        for number in range(draw(st.integers(0, 6)))
    ]
    names = [f"w{number}" for number in range(7)]
    deployments = [
        DesiredDeployment(
            number,
            Need(draw(st.sampled_from("abcd")), 3, draw(st.integers(0, 3))),
            copies=draw(st.integers(0, 3)),
            engine=draw(st.sampled_from([OWN, VLLM])),
            device=draw(st.sampled_from(["", "", "cpu", "cuda"])),
            labels=draw(st.sampled_from([frozenset(), frozenset(), frozenset({"eu"})])),
            avoid=draw(st.frozensets(st.sampled_from(names), max_size=1)),
        )
        for number in range(draw(st.integers(0, 6)))
    ]
    pairs = draw(st.sets(st.tuples(st.integers(0, 6), st.sampled_from(names)), max_size=10))
    copies = [
        Copy(number, name, draw(st.integers(0, 3)), draw(st.booleans()))
        for number, name in sorted(pairs)
    ]
    return workers, deployments, copies


def misplaced(workers: list[Worker], deployments: list[DesiredDeployment], copy: Copy) -> bool:
    """Return whether the copy's worker is lost, drains, or lacks what the deployment requires."""
    where = {each.name: each for each in workers}.get(copy.worker)
    what = {each.id: each for each in deployments}.get(copy.deployment)
    return (
        where is None
        or what is None
        or where.availability is Availability.DRAINING
        or what.engine not in where.engines
        or what.device not in ("", where.device)
        or not what.labels <= where.labels
    )


def taken(deployments: list[DesiredDeployment], copies: list[Copy], name: str) -> int:
    needs = {each.id: each.need for each in deployments}
    here = [needs[copy.deployment] for copy in copies if copy.worker == name]
    bases = {need.base: need.base_bytes for need in here}
    return sum(bases.values()) + sum(need.own_bytes for need in here)


@pytest.mark.sweep
@settings(max_examples=100, deadline=None)
@given(worlds(), st.integers())
def test_every_plan_keeps_the_rules(
    world: tuple[list[Worker], list[DesiredDeployment], list[Copy]], seed: int
) -> None:
    workers, deployments, copies = world
    found = plan(workers, deployments, copies)
    by_id = {each.id: each for each in deployments}
    rooms = {each.name: each for each in workers}
    mixed = random.Random(seed)
    assert found == plan(*(mixed.sample(each, len(each)) for each in world))
    after = applied(copies, found)
    for move in found.moves:
        if move.add:
            added = Copy(move.deployment, move.worker)
            assert not misplaced(workers, deployments, added)
            assert rooms[move.worker].availability is Availability.OPEN
            assert move.worker not in by_id[move.deployment].avoid
            assert taken(deployments, after, move.worker) <= rooms[move.worker].memory
    assert len({(copy.deployment, copy.worker) for copy in after}) == len(after)
    for copy in copies:
        moved = copy not in after
        if copy.deployment not in by_id:
            assert moved
            continue
        if copy.worker not in rooms:
            others = [each for each in after if each.deployment == copy.deployment]
            assert not moved or len(others) >= by_id[copy.deployment].copies
            continue
        here = [each for each in copies if each.worker == copy.worker and each.deployment in by_id]
        full = taken(deployments, here, copy.worker) > rooms[copy.worker].memory
        others = [each for each in copies if each.deployment == copy.deployment]
        surplus = len(others) > by_id[copy.deployment].copies
        failed = copy.worker in by_id[copy.deployment].avoid and not copy.ready
        if moved and not (misplaced(workers, deployments, copy) or surplus or full or failed):
            raise AssertionError(f"{copy} fitted and was moved.")
        if moved and copy.ready:
            # None that answers goes before as many others are ready as are wanted.
            left = [each for each in others if each.ready and each in after]
            assert len(left) >= by_id[copy.deployment].copies
    for each in deployments:
        held = [copy for copy in after if copy.deployment == each.id and copy.worker in rooms]
        assert len(held) >= each.copies or each.id in found.shortages


@pytest.mark.sweep
@settings(max_examples=100, deadline=None)
@given(worlds())
def test_plans_settle_and_then_move_nothing(
    world: tuple[list[Worker], list[DesiredDeployment], list[Copy]],
) -> None:
    settled(*world)
