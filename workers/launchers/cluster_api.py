"""The objects of runs in a Kubernetes cluster: TrainJobs, their pods and NetworkPolicies, and the
TrainingRuntime.

Uses the official client. Each call raises Unavailable when the cluster cannot do it now.
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
    """An object of that name exists."""


class _Refused(Unavailable):
    """The object is refused for good."""


class ClusterApi:
    """The namespace of runs."""

    def __init__(self, settings: KubernetesSettings) -> None:
        """Connect with the settings' kubeconfig, or the pod's service account.

        Raises:
            InvalidInput: there is neither.
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
        """Return a TrainingRuntime. Raises Unavailable, also when it is missing."""
        try:
            return self._object("trainingruntimes", name)
        except _Missing as error:
            raise Unavailable(
                f"The namespace {self._namespace} has no TrainingRuntime {name!r}."
            ) from error

    def job_create(self, made: dict[str, Any]) -> None:
        """Create a TrainJob. Raises Unavailable, and InvalidInput when it is refused for good."""
        try:
            _create(self._objects.create_namespaced_custom_object, *self._kind("trainjobs"), made)
        except Unavailable:
            # The answer may be lost, and the TrainJob there.
            if self.job(made["metadata"]["name"]) is None:
                raise

    def policy_create(self, made: dict[str, Any]) -> None:
        """Create a NetworkPolicy. Raises Unavailable, and InvalidInput when it is refused."""
        _create(self._network.create_namespaced_network_policy, self._namespace, made)

    def job(self, name: str) -> dict[str, Any] | None:
        """Return a TrainJob; None when there is none."""
        try:
            return self._object("trainjobs", name)
        except _Missing:
            return None

    def jobs(self, selector: str) -> list[dict[str, Any]]:
        """Return the TrainJobs with a label."""
        found = _request(
            self._objects.list_namespaced_custom_object,
            *self._kind("trainjobs"),
            label_selector=selector,
        )
        return list(found["items"])

    def job_delete(self, name: str) -> None:
        """Delete a TrainJob, if there is one. Its pods get SIGTERM and their time to end."""
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
        found = _request(self._core.list_namespaced_pod, self._namespace, label_selector=selector)
        return list(found.items)

    def pods_kill(self, pods: list[Any]) -> None:
        """Have pods that are alive end within a second."""
        for pod in filter(alive, pods):
            with contextlib.suppress(_Missing):
                _request(
                    self._core.delete_namespaced_pod,
                    pod.metadata.name,
                    self._namespace,
                    grace_period_seconds=KILL_GRACE_S,
                )

    def log(self, pod: Any) -> str:
        """Return the last lines that a pod printed; empty when they are unavailable."""
        try:
            answer = _request(
                self._core.read_namespaced_pod_log,
                pod.metadata.name,
                self._namespace,
                container=NODE,
                tail_lines=LOG_LINES,
                limit_bytes=LOG_BYTES,
                # The client's own decoding is for JSON.
                _preload_content=False,
            )
        except (_Missing, Unavailable):
            return ""
        return str(answer.data.decode(errors="replace"))

    def _kind(self, plural: str) -> tuple[str, str, str, str]:
        return GROUP, VERSION, self._namespace, plural

    def _object(self, plural: str, name: str) -> dict[str, Any]:
        found = _request(self._objects.get_namespaced_custom_object, *self._kind(plural), name)
        return dict(found)


def _create(call: Callable[..., Any], *args: Any) -> None:
    """Create an object that may exist, since the answer to an earlier call can be lost."""
    try:
        with contextlib.suppress(_Exists):
            _request(call, *args)
    except _Refused as error:
        raise InvalidInput(error.message) from error


def _request(call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Return the answer of the cluster.

    Raises:
        _Missing, _Exists: the object does not exist, or exists.
        Unavailable: it did not answer, cannot do it now, or refuses it (`_Refused`).
    """
    try:
        return call(*args, _request_timeout=TIMEOUT_S, **kwargs)
    except client.ApiException as error:
        if error.status == 404:
            raise _Missing from error
        message, reason = _status(error)
        # 409 has other causes, as a quota that changes meanwhile.
        if reason == "AlreadyExists":
            raise _Exists from error
        # A webhook's refusal has the same status as missing rights.
        if error.status in {400, 422} or "denied the request" in message:
            raise _Refused(f"Kubernetes refused the run: {message}.") from error
        raise Unavailable(f"Kubernetes answered {error.status}: {message}.") from error
    except (HTTPError, OSError) as error:
        raise Unavailable(f"Kubernetes did not answer: {type(error).__name__}.") from error


def _status(error: client.ApiException) -> tuple[str, str]:
    """Return the message of the cluster and its reason in one word, which can be empty."""
    try:
        body = json.loads(error.body)
        return cut(body["message"]), str(body.get("reason", ""))
    except (AttributeError, KeyError, TypeError, ValueError):
        return cut(error.reason), ""
