"""The control plane of a node's engine workers. `workers/remote/control.py` is its client."""

from __future__ import annotations

from dataclasses import asdict

from assay.node_api.endpoint import NodeRoutes
from workers.control.messages import WorkerBody, reported_facts
from workers.control.protocol import (
    Assignments,
    AssignmentsQuery,
    HeartbeatBody,
    Plan,
    References,
    ReferencesBody,
    ReplicaBody,
    ReplicaStateAnswer,
    WorkerKeyBody,
    WorkerTasksBody,
)
from workers.deployments.services import replica_report, replicas_heartbeat
from workers.nodes.engine_side import (
    node_assignments,
    node_plan,
    node_references,
    node_references_report,
    node_require,
    node_worker_register,
    node_worker_stop,
    node_worker_tasks,
    worker_of,
)
from workers.nodes.models import Node
from workers.nodes.services import node_report
from workers.nodes.states import node_principal, node_working

routes = NodeRoutes()
REFERENCES = "deployments/<id:deployment_id>/references"


@routes.get("assignments", "List the deployments assigned to a worker")
def assignments(node: Node, query: AssignmentsQuery) -> Assignments:
    return Assignments(
        node_assignments(
            node=node,
            worker=query.worker,
            engines=query.engines.split(","),
            loaded=[int(each) for each in query.held.split(",") if each],
        )
    )


@routes.get("deployments/<id:deployment_id>/plan", "Plan of an assigned deployment")
def plan(node: Node, deployment_id: int) -> Plan:
    return Plan(node_plan(node=node, deployment_id=deployment_id))


@routes.get(REFERENCES, "List the requests that are compared before a deployment serves")
def references(node: Node, deployment_id: int, query: WorkerBody) -> References:
    worker = worker_of(node, query.worker)
    return References(node_references(node=node, worker=worker, deployment_id=deployment_id))


@routes.post(REFERENCES, "Send the answers to these requests")
def references_report(node: Node, deployment_id: int, body: ReferencesBody) -> None:
    node_references_report(
        node=node,
        worker=worker_of(node, body.worker),
        deployment_id=deployment_id,
        answers=[each.model_dump(exclude_unset=True) for each in body.answers],
    )


@routes.post("replicas", "Report the state of a replica")
def replicas(node: Node, body: ReplicaBody) -> ReplicaStateAnswer:
    worker, report = worker_of(node, body.worker), body.report
    with node_working(node):
        node_require(
            node=node, worker=worker, deployment_id=report.deployment_id, state=report.state
        )
        recorded = replica_report(worker=worker, actor=node_principal(node.name), **asdict(report))
    return ReplicaStateAnswer(state=recorded.state)


@routes.post("heartbeats", "Report that a worker is alive")
def heartbeats(node: Node, body: HeartbeatBody) -> None:
    worker = worker_of(node, body.worker)
    with node_working(node):
        replicas_heartbeat(worker=worker, engines=body.engines)
    node_report(node=node, facts=reported_facts(body.facts))


@routes.post("workers/tasks", "Report a worker's tasks")
def worker_tasks(node: Node, body: WorkerTasksBody) -> None:
    worker = worker_of(node, body.worker)
    node_worker_tasks(node=node, worker=worker, role=body.role, offers=body.tasks)


@routes.post("workers/stop", "Report that a worker has nothing loaded")
def worker_stop(node: Node, body: WorkerBody) -> None:
    node_worker_stop(node=node, worker=worker_of(node, body.worker))


@routes.post("workers/keys", "Register a worker's key")
def worker_key(node: Node, body: WorkerKeyBody) -> None:
    node_worker_register(
        node=node,
        worker=worker_of(node, body.worker),
        public_key=body.public_key,
        engines=body.engines,
        capacity=body.capacity,
        software=body.software,
    )
