"""The kinds of process, and the secrets that each of them has.

A compromised process reveals its secrets, so each has only those that its own code uses. In
production a process with a secret of another kind does not start.
"""

from __future__ import annotations

from collections.abc import Mapping

# `broker_users` writes the access control file of the broker, then exits.
# `node` is a worker on a separate machine, without access to the database and the store.
# `egress` is the engine worker of hosted models, the only process that calls providers.
PROCESSES = ("web", "controller", "worker", "egress", "node", "migrate", "broker_users")
# Settings that a node must not have, in addition to other processes' secrets.
_NOT_ON_NODES = (
    "DATABASE_URL",
    "DATABASE_PASSWORD",
    "ASSAY_STORE_URL",
    "ASSAY_STORE_SECRET_ACCESS_KEY",
    "ASSAY_WIRE_KEY",
    "REDIS_PASSWORD",
)

HOLDERS: dict[str, tuple[str, ...]] = {
    "ASSAY_SECRET_KEY": ("web",),
    # `bootstrap`, run by `migrate`, creates the first administrator's one-time link.
    "ASSAY_KEY_PEPPER": ("web", "migrate"),
    "ASSAY_KEY_PEPPER_2": ("web", "migrate"),
    "ASSAY_REQUEST_LOG_KEY": ("web",),
    "ASSAY_REQUEST_LOG_KEY_2": ("web",),
    "ASSAY_METRICS_TOKEN": ("web",),
    "ASSAY_OIDC_CLIENT_SECRET": ("web",),
    "ASSAY_SCIM_TOKEN": ("web",),
    "ASSAY_AUDIT_SIGNING_KEY": ("controller",),
    "ASSAY_USAGE_KEY": ("web", "controller"),
    # Only workers that serve have it.
    "ASSAY_WIRE_KEY": ("web", "worker", "egress"),
    # The web process shows destinations of events and due notices; the controller sends them.
    "ASSAY_EMAIL_URL": ("web", "controller"),
    "ASSAY_REVIEW_WEBHOOK_SECRET": ("web", "controller"),
    "ASSAY_SIEM_STREAMS": ("web", "controller"),
    # Open the credentials of providers; only egress workers call these.
    "ASSAY_EGRESS_KEY": ("egress",),
    "ASSAY_EGRESS_KEY_2": ("egress",),
    "ASSAY_DATABASE_PASSWORD_WEB": ("migrate",),
    "ASSAY_DATABASE_PASSWORD_CONTROLLER": ("migrate",),
    "ASSAY_DATABASE_PASSWORD_WORKER": ("migrate",),
    "ASSAY_BROKER_PASSWORD_WEB": ("broker_users",),
    "ASSAY_BROKER_PASSWORD_CONTROLLER": ("broker_users",),
    "ASSAY_BROKER_PASSWORD_COMPUTE": ("broker_users",),
    "ASSAY_BROKER_PASSWORD_ENGINE": ("broker_users",),
    "ASSAY_BROKER_PASSWORD_ADMIN": ("broker_users",),
}


# Settings other than secrets that some processes need. `migrate` restores backups, and compares
# each with the log that was published after it.
READERS: dict[str, tuple[str, ...]] = {
    "ASSAY_AUDIT_PUBLIC_KEY": ("web", "migrate"),
    "ASSAY_AUDIT_RETIRED_KEYS": ("web", "controller", "migrate"),
    "ASSAY_AUDIT_PUBLISH_DIR": ("web", "controller", "migrate"),
    "ASSAY_AUDIT_PUBLISH_URL": ("web", "controller", "migrate"),
    "ASSAY_AUDIT_S3_ENDPOINT_URL": ("web", "controller", "migrate"),
    "ASSAY_AUDIT_S3_REGION": ("web", "controller", "migrate"),
    "ASSAY_AUDIT_WITNESSES": ("web", "controller", "migrate"),
    # Of all installations, two; the portal says when one is missing.
    "ASSAY_CONTROLLERS": ("web", "controller"),
}


def holds(process: str, secret: str) -> bool:
    """Return true if `process` uses the secret. An empty kind, as in development, uses all."""
    return not process or process in HOLDERS[secret]


def check_process(process: str, environment: Mapping[str, str], *, production: bool) -> None:
    """Raise ValueError if the kind is unknown, or in production missing or set with a secret that
    it does not use."""
    kinds = ", ".join(PROCESSES)
    if process and process not in PROCESSES:
        raise ValueError(f"ASSAY_PROCESS={process!r} is unknown; set it to one of {kinds}.")
    if process == "node":
        for name in _NOT_ON_NODES:
            if environment.get(name) or environment.get(f"{name}_FILE"):
                raise ValueError(
                    f"{name} is set, but ASSAY_PROCESS=node reaches neither the database nor the "
                    "store, and gets its user of the broker from the control plane. Remove it from "
                    "this machine."
                )
        for name in ("ASSAY_NODE_URL", "ASSAY_NODE_KEY_FILE"):
            if not environment.get(name):
                raise ValueError(
                    f"{name} is missing: ASSAY_PROCESS=node needs it to reach the control plane. "
                    "`assay node join URL` creates the key file."
                )
    if not production:
        return
    if not process:
        raise ValueError(
            f"ASSAY_PROCESS is missing: production needs to know which process this is, one of "
            f"{kinds}, so that it has no secrets of another."
        )
    for secret, holders in HOLDERS.items():
        for name in (secret, f"{secret}_FILE"):
            if process not in holders and environment.get(name):
                raise ValueError(
                    f"{name} is set, but ASSAY_PROCESS={process} does not use it; only "
                    f"{' and '.join(holders)} may hold it. Remove it from this process."
                )
