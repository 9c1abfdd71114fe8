"""Preview of a deployment, for the person who confirms it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from django.db.models import Count
from django.utils import timezone

from governance.errors import DomainError
from governance.principals import Principal
from governance.usage.selectors import usage_visible_to
from registry.releases.models import Release
from registry.releases.selectors import release_get
from registry.releases.serving import release_startable
from workers.deployments.models import Deployment, Device
from workers.deployments.selectors import deployments_visible_to
from workers.deployments.services import check_name, check_not_shadow
from workers.deployments.states import LIVE
from workers.placement.settings import ReplicaSettings

# Period of the use that the preview counts.
USE = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class DeploymentPreview:
    """The deployment that `release` would replace, if any, and the replicas of the new one.

    `requests` and `keys` count the usage of the last seven days under the same name that the person
    may see. `obstacle` is the reason why the release may not be deployed; empty if it may.
    """

    release: Release
    replaced: Deployment | None
    replicas: ReplicaSettings
    requests: int
    keys: int
    obstacle: str

    @property
    def replicas_words(self) -> str:
        """Number of replicas, and the workers that may hold them."""
        least, most = self.replicas.replicas_min, self.replicas.replicas_max
        words = [f"{most}" if least == most else f"{least} to {most}"]
        if self.replicas.labels:
            words.append(f"on workers labeled {', '.join(self.replicas.labels)}")
        if self.replicas.device:
            words.append(f"on {Device(self.replicas.device).label}")
        return ", ".join(words)


def deployment_preview(*, actor: Principal, release_id: int) -> DeploymentPreview:
    """Return the changes that `deployment_create` would make now.

    Raises:
        NotFound: the release does not exist, or the actor may not see it.
    """
    release = release_get(actor=actor, id=release_id)
    live = deployments_visible_to(actor).filter(
        name=release.deployment_name, state__in=LIVE, target_of=None
    )
    replaced = live.first()
    used = usage_visible_to(actor).filter(
        deployment=release.deployment_name, occurred_at__gte=timezone.now() - USE
    )
    sums = used.order_by().aggregate(
        requests=Count("id"), keys=Count("key_public_id", distinct=True)
    )
    return DeploymentPreview(
        release=release,
        replaced=replaced,
        replicas=ReplicaSettings() if replaced is None else ReplicaSettings.of(replaced),
        obstacle=_obstacle(release, replaced),
        **sums,
    )


def _obstacle(release: Release, replaced: Deployment | None) -> str:
    if replaced is not None and replaced.release_id == release.pk:
        return f"Release {release.pk} is deployed as {replaced.name} already."
    try:
        check_name(release, replaced)
        check_not_shadow(release)
        release_startable(release)
    except DomainError as error:
        return error.message
    return ""
