"""Environment of each process as the three installations ship it, and on this machine.

Live tests start processes with what `deploy/systemd`, `docker/compose.yaml` or the chart gives
them. A setting that a unit lacks is then missing in the test, too. `Machine` changes addresses and
folders, which differ on each machine, and adds nothing but what `CHOSEN` and the test itself name.
"""

from __future__ import annotations

import atexit
import base64
import os
import re
import shutil
import subprocess
import tempfile
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import yaml

ROOT = Path(__file__).resolve().parents[1]
SYSTEMD = ROOT / "deploy" / "systemd"
CHART = ROOT / "deploy" / "helm" / "assay"
DOCKER = ROOT / "docker"
HARDENING = SYSTEMD / "assay-.service.d" / "10-hardening.conf"
LAYOUTS = ("systemd", "compose", "helm")
# A process, and what compose and the chart call it.
SERVICES = {
    "web": "web",
    "controller": "controller",
    "migrate": "migrate",
    "backup": "backup",
    "compute": "worker-compute",
    "engine": "worker-engine",
    "egress": "worker-egress",
}
COMPONENTS = {**{name: name for name in SERVICES}, "compute": "compute-cpu", "engine": "engine-cpu"}
# The egress workers' private key in tests.
EGRESS_KEY = b"\x11" * 32
# Of the machine, as systemd and an image have them.
INHERITED = ("PATH", "OMP_NUM_THREADS", "LANG")
# Of a database over the network; here it is a socket.
NETWORK = {"PGHOST", "PGPORT", "PGSSLMODE", "PGSSLROOTCERT"}
# Settings that the operator of an installation chooses; no TLS proxy stands in front here.
CHOSEN = {
    "ASSAY_ALLOWED_HOSTS": "127.0.0.1,localhost,assay",
    "ASSAY_PORTAL_URL": "http://localhost:8000",
    "ASSAY_SSL_REDIRECT": "0",
}


def unit(name: str) -> dict[str, list[str]]:
    """The settings of a unit with its drop-ins, in the order of systemd; a name may occur often."""
    found: dict[str, list[str]] = defaultdict(list)
    own = sorted((SYSTEMD / f"assay-{name}.service.d").glob("*.conf"))
    for file in (SYSTEMD / f"assay-{name}.service", HARDENING, *own):
        for line in file.read_text().splitlines():
            if "=" in line and not line.startswith("#"):
                key, _, value = line.partition("=")
                found[key].append(value)
    return found


def of_systemd(name: str, credentials: str = "%d") -> dict[str, str]:
    """The environment of a unit, with the examples as the files in /etc/assay."""
    settings = unit(name)
    given: dict[str, str] = {}
    for line in settings["Environment"]:
        given |= dict(part.split("=", 1) for part in line.split(" "))
    for file in settings["EnvironmentFile"]:
        example = SYSTEMD / f"{Path(file).name}.example"
        lines = [line for line in example.read_text().splitlines() if line[:1] != "#"]
        given |= dict(line.split("=", 1) for line in lines)
    return {key: value.replace("%d", credentials) for key, value in given.items()}


@cache
def compose(file: str = "compose.yaml") -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((DOCKER / file).read_text())
    return loaded


def of_compose(service: str, file: str = "compose.yaml") -> dict[str, str]:
    """The environment of a service on top of its image's, where the shell sets nothing."""
    found = compose(file)["services"][service]
    given = {key: _interpolated(value) for key, value in found["environment"].items()}
    return of_image(found["command"][0], given)


def of_helm(component: str) -> dict[str, str]:
    """The environment of a pod on top of its image's, with the values that the chart comes with."""
    pod = pods(rendered({"backup": {"claim": "backups"}}))[component]
    return of_image(pod["containers"][0]["args"][0], pod_environment(pod))


@cache
def chart() -> Any:
    # Here, because it loads a library of Go.
    import helm_python

    return helm_python.Chart.load(str(CHART))


def rendered(values: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
    """The objects that the chart makes."""
    texts = chart().render(dict(values or {}), name="assay", namespace="models")
    manifests = (text for path, text in texts.items() if path.endswith(".yaml"))
    return [each for text in manifests for each in yaml.safe_load_all(text) if each]


def pods(objects: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The pod specification of each Deployment, Job and CronJob, by its component."""
    found = {}
    for each in objects:
        if each["kind"] in {"Deployment", "Job", "CronJob"}:
            job = each["spec"]["jobTemplate"] if each["kind"] == "CronJob" else each
            component = each["metadata"]["labels"]["app.kubernetes.io/component"]
            found[component] = job["spec"]["template"]["spec"]
    return found


def helm_secrets(folder: Path) -> None:
    """Write the Secrets that deploy/helm/make-secrets.sh prints as folders below `folder`."""
    program = ROOT / "deploy" / "helm" / "make-secrets.sh"
    printed = subprocess.run([program, folder], check=True, capture_output=True).stdout
    for made in filter(None, yaml.safe_load_all(printed)):
        place = folder / made["metadata"]["name"]
        place.mkdir(exist_ok=True)
        for key, value in made["data"].items():
            (place / key).write_bytes(base64.b64decode(value))


def write_secrets(folder: Path) -> None:
    """Write the tests' own secrets under the names that docker/make-secrets.sh gives."""
    from django.conf import settings

    from governance.audit.signing import KEY_FILE, audit_signer
    from governance.credentials.sealing import public_key_of

    if folder.is_dir():
        return
    folder.mkdir(mode=0o700)
    found = dict.fromkeys(compose()["secrets"], "")
    found |= {
        "audit_public_key": audit_signer().public_key,
        "audit_signing_key": (Path(settings.DATA_DIR) / KEY_FILE).read_text(),
        "key_pepper": settings.KEY_PEPPERS[1].decode(),
        "secret_key": settings.SECRET_KEY,
        "usage_key": settings.USAGE_KEY,
        "wire_key": settings.WIRE_KEY,
        "egress_key": EGRESS_KEY.hex(),
        "egress_public_key": public_key_of(EGRESS_KEY).hex(),
    }
    for name, text in found.items():
        (folder / name).write_text(text)


def pod_environment(pod: Mapping[str, Any]) -> dict[str, str]:
    return {each["name"]: each["value"] for each in pod["containers"][0]["env"]}


def of_image(role: str, given: Mapping[str, str]) -> dict[str, str]:
    """`given` on top of what docker/Dockerfile and the entrypoint set."""
    stages = re.split(r"^FROM ", (DOCKER / "Dockerfile").read_text(), flags=re.MULTILINE)
    names = ("base", "compute") if role in {"worker", "node"} else ("base", "control")
    found: dict[str, str] = {}
    for name in names:
        (stage,) = (text for text in stages if re.match(rf".* AS {name}\n", text))
        for line in re.findall(r"^ENV (.*)$", stage.replace("\\\n", " "), re.MULTILINE):
            found |= dict(
                part.split("=", 1) for part in line.split() if not part.startswith("PATH=")
            )
    found |= given
    (own,) = re.findall(
        rf"^{role}\)\n(.*?)\n    ;;$",
        (DOCKER / "entrypoint.sh").read_text(),
        re.MULTILINE | re.DOTALL,
    )
    for line in re.findall(r"^    export (.*)$", own, re.MULTILINE):
        for name, value in (part.split("=", 1) for part in line.split()):
            found[name] = value.strip('"').replace("$TMPDIR", found.get("TMPDIR", ""))
    return found


def shipped(process: str, layout: str = "systemd") -> dict[str, str]:
    """The environment of a process: `web`, `controller`, `migrate`, `backup`, `compute`, `engine`,
    `node`."""
    if layout == "systemd":
        # With folders that the command names.
        return of_systemd("migrate" if process == "backup" else process)
    if process == "node":
        return of_compose("node", "compose.node.yaml")
    return of_compose(SERVICES[process]) if layout == "compose" else of_helm(COMPONENTS[process])


@dataclass(frozen=True)
class Machine:
    """One machine with an installation.

    Attributes:
        folder: What has no other place; secrets are in `secrets` below it.
        data: In place of /var/lib/assay, into which installations mount what processes share.
        outside: The second place, a folder.
        static: Collected static files.
        database: Returns the URL of the database for one of its users.
        broker: Returns the URL of the broker for one of its users, such as `web`.
        layout: Which installation is this one.
    """

    folder: Path
    data: Path
    outside: Path
    static: Path
    database: Callable[[str], str]
    broker: Callable[[str], str]
    layout: str = "systemd"

    @property
    def secrets(self) -> Path:
        return self.folder / "secrets"

    def environment(self, process: str, **settings: str) -> dict[str, str]:
        """Return the shipped environment of a process, with its operator's `settings`."""
        # The chart has a Secret for each process.
        secrets = self.secrets / (f"assay-{process}" if self.layout == "helm" else "")
        given = {
            name: self._moved(value, secrets)
            for name, value in shipped(process, self.layout).items()
            if name not in NETWORK
        }
        if "DATABASE_URL" in given:
            url = self.database(urlsplit(given["DATABASE_URL"]).username or "")
            # As in production, where libpq takes the server from its environment.
            given["DATABASE_URL"], _, host = url.partition("?host=")
            given["PGHOST"] = unquote(host)
        given |= self._broker(given)
        chosen = {*given, "ASSAY_SSL_REDIRECT"}
        given |= {name: value for name, value in CHOSEN.items() if name in chosen}
        paths = os.pathsep.join([str(ROOT), str(ROOT / "platform"), str(self.folder)])
        own = {name: os.environ[name] for name in INHERITED if name in os.environ}
        return {**own, "PYTHONPATH": paths, **given, **settings}

    def _broker(self, given: Mapping[str, str]) -> dict[str, str]:
        user = given.get("REDIS_USERNAME", "assay_web").removeprefix("assay_")
        parts = urlsplit(self.broker(user))
        if "REDIS_PASSWORD_FILE" in given:
            file = Path(given["REDIS_PASSWORD_FILE"])
            file.unlink(missing_ok=True)
            file.write_text(parts.password or "")
        return {"REDIS_URL": f"unix://{parts.path}"}

    def _moved(self, value: str, secrets: Path) -> str:
        """Return a value whose folders are on this machine."""
        places = {
            "%d": secrets,
            "/run/secrets/assay": secrets,
            "/run/secrets": secrets,
            "/run/broker/ca.crt": self.secrets / "valkey_ca",
            "/var/lib/assay-transparency": self.outside,
            "/var/lib/transparency": self.outside,
            "/opt/assay/static": self.static,
            "/var/lib/assay": self.data,
        }
        for elsewhere, place in places.items():
            if re.match(rf"{elsewhere}(/|$)", value):
                return f"{place}{value.removeprefix(elsewhere)}"
        if value.startswith("/var/"):
            place = _near(self.folder) / value.removeprefix("/var/").replace("/", "-")
            place.mkdir(exist_ok=True)
            return str(place)
        return value


@cache
def _near(folder: Path) -> Path:
    """A folder with a short path, such as sockets need, for what a machine keeps to itself."""
    made = Path(tempfile.mkdtemp(prefix="assay-var-"))
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    return made


def _interpolated(value: str) -> str:
    """Return a value of compose.yaml where the shell sets nothing; a required one is empty."""
    return re.sub(r"\$\{\w+(?::-([^}]*)|:\?[^}]*)\}", lambda found: found[1] or "", value)
