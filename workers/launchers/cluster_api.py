"""Access to the objects of runs in a Kubernetes cluster: TrainJobs, their pods and NetworkPolicies,
and the TrainingRuntime.

Uses the official client. Each call raises Unavailable if the cluster cannot execute it now.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from typing import Any

from kubernetes import client, config
from urllib3.exceptions import HTTPError

from governance.errors import InvalidInput, Unavailable
from workers.launchers.pods import alive, cut
from workers.launchers.protocol import LOG_BYTES, LOG_LINES
from workers.launchers.trainjobs import GROUP, NODE, VERSION, KubernetesSettings

# Seconds to connect, and to read.
TIMEOUT_S = (5.0, 30.0)
KILL_GRACE_S = 1


class _Missing(Exception):
    """The object does not exist."""


class _Exists(Exception):
    """An object with this name exists."""


class _Refused(Unavailable):
    """The object is permanently refused."""


class ClusterApi:
    """Objects in the namespace of runs."""

    def __init__(self, settings: KubernetesSettings) -> None:
        """Connect with the settings' kubeconfig, or the pod's service account.

        Raises:
            InvalidInput: neither exists.
        """
        configuration = client.Configuration()
        configuration.client_side_validation = False
        configuration.retries = 1
        try:
            if settings.config:
                config.load_kube_config(settings.config, client_configuration=configuration)
            else:
                config.load_incluster_config(client_configuration=configuration)
        except config.ConfigException as error:
            raise InvalidInput(
                f"This worker cannot reach Kubernetes: {error}",
                hint="Run it in a pod with a service account, or set ASSAY_KUBERNETES_CONFIG.",
            ) from error
        connection = client.ApiClient(configuration)
        self._objects = client.CustomObjectsApi(connection)
        self._core = client.CoreV1Api(connection)
        self._network = client.NetworkingV1Api(connection)
        self._namespace = settings.namespace

    def runtime(self, name: str) -> dict[str, Any]:
        """Return a TrainingRuntime. Raises Unavailable, also if it is missing."""
        try:
            return self._object("trainingruntimes", name)
        except _Missing as error:
            raise Unavailable(
                f"The namespace {self._namespace} has no TrainingRuntime {name!r}."
            ) from error

    def job_create(self, body: dict[str, Any]) -> None:
        """Create a TrainJob. Raises Unavailable, and InvalidInput if permanently refused."""
        try:
            _create(self._objects.create_namespaced_custom_object, *self._kind("trainjobs"), body)
        except Unavailable:
            # The TrainJob may exist even though the answer was lost.
            if self.job(body["metadata"]["name"]) is None:
                raise

    def policy_create(self, body: dict[str, Any]) -> None:
        """Create a NetworkPolicy. Raises Unavailable, and InvalidInput if permanently refused."""
        _create(self._network.create_namespaced_network_policy, self._namespace, body)

    def job(self, name: str) -> dict[str, Any] | None:
        """Return a TrainJob; None if it does not exist."""
        try:
            return self._object("trainjobs", name)
        except _Missing:
            return None

    def jobs(self, selector: str) -> list[dict[str, Any]]:
        """Return the TrainJobs with a label."""
        answer = _request(
            self._objects.list_namespaced_custom_object,
            *self._kind("trainjobs"),
            label_selector=selector,
        )
        return list(answer["items"])

    def job_delete(self, name: str) -> None:
        """Delete a TrainJob if it exists. Its pods get SIGTERM and their grace period."""
        with contextlib.suppress(_Missing):
            _request(
                self._objects.delete_namespaced_custom_object,
                *self._kind("trainjobs"),
                name,
                # With foreground deletion, Kubeflow may recreate pods that the TrainJob waits for.
                propagation_policy="Background",
            )

    def pods(self, selector: str) -> list[Any]:
        """Return the pods with a label."""
        answer = _request(self._core.list_namespaced_pod, self._namespace, label_selector=selector)
        return list(answer.items)

    def pods_kill(self, pods: list[Any]) -> None:
        """End pods that are alive within a second."""
        for pod in filter(alive, pods):
            with contextlib.suppress(_Missing):
                _request(
                    self._core.delete_namespaced_pod,
                    pod.metadata.name,
                    self._namespace,
                    grace_period_seconds=KILL_GRACE_S,
                )

    def log(self, pod: Any) -> str:
        """Return the last lines of a pod's output; empty if they are unavailable."""
        try:
            answer = _request(
                self._core.read_namespaced_pod_log,
                pod.metadata.name,
                self._namespace,
                container=NODE,
                tail_lines=LOG_LINES,
                limit_bytes=LOG_BYTES,
                # The client would decode the answer as JSON.
                _preload_content=False,
            )
        except (_Missing, Unavailable):
            return ""
        return str(answer.data.decode(errors="replace"))

    def _kind(self, plural: str) -> tuple[str, str, str, str]:
        return GROUP, VERSION, self._namespace, plural

    def _object(self, plural: str, name: str) -> dict[str, Any]:
        answer = _request(self._objects.get_namespaced_custom_object, *self._kind(plural), name)
        return dict(answer)


def _create(call: Callable[..., Any], *args: Any) -> None:
    """Create an object, which may exist already if the answer to an earlier call was lost."""
    try:
        with contextlib.suppress(_Exists):
            _request(call, *args)
    except _Refused as error:
        raise InvalidInput(error.message) from error


def _request(call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Return the answer of the cluster.

    Raises:
        _Missing, _Exists: the object does not exist, or exists.
        Unavailable: the cluster did not answer, cannot do it now, or refuses it (`_Refused`).
    """
    try:
        return call(*args, _request_timeout=TIMEOUT_S, **kwargs)
    except client.ApiException as error:
        if error.status == 404:
            raise _Missing from error
        message, reason = _status(error)
        # 409 has other causes too, such as a concurrent change of a quota.
        if reason == "AlreadyExists":
            raise _Exists from error
        # A webhook's refusal has the same status as missing rights.
        if error.status in {400, 422} or "denied the request" in message:
            raise _Refused(f"Kubernetes refused the run: {message}.") from error
        raise Unavailable(f"Kubernetes answered {error.status}: {message}.") from error
    except (HTTPError, OSError) as error:
        raise Unavailable(f"Kubernetes did not answer: {type(error).__name__}.") from error


def _status(error: client.ApiException) -> tuple[str, str]:
    """Return the cluster's message and its one-word reason, which can be empty."""
    try:
        body = json.loads(error.body)
        return cut(body["message"]), str(body.get("reason", ""))
    except (AttributeError, KeyError, TypeError, ValueError):
        return cut(error.reason), ""
