"""Deploy approved releases, stop deployments, and record the reports of engine workers."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from django.db import DatabaseError, IntegrityError, transaction
from django.db.models import Exists, OuterRef, Q
from django.utils import timezone

from governance.audit.services import Attempt, audit_record
from governance.database.locks import is_lock_timeout, wait_at_most
from governance.errors import DomainError, NotFound, NotPermitted, WrongState
from governance.permissions import Action
from governance.policy.decisions import Authorization
from governance.policy.services import authorize
from governance.principals import Principal, service_principal
from governance.rowsecurity import exists_anywhere
from registry.releases.equivalence.environments import environments_seen
from registry.releases.models import Release
from registry.releases.selectors import release_get
from registry.releases.serving import (
    OTHER_CODE,
    ServingVerdict,
    release_startable,
    serving_verdicts,
)
from registry.releases.software import CODE_DIFFERS
from registry.releases.voiding import release_deployed
from registry.resources import release_subject
from workers.deployments.equivalence import worker_environments, worker_fault
from workers.deployments.judging import Judge
from workers.deployments.leases import lease_end
from workers.deployments.models import (
    REPLACED,
    Deployment,
    DeploymentState,
    Replica,
    ReplicaState,
    ServingLease,
    WorkerKey,
)
from workers.deployments.resources import (
    deployment_context,
    deployment_resource,
    new_deployment_resource,
)
from workers.deployments.selectors import deployment_get, live_deployments
from workers.deployments.states import LIVE, deployment_lock, deployment_move, deployment_subject
from workers.deployments.targets import targets_end, targets_follow, targets_settle
from workers.dispatch import wake_engines, wake_gateways, wake_placement
from workers.placement.models import Placement
from workers.placement.planning import WAITS
from workers.placement.settings import ReplicaSettings

logger = logging.getLogger(__name__)
REPLICA_SILENCE_S = 15
_CONTROLLER = service_principal("controller")
ENGINE_WORKER = service_principal("engine-worker")
# Replicas that a live worker reports on: those that it holds, loads, or will try to load again.
_REPORTED = Q(state__in=(ReplicaState.LOADING, ReplicaState.READY, ReplicaState.FAILED)) | Q(
    state=ReplicaState.REFUSED, deployment__state__in=LIVE
)
# A copy without a placement is not renewed, so it expires and its worker gets no more prompts. A
# failed copy gets none anyway, and is remembered until its load may be tried again.
_RENEWED = Q(state__in=(ReplicaState.FAILED, ReplicaState.REFUSED)) | Exists(
    Placement.objects.filter(deployment=OuterRef("deployment"), worker=OuterRef("worker"))
)
# Longest time that the stop of one deployment may delay that of the next.
_STOP_PATIENCE_MS = 200
# A deployment is not refused if another worker hashed the right bytes this recently: that worker
# may just be restarting.
VOUCHED_FOR = timedelta(minutes=10)


@transaction.atomic
def deployment_create(
    *, actor: Principal, release_id: int, replicas: ReplicaSettings | None = None
) -> Deployment:
    """Deploy an approved release under its name, and stop the deployment that served under it.

    `replicas` defaults to the settings of the replaced deployment, or one replica.

    Raises:
        NotFound: the release does not exist, or the actor may not see it.
        NotPermitted: the policy denies it, or the choice of replicas.
        WrongState: the release may not serve (says why), or another department uses the name.
    """
    release = release_get(actor=actor, id=release_id)
    release = (
        Release.objects.select_for_update(of=("self",))
        .select_related("department", "version__model")
        .get(pk=release.pk)
    )
    decision = authorize(
        actor=actor,
        action=Action.DEPLOYMENT_CREATE,
        resource=new_deployment_resource(release),
        context=deployment_context(release),
    )
    attempt = Attempt(
        actor=actor,
        action=Action.DEPLOYMENT_CREATE,
        subject=release_subject(release),
        department=release.department.slug,
        decision=decision,
    )
    if actor.person_id is None:
        raise NotPermitted(
            f"{actor.name} is not a person; a deployment names who answers for it.",
            hint="Sign in, or use a personal access token.",
            attempt=attempt,
        )
    if replicas is not None:
        authorize(
            actor=actor,
            action=Action.DEPLOYMENT_PLACE,
            resource=new_deployment_resource(release),
            context=deployment_context(release),
        )
    try:
        release_startable(release)
        check_not_shadow(release)
        replaced = _replace_live(actor, release, decision)
    except DomainError as error:
        error.attempt = error.attempt or attempt
        raise
    if replicas is None:
        replicas = ReplicaSettings() if replaced is None else ReplicaSettings.of(replaced)
    deployment = deployment_insert(actor.person_id, release, replicas)
    if replaced is not None:
        targets_follow(actor=actor, before=replaced, after=deployment, decision=decision)
    release_deployed(actor=actor, release=release, decision=decision)
    audit_record(
        actor=actor,
        action=Action.DEPLOYMENT_CREATE,
        subject=deployment_subject(deployment),
        department=release.department.slug,
        data={
            "release": release.pk,
            "digest": release.version.digest,
            "replicas": replicas.to_json(),
        },
        decision=decision,
    )
    transaction.on_commit(wake_placement)
    return deployment


def _replace_live(actor: Principal, release: Release, decision: Authorization) -> Deployment | None:
    """Stop and return the live deployment of the release's name, or return None."""
    live = (
        Deployment.objects.select_for_update(of=("self",))
        .filter(name=release.deployment_name, state__in=LIVE, target_of=None)
        .select_related("department")
        .first()
    )
    check_name(release, live)
    if live is None:
        return None
    if live.release_id == release.pk:
        raise WrongState(
            f"Release {release.pk} is deployed as {live.name} already; it is {live.state}."
        )
    if live.targets.filter(release=release, state__in=LIVE).exists():
        raise WrongState(
            f"Release {release.pk} is a target of {live.name} already.",
            hint="Switch to this target; it then takes the place of the primary in one step.",
        )
    return deployment_move(
        deployment_id=live.pk,
        to=DeploymentState.STOPPED,
        actor=actor,
        message=f"{REPLACED} {release.pk}.",
        decision=decision,
    )


def check_name(release: Release, live: Deployment | None) -> None:
    """Raise WrongState if the release's name serves for another department. `live` is the visible
    deployment of that name; others may have one that is not visible.
    """
    name = release.deployment_name
    if live is None:
        is_taken = exists_anywhere(Deployment, name=name, state__in=LIVE, target_of=None)
    else:
        is_taken = live.department_id != release.department_id
    if is_taken:
        raise WrongState(
            f"The name {name} serves for another department; release {release.pk} was not deployed "
            "under it.",
            hint="Submit a release under another deployment name.",
        )


def check_not_shadow(release: Release) -> None:
    """Raise WrongState if the release was approved only to get copies of requests."""
    if release.conditions.get("shadow_only"):
        raise WrongState(
            f"Release {release.pk} was approved only as a shadow; its answers may reach no client.",
            code="shadow_only",
            hint="Add it to a deployment as a target with the role shadow, or submit it again.",
        )


def deployment_insert(
    person_id: int, release: Release, replicas: ReplicaSettings, **target: Any
) -> Deployment:
    """Insert a deployment of a checked release with its lease. `target` are the columns of a target
    of another deployment.

    Raises:
        WrongState: another one was inserted at the same moment.
    """
    try:
        with transaction.atomic():
            deployment = Deployment.objects.create(
                name=release.deployment_name,
                release=release,
                department=release.department,
                created_by_id=person_id,
                message=WAITS,
                **replicas.columns(),
                **target,
            )
            # The release was checked in this transaction; from now on the controller checks it.
            ServingLease.objects.create(deployment=deployment, servable_until=lease_end())
            return deployment
    except IntegrityError as error:
        raise WrongState(
            f"{release.deployment_name} was deployed by someone else at the same moment; "
            f"release {release.pk} was not.",
            hint="Check the current deployment, then try again.",
        ) from error


@transaction.atomic
def deployment_stop(*, actor: Principal, deployment_id: int, reason: str = "") -> Deployment:
    """Take a deployment with its targets, or one target, out of service; engine workers unload it
    within seconds.

    Raises:
        NotFound: the deployment does not exist, or the actor may not see it.
        NotPermitted: the policy denies it.
        WrongState: the deployment is already stopped.
    """
    deployment = deployment_get(actor=actor, deployment_id=deployment_id)
    decision = authorize(
        actor=actor,
        action=Action.DEPLOYMENT_STOP,
        resource=deployment_resource(deployment),
        context=deployment_context(deployment.release),
    )
    stopped = deployment_move(
        deployment_id=deployment.pk,
        to=DeploymentState.STOPPED,
        actor=actor,
        message=(reason or "Stopped; no reason was given.")[:1000],
        decision=decision,
    )
    targets_end(actor=actor, primary=stopped, decision=decision)
    return stopped


@transaction.atomic
def replica_report(
    *,
    deployment_id: int,
    worker: str,
    state: ReplicaState,
    loaded_digest: str = "",
    message: str = "",
    load_seconds: float | None = None,
    failures: int = 0,
    retry_in_s: float | None = None,
    code: str = "",
    actor: Principal = ENGINE_WORKER,
) -> Replica:
    """Record the state of an engine worker's copy. The first ready copy makes the deployment serve.

    `loaded_digest` is the digest that was computed while loading; a ready replica is refused if it
    differs from the release. A refused replica makes the deployment refused, unless another worker
    has or had the right bytes: then only this copy is at fault, and an alarm says so. `code` is the
    digest of the worker's packages for the task. The replica fails if it differs from the release,
    or if the release may not serve with the worker's software.

    Raises:
        WrongState: the deployment is no longer live; a ready copy must be unloaded.
    """
    deployment = deployment_lock(deployment_id)
    digest = deployment.release.version.digest
    if state is ReplicaState.READY and deployment.state not in LIVE:
        raise WrongState(
            f"Deployment {deployment.name} is {deployment.state}; it must not be served."
        )
    if state is ReplicaState.READY and loaded_digest != digest:
        state = ReplicaState.REFUSED
        message = f"{worker} loaded {loaded_digest[:12]}…; the release names {digest[:12]}…."
    if state is ReplicaState.READY:
        fault = worker_fault(deployment, worker=worker, code=code, actor=actor)
        if fault:
            state, message = ReplicaState.FAILED, fault
    now = timezone.now()
    values: dict[str, object] = {"state": state, "heartbeat_at": now, "message": message}
    if state in {ReplicaState.LOADING, ReplicaState.READY}:
        values |= {"loaded_digest": loaded_digest}
    if state is not ReplicaState.LOADING:
        # While it tries again, its earlier failures still count.
        retry_at = None if retry_in_s is None else now + timedelta(seconds=retry_in_s)
        values |= {"failures": failures, "retry_at": retry_at}
    if load_seconds is not None:
        values |= {"load_seconds": load_seconds}
    was_ready = Replica.objects.filter(
        deployment=deployment, worker=worker[:120], state=ReplicaState.READY
    ).exists()
    replica, _ = Replica.objects.update_or_create(
        deployment=deployment, worker=worker[:120], defaults=values
    )
    if state is ReplicaState.READY and not was_ready:
        # It already reads the queue, and returns requests that gateways did not seal for it.
        transaction.on_commit(wake_gateways)
    if state is ReplicaState.READY and deployment.state == DeploymentState.PENDING:
        deployment_move(deployment_id=deployment_id, to=DeploymentState.SERVING, actor=actor)
    if (
        state is ReplicaState.REFUSED
        and deployment.state in LIVE
        and not _vouched_for(replica, digest)
    ):
        deployment_move(
            deployment_id=deployment_id,
            to=DeploymentState.REFUSED,
            actor=actor,
            message=message,
            outcome="denied",
        )
    return replica


def _vouched_for(replica: Replica, digest: str) -> bool:
    """Return whether another worker has or loads the deployment, or recently hashed these bytes."""
    others = Replica.objects.filter(deployment_id=replica.deployment_id).exclude(pk=replica.pk)
    since = timezone.now() - VOUCHED_FOR
    return others.filter(
        Q(state__in=(ReplicaState.LOADING, ReplicaState.READY))
        | Q(loaded_digest=digest, heartbeat_at__gte=since)
    ).exists()


def replicas_heartbeat(*, worker: str, engines: Sequence[str]) -> int:
    """Record a worker's heartbeat and engines on every copy that is placed on it or failed there;
    return the number of copies. A copy that was moved away still counts for `REPLICA_SILENCE_S`.

    Raises:
        NotFound: the worker is not registered, or its registration expired.
    """
    rows = WorkerKey.objects.filter(worker=worker[:120])
    environments_seen(list(worker_environments(worker).values()))
    if not rows.update(engines=list(engines), seen_at=timezone.now()):
        raise NotFound(
            f"Worker {worker[:120]} is not registered.",
            code="worker_unknown",
            hint="Register its key; the worker does so by itself.",
        )
    copies = Replica.objects.filter(_REPORTED, _RENEWED, worker=worker[:120])
    return copies.update(heartbeat_at=timezone.now())


def replicas_stop(*, worker: str, actor: Principal = ENGINE_WORKER) -> None:
    """Record that `worker` has restarted or ends, so that it has no replicas."""
    with transaction.atomic():
        Replica.objects.filter(_REPORTED, worker=worker[:120]).update(
            state=ReplicaState.STOPPED, message="The worker ended.", failures=0, retry_at=None
        )
        _await_replicas(actor)


@transaction.atomic
def worker_replicas_end(*, prefix: str, message: str, actor: Principal) -> None:
    """Stop the replicas of all workers whose names begin with `prefix`; gateways send them no
    more requests. The caller records why.
    """
    Replica.objects.filter(_REPORTED, worker__startswith=prefix).update(
        state=ReplicaState.STOPPED, message=message, failures=0, retry_at=None
    )
    _await_replicas(actor)
    transaction.on_commit(wake_engines)


def replicas_expire() -> int:
    """Stop replicas without a heartbeat for 15 s; a deployment with none left is pending again.
    Rows that another session has locked wait for the next round."""
    silent = timezone.now() - timedelta(seconds=REPLICA_SILENCE_S)
    rows = Replica.objects.filter(_REPORTED, heartbeat_at__lt=silent)
    with transaction.atomic():
        free = rows.select_for_update(skip_locked=True, of=("self",)).values_list("pk", flat=True)
        stopped = Replica.objects.filter(pk__in=list(free)).update(
            state=ReplicaState.STOPPED,
            message=f"No heartbeat for {REPLICA_SILENCE_S} s.",
            failures=0,
            retry_at=None,
        )
        _await_replicas(_CONTROLLER)
    return stopped


def _await_replicas(actor: Principal) -> None:
    deserted = Deployment.objects.filter(state=DeploymentState.SERVING).exclude(
        replicas__state=ReplicaState.READY
    )
    for deployment in deserted.select_for_update(skip_locked=True, of=("self",)):
        deployment_move(
            deployment_id=deployment.pk, to=DeploymentState.PENDING, actor=actor, message=WAITS
        )


def deployments_stop_unservable(judge: Judge | None = None) -> int:
    """Stop deployments whose release has expired or is withdrawn or recalled; return the number.

    A stop is final. If the release cannot be read, or names other code of its task than runs here,
    only the lease ends. If another session has locked the row, the lease ends, and the deployment
    is stopped in a later round.

    The controller passes the judge that remembers the verdicts of its last round.
    """
    stopped = 0
    targets_settle()
    *_, verdicts = (judge or Judge()).rounds()
    refused = {
        pk for pk, judged in verdicts.items() if judged.final or judged.refused == CODE_DIFFERS
    }
    told = Deployment.objects.filter(
        message__startswith=OTHER_CODE.partition("{}")[0], state__in=LIVE
    )
    concerned = refused | set(told.order_by().values_list("pk", flat=True))
    if not concerned:
        return 0
    deployments = list(live_deployments().filter(pk__in=concerned))
    fresh = serving_verdicts([deployment.release for deployment in deployments])
    for deployment in deployments:
        verdict = fresh[deployment.release_id]
        _update_message(deployment, verdict)
        if verdict.refusal is None or not verdict.final:
            continue
        try:
            with transaction.atomic():
                wait_at_most(_STOP_PATIENCE_MS)
                deployment_move(
                    deployment_id=deployment.pk,
                    to=DeploymentState.STOPPED,
                    actor=_CONTROLLER,
                    message=verdict.refusal.message,
                )
                targets_settle(deployment.pk)
            stopped += 1
        except WrongState:
            logger.info("Deployment %s was stopped by someone else", deployment.name)
        except DatabaseError as error:
            if not is_lock_timeout(error):
                raise
            logger.warning("Deployment %s is stopped later: %s", deployment.name, error)
        except Exception:
            logger.exception("Deployment %s could not be stopped", deployment.name)
    return stopped


def _update_message(deployment: Deployment, verdict: ServingVerdict) -> None:
    """Show on the deployment whether this process has other code of its task."""
    is_shown = deployment.message.startswith(OTHER_CODE.format(deployment.release_id))
    message = "" if deployment.state == DeploymentState.SERVING else WAITS
    if verdict.refusal is not None:
        if verdict.refusal.code != CODE_DIFFERS:
            return
        message = verdict.refusal.message[:1000]
    elif not is_shown:
        return
    if message != deployment.message:
        rows = Deployment.objects.filter(pk=deployment.pk, state=deployment.state)
        rows.update(message=message)
