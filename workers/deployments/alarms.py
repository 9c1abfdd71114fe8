"""Alarms about engine workers and nodes, in addition to those of the audit log."""

from __future__ import annotations

from datetime import timedelta

from django.db.models import F, QuerySet
from django.db.models.functions import Now
from django.utils import timezone

from governance.audit.alarms import Alarm, alarms_add
from registry.releases.equivalence.selectors import changed_in_words
from registry.releases.serving import serving_verdicts
from workers.deployments.models import Deployment, DeploymentState, Replica, ReplicaState
from workers.deployments.selectors import live_deployments
from workers.deployments.software import code_differences, live_checks_changed
from workers.deployments.stated_models import differing_now
from workers.deployments.states import LIVE
from workers.nodes.broker_denials import ALARM_FOR, node_denials
from workers.nodes.models import Node

# Consecutive failed loads before an alarm: one failure may be due to a restart.
FAILURES_TOLERATED = 3
_NAMED = 5
# Deployments without a lease that are judged at most, as when the controller was away.
_JUDGED = 500


def copies_differ() -> str:
    """Name workers whose bytes differ from the manifest of a deployment that is still live."""
    rows = Replica.objects.filter(state=ReplicaState.REFUSED, deployment__state__in=LIVE)
    return " ".join(replica.message for replica in _named(rows))


def loads_failing() -> str:
    """Name workers that repeatedly fail to load a live deployment."""
    rows = Replica.objects.filter(
        state__in=(ReplicaState.FAILED, ReplicaState.LOADING),
        failures__gte=FAILURES_TOLERATED,
        deployment__state__in=LIVE,
        # Ignore failures on workers from which the deployment was moved away.
        deployment__placements__worker=F("worker"),
    )
    return " ".join(
        f"{replica.worker} failed {replica.failures} times to load {replica.deployment}. "
        f"{replica.message}".rstrip()
        for replica in _named(rows)
    )


def releases_unreadable() -> str:
    """Name live deployments that do not serve because their release cannot be read.

    The controller has ended their leases, so that only deployments without one are judged.
    """
    deployments = list(live_deployments().exclude(lease__servable_until__gt=Now())[:_JUDGED])
    verdicts = serving_verdicts([deployment.release for deployment in deployments])
    sentences = [
        f"{deployment.name}: {verdict.refusal}"
        for deployment in deployments
        if not (verdict := verdicts[deployment.release_id]).readable
    ]
    return " ".join(sentences[:_NAMED])


def leases_lapsed() -> str:
    """Name serving deployments that the controller does not confirm."""
    serving = Deployment.objects.filter(state=DeploymentState.SERVING)
    rows = serving.exclude(lease__servable_until__gt=Now())
    names = list(rows.order_by("name").values_list("name", flat=True))
    return f"Not confirmed by the controller, so not serving: {', '.join(names)}." if names else ""


def node_keys_shared() -> str:
    """Name nodes whose key two processes used in the last hour."""
    since = timezone.now() - timedelta(hours=1)
    names = list(Node.objects.filter(conflict_at__gte=since).values_list("name", flat=True))
    return f"Two processes used the key of: {', '.join(names[:_NAMED])}." if names else ""


def broker_denials() -> str:
    """Name nodes whose commands the broker denied in the last hour."""
    by_node = {
        node.name: denials
        for node in Node.objects.exclude(broker_denials={})
        if (denials := node_denials(node, ALARM_FOR))
    }
    return " ".join(
        f"The broker denied {name}: {', '.join(map(str, denials[:_NAMED]))}."
        for name, denials in list(by_node.items())[:_NAMED]
    )


def code_differs() -> str:
    """Name processes whose packages of a task differ from those of this controller."""
    return " ".join(map(str, code_differences()[:_NAMED]))


def answers_changed() -> str:
    """Name live deployments whose answers, with a worker's current software, differ from the
    dossier or cannot be compared."""
    return " ".join(map(changed_in_words, live_checks_changed()[:_NAMED]))


def provider_differs() -> str:
    """Name deployments whose provider answered as another model in the last hours."""
    names = sorted({f"{each.deployment.name} as {each}" for each in differing_now()[:500]})
    return f"Answered: {', '.join(names[:_NAMED])}." if names else ""


def _named(rows: QuerySet[Replica]) -> QuerySet[Replica]:
    return rows.select_related("deployment").order_by("pk")[:_NAMED]


def register_alarms() -> None:
    """Add the alarms of deployments and nodes to those of the audit log."""
    alarms_add(
        Alarm("copies_differ", "A worker’s copy of a model differs", copies_differ, critical=True),
        Alarm("loads_failing", "A worker cannot load a deployment", loads_failing),
        Alarm("code_differs", "Processes run different packages", code_differs, critical=True),
        Alarm("answers_changed", "Answers differ after an upgrade", answers_changed, critical=True),
        Alarm(
            "releases_unreadable", "A release cannot be read", releases_unreadable, critical=True
        ),
        Alarm(
            "provider_differs",
            "A provider answers as another model",
            provider_differs,
            critical=True,
        ),
        Alarm("node_keys_shared", "A node’s key is used twice", node_keys_shared, critical=True),
        Alarm("broker_denials", "A node was denied commands on the broker", broker_denials),
        Alarm("leases_lapsed", "Deployments are not confirmed", leases_lapsed, critical=True),
    )
