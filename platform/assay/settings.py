"""All settings, from the environment (https://12factor.net/config).

`NAME_FILE` names a file with the value of `NAME`, for secrets. Outside of `ASSAY_ENV=production`
missing secrets get a fixed development value; production refuses to start with a missing or
development secret, and the error names the setting.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
from ipaddress import ip_network
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from django.core.exceptions import ImproperlyConfigured

from assay.processes import check_process, holds
from assay.server.pooling import pool_options
from governance.audit.streaming.destinations import destinations_from
from governance.logs import log_warnings_and_crashes
from governance.reviews.reminders.channels import mail_server_from, webhook_from
from registry.media.limits import MediaLimits
from registry.sandbox.isolation import hide_process

# Every process with these settings has secrets, which other processes of this user could read in
# /proc.
hide_process()

DEVELOPMENT_SECRET = "development-only-not-a-secret"  # noqa: S105 (refused in production)
PACKAGE_DIR = Path(__file__).resolve().parent


def env(name: str, default: str | None = None) -> str:
    """Return the value of `name`, or the content of the file `name`_FILE, or `default`.

    Raises:
        ImproperlyConfigured: neither is set and there is no default.
    """
    if file := os.environ.get(f"{name}_FILE"):
        try:
            return Path(file).read_text(encoding="utf-8").strip()
        except OSError as error:
            raise ImproperlyConfigured(f"{name}_FILE={file} cannot be read: {error}.") from error
    value = os.environ.get(name, default)
    if value is None:
        raise ImproperlyConfigured(f"Set {name} (or {name}_FILE) in the environment.")
    return value


def env_bool(name: str, default: bool = False) -> bool:
    """Return `name` as a Boolean: 1, true, yes, on; 0, false, no, off."""
    value = env(name, "1" if default else "0").lower()
    if value in {"1", "true", "yes", "on"}:
        return True
    if value in {"0", "false", "no", "off", ""}:
        return False
    raise ImproperlyConfigured(f"{name}={value!r} is not a Boolean; set it to 1 or 0.")


def env_int(name: str, default: int, *, least: int | None = None) -> int:
    """Return `name` as an integer, at least `least`."""
    value = env(name, str(default))
    try:
        number = int(value)
    except ValueError as error:
        raise ImproperlyConfigured(f"{name}={value!r} is not a whole number.") from error
    if least is not None and number < least:
        raise ImproperlyConfigured(f"{name}={value!r} is too small; set it to {least} or more.")
    return number


def env_list(name: str, default: str = "") -> list[str]:
    """Return the comma-separated list in `name`."""
    return [item.strip() for item in env(name, default).split(",") if item.strip()]


def env_networks(name: str) -> list[str]:
    """Return the comma-separated list of addresses and CIDRs in `name`."""
    texts = env_list(name)
    for text in texts:
        try:
            ip_network(text)
        except ValueError as error:
            raise ImproperlyConfigured(
                f"{name} names {text!r}, which is neither an address nor a network such as "
                f"10.20.0.0/16 ({error})."
            ) from error
    return texts


def secret(name: str) -> str:
    """Return a secret that must be set in production; empty in a process that does not use it."""
    if not holds(PROCESS, name):
        return ""
    value = env(name, DEVELOPMENT_SECRET)
    if PRODUCTION and (value == DEVELOPMENT_SECRET or len(value) < 32):
        raise ImproperlyConfigured(
            f"{name} is missing, too short or the development value. Production needs a secret of "
            f"at least 32 characters in {name} or {name}_FILE."
        )
    return value


def process_secret(name: str) -> str:
    """Return a secret that only some processes of a kind have; these refuse to start without it."""
    if not holds(PROCESS, name):
        return ""
    value = env(name, "" if PRODUCTION else DEVELOPMENT_SECRET)
    if PRODUCTION and value and (value == DEVELOPMENT_SECRET or len(value) < 32):
        raise ImproperlyConfigured(
            f"{name} is too short or the development value. Production needs a secret of at least "
            f"32 characters in {name} or {name}_FILE."
        )
    return value


# A network may drop a connection to the database silently. After these seconds (milliseconds in the
# last one) the system closes it, so that no loop waits for hours.
DATABASE_SILENCE = {
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 25_000,
}


def database(url: str) -> dict[str, Any]:
    """Return Django's settings for a `postgresql://` URL; a Unix socket's folder is in `?host=`.

    Raises:
        ImproperlyConfigured: the URL has another scheme. PostgreSQL is the only database.
    """
    parts = urlsplit(url)
    if parts.scheme not in {"postgresql", "postgres"}:
        raise ImproperlyConfigured(
            f"DATABASE_URL has the scheme {parts.scheme!r}; Assay runs on PostgreSQL only. "
            "Set DATABASE_URL=postgresql://user:password@host:5432/assay."
        )
    query: dict[str, Any] = dict(parse_qsl(parts.query))
    # The platform's own processes see every department's rows; `governance.rowsecurity` restricts
    # requests.
    options = f"{query.pop('options', '')} -c assay.departments=*".strip()
    session: dict[str, str] = {}
    if WEB:
        # Defaults after a reset of the session, because Django sets the time zone only once.
        session = {"TimeZone": "UTC"} | {
            name: f"{seconds}s" for name, seconds in DATABASE_TIMEOUTS_S.items()
        }
        query["pool"] = pool_options(threads=WEB_THREADS, wait_s=DATABASE_POOL_WAIT_S)
    elif PROCESS:
        # Longer in migrations, since building an index concurrently waits for older transactions.
        patience = DATABASE_LOCK_TIMEOUT_S * (6 if PROCESS == "migrate" else 1)
        session = {"lock_timeout": f"{patience}s"}
    options += "".join(f" -c {name}={value}" for name, value in session.items())
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": unquote(parts.path.lstrip("/")),
        "USER": unquote(parts.username or ""),
        "PASSWORD": unquote(parts.password or "") or DATABASE_PASSWORD,
        "HOST": query.pop("host", parts.hostname or ""),
        "PORT": str(query.pop("port", parts.port or "")),
        # The web process returns connections to its pool; the threads of the others keep theirs.
        "CONN_MAX_AGE": 0 if WEB else 60,
        "CONN_HEALTH_CHECKS": True,
        "OPTIONS": {
            # Workers serve again soon after a network heals, so no attempt may wait for long.
            "connect_timeout": 3 if PROCESS in {"worker", "egress"} else 5,
            "application_name": f"assay-{PROCESS or 'manage'}",
            **DATABASE_SILENCE,
            "options": options,
            **query,
        },
    }


def broker_url(url: str) -> str:
    """Return `url` with REDIS_USERNAME and REDIS_PASSWORD, and for `rediss://` with REDIS_CA_PATH,
    REDIS_CERT_PATH and REDIS_KEY_PATH.

    Raises:
        ImproperlyConfigured: the scheme is wrong, a file is missing, or in production the broker is
            on the network and has no password.
    """
    parts = urlsplit(url)
    if parts.scheme not in {"redis", "rediss", "unix"}:
        raise ImproperlyConfigured(
            f"REDIS_URL has the scheme {parts.scheme!r}; set it to rediss://host:6379/0, "
            "redis://host:6379/0 or unix:///path/to/socket."
        )
    user, password = env("REDIS_USERNAME", ""), env("REDIS_PASSWORD", "")
    query = dict(parse_qsl(parts.query))
    netloc = parts.netloc
    if password:
        netloc = f"{quote(user, safe='')}:{quote(password, safe='')}@{netloc.rpartition('@')[2]}"
    elif NODE_URL:
        if parts.username or parts.password:
            raise ImproperlyConfigured(
                "REDIS_URL has a broker user; a node gets its own from the control plane. "
                "Set it to rediss://host:6379/0."
            )
    elif PRODUCTION and parts.scheme != "unix" and parts.password is None:
        raise ImproperlyConfigured(
            "REDIS_PASSWORD is missing: in production a broker on the network needs a user and a "
            "password, in REDIS_USERNAME and REDIS_PASSWORD or REDIS_PASSWORD_FILE."
        )
    if parts.scheme == "rediss":
        query.setdefault("ssl_cert_reqs", "required")
        for name, setting in (
            ("ssl_ca_certs", "REDIS_CA_PATH"),
            ("ssl_certfile", "REDIS_CERT_PATH"),
            ("ssl_keyfile", "REDIS_KEY_PATH"),
        ):
            if file := os.environ.get(setting):
                if not Path(file).is_file():
                    raise ImproperlyConfigured(f"{setting}={file} does not exist.")
                query[name] = file
    tail = f"?{urlencode(query, safe='/')}" if query else ""
    return f"{parts.scheme}://{netloc}{parts.path}{tail}"


ENVIRONMENT = env("ASSAY_ENV", "development")
if ENVIRONMENT not in {"development", "test", "production"}:
    raise ImproperlyConfigured(
        f"ASSAY_ENV={ENVIRONMENT!r}; set it to development, test or production."
    )
PRODUCTION = ENVIRONMENT == "production"
# One-click sign-in as personas on loopback, only for the demo.
DEMO = env_bool("ASSAY_DEMO")
if DEMO and PRODUCTION:
    raise ImproperlyConfigured("ASSAY_DEMO=1 is refused with ASSAY_ENV=production; unset it.")

# The kind of this process (`assay.processes`); may be unset in development.
PROCESS = env("ASSAY_PROCESS", "")
try:
    check_process(PROCESS, os.environ, production=PRODUCTION)
except ValueError as _error:
    raise ImproperlyConfigured(str(_error)) from None
# The only kind of process that uses a pool of database connections.
WEB = PROCESS == "web"
# A worker without access to the database and the store.
NODE = PROCESS == "node"
# The engine worker of hosted models.
EGRESS = PROCESS == "egress"
# Concurrent Django requests of one web process, and the maximum number and time of waiting ones.
WEB_THREADS = env_int("ASSAY_WEB_THREADS", 8, least=1)
WEB_QUEUE = env_int("ASSAY_WEB_QUEUE", 512, least=0)
WEB_QUEUE_WAIT_S = env_int("ASSAY_WEB_QUEUE_WAIT_S", 60, least=1)
# Concurrent downloads by nodes from one web process. One node may use as many as remain free.
WEB_DOWNLOADS = env_int("ASSAY_WEB_DOWNLOADS", 64, least=1)
# Client connections of one web process (`assay.server.connections`).
WEB_CONNECTIONS = env_int("ASSAY_WEB_CONNECTIONS", 1000, least=16)
# Time limits in seconds for a request's headers, its body (plus a second for each 16 KiB received),
# and for the client to read written bytes.
WEB_HEAD_TIMEOUT_S = env_int("ASSAY_WEB_HEAD_TIMEOUT_S", 15, least=1)
WEB_BODY_TIMEOUT_S = env_int("ASSAY_WEB_BODY_TIMEOUT_S", 30, least=1)
WEB_WRITE_TIMEOUT_S = env_int("ASSAY_WEB_WRITE_TIMEOUT_S", 30, least=1)
# Maximum wait of a web request for a database connection, in seconds.
DATABASE_POOL_WAIT_S = env_int("ASSAY_DATABASE_POOL_WAIT_S", 5, least=1)
# Maximum wait of a process for a database lock, in seconds; 0 sets no limit.
DATABASE_LOCK_TIMEOUT_S = env_int("ASSAY_DATABASE_LOCK_TIMEOUT_S", 10, least=0)
# PostgreSQL's timeouts for the web process; 0 disables one. A transaction is idle while an upload
# is stored, which takes minutes.
DATABASE_TIMEOUTS_S = {
    "statement_timeout": env_int("ASSAY_DATABASE_STATEMENT_TIMEOUT_S", 30, least=0),
    "lock_timeout": DATABASE_LOCK_TIMEOUT_S,
    "idle_in_transaction_session_timeout": env_int(
        "ASSAY_DATABASE_IDLE_IN_TRANSACTION_TIMEOUT_S", 600, least=0
    ),
}

DEBUG = False
# Django requires a key; a process that signs nothing gets a temporary one.
SECRET_KEY = secret("ASSAY_SECRET_KEY") or secrets.token_urlsafe(48)
# HMAC peppers for API keys by version; new keys use the highest, checks use all.
KEY_PEPPERS: dict[int, bytes] = {}
if holds(PROCESS, "ASSAY_KEY_PEPPER"):
    KEY_PEPPERS[1] = secret("ASSAY_KEY_PEPPER").encode()
    if env("ASSAY_KEY_PEPPER_2", ""):
        KEY_PEPPERS[2] = secret("ASSAY_KEY_PEPPER_2").encode()
# Seals requests and replies between gateways and engine workers; only these have it.
WIRE_KEY = process_secret("ASSAY_WIRE_KEY")
# Authenticates usage entries; only the web process and the controller have it.
USAGE_KEY = secret("ASSAY_USAGE_KEY")
# Secrets of providers are sealed to this public key (X25519, 64 hexadecimal digits).
EGRESS_PUBLIC_KEY = env("ASSAY_EGRESS_PUBLIC_KEY", "")
# The private keys that open them, the current one first; only egress workers have them.
EGRESS_KEYS = (
    [value for value in (env("ASSAY_EGRESS_KEY", ""), env("ASSAY_EGRESS_KEY_2", "")) if value]
    if holds(PROCESS, "ASSAY_EGRESS_KEY")
    else []
)
for _name, _values in (
    ("ASSAY_EGRESS_PUBLIC_KEY", [EGRESS_PUBLIC_KEY] if EGRESS_PUBLIC_KEY else []),
    ("ASSAY_EGRESS_KEY or ASSAY_EGRESS_KEY_2", EGRESS_KEYS),
):
    if not all(re.fullmatch("[0-9a-f]{64}", value) for value in _values):
        raise ImproperlyConfigured(
            f"{_name} is not a key: it needs 64 hexadecimal digits. `openssl rand -hex 32` makes "
            "a private key, and `assay manage egress_public_key` prints its public key."
        )
# Wrap departments' keys of the request log by version; the highest wraps new ones. Without one, no
# content is logged.
REQUEST_LOG_KEYS: dict[int, bytes] = {}
if request_log_key := process_secret("ASSAY_REQUEST_LOG_KEY"):
    REQUEST_LOG_KEYS[1] = request_log_key.encode()
if env("ASSAY_REQUEST_LOG_KEY_2", "") and holds(PROCESS, "ASSAY_REQUEST_LOG_KEY_2"):
    REQUEST_LOG_KEYS[2] = process_secret("ASSAY_REQUEST_LOG_KEY_2").encode()
# 32-byte Ed25519 seed in hexadecimal that signs audit checkpoints; only the controller has it. If
# unset outside of production, it is created in the data folder. The web process verifies with the
# public key.
AUDIT_SIGNING_KEY = env("ASSAY_AUDIT_SIGNING_KEY", "")
AUDIT_PUBLIC_KEY = env("ASSAY_AUDIT_PUBLIC_KEY", "")
if WEB and PRODUCTION and not AUDIT_PUBLIC_KEY:
    raise ImproperlyConfigured(
        "ASSAY_AUDIT_PUBLIC_KEY is missing: name+hash+base64, as `assay manage audit_public_key` "
        "prints it where ASSAY_AUDIT_SIGNING_KEY is set."
    )
if PROCESS == "controller" and PRODUCTION and len(AUDIT_SIGNING_KEY) != 64:
    raise ImproperlyConfigured(
        "ASSAY_AUDIT_SIGNING_KEY is missing: 64 hexadecimal digits (an Ed25519 seed), for example "
        "from `openssl rand -hex 32`, in ASSAY_AUDIT_SIGNING_KEY or ASSAY_AUDIT_SIGNING_KEY_FILE."
    )
# Public keys (name+hash+base64) of earlier checkpoints.
AUDIT_RETIRED_KEYS = env_list("ASSAY_AUDIT_RETIRED_KEYS")
AUDIT_LOG_NAME = env("ASSAY_AUDIT_LOG_NAME", "assay.example/audit")

# Destinations of audit events: a JSON list, see docs/how-to/stream-to-a-siem.md.
try:
    SIEM_STREAMS = destinations_from(env("ASSAY_SIEM_STREAMS", ""), production=PRODUCTION)
except ValueError as _error:
    raise ImproperlyConfigured(f"ASSAY_SIEM_STREAMS cannot be used: {_error}.") from None
# Review reminders are sent by mail through this server, and as signed POSTs to one URL.
try:
    MAIL_SERVER = mail_server_from(
        env("ASSAY_EMAIL_URL", ""), sender=env("ASSAY_EMAIL_FROM", "assay@localhost")
    )
except ValueError as _error:
    raise ImproperlyConfigured(f"ASSAY_EMAIL_URL cannot be used: {_error}.") from None
try:
    REVIEW_WEBHOOK = webhook_from(
        env("ASSAY_REVIEW_WEBHOOK_URL", ""),
        secret=env("ASSAY_REVIEW_WEBHOOK_SECRET", ""),
        ca_file=env("ASSAY_REVIEW_WEBHOOK_CA_FILE", ""),
        production=PRODUCTION,
    )
except ValueError as _error:
    raise ImproperlyConfigured(f"ASSAY_REVIEW_WEBHOOK_URL cannot be used: {_error}.") from None
# Time after which an event that a SIEM has not accepted raises an alarm, in seconds.
SIEM_ALARM_S = env_int("ASSAY_SIEM_ALARM_S", 300)

# The control plane of a node's workers, and the key file of this machine (`assay node join`).
NODE_URL = env("ASSAY_NODE_URL", "")
NODE_KEY_FILE = env("ASSAY_NODE_KEY_FILE", "")
if NODE_URL and not NODE_KEY_FILE:
    raise ImproperlyConfigured("ASSAY_NODE_KEY_FILE is missing; `assay node join` makes the file.")

DATA_DIR = Path(env("ASSAY_DATA_DIR", str(Path.cwd() / ".assay" / "data")))
# The artifact store; empty is the folder `artifacts` in DATA_DIR.
STORE_URL = env("ASSAY_STORE_URL", "")
if STORE_URL and not STORE_URL.startswith(("file:///", "s3://")):
    raise ImproperlyConfigured(
        f"ASSAY_STORE_URL={STORE_URL!r} is neither file:///folder nor s3://bucket/prefix."
    )
# Days after which unneeded objects are removed from the store; 0 for never.
STORE_GC_DAYS = env_int("ASSAY_STORE_GC_DAYS", 0, least=0)
# A store in a bucket. Without an access key here, boto3 finds credentials.
STORE_S3_ENDPOINT_URL = env("ASSAY_STORE_S3_ENDPOINT_URL", "")
STORE_S3_REGION = env("ASSAY_STORE_S3_REGION", "")
STORE_S3_PATH_STYLE = env_bool("ASSAY_STORE_S3_PATH_STYLE")
STORE_TIMEOUT_S = env_int("ASSAY_STORE_TIMEOUT_S", 30, least=1)
STORE_ACCESS_KEY_ID = env("ASSAY_STORE_ACCESS_KEY_ID", "")
STORE_SECRET_ACCESS_KEY = env("ASSAY_STORE_SECRET_ACCESS_KEY", "")
# Files of a remote store on this machine; empty is the folder `store-cache` in DATA_DIR.
STORE_CACHE_DIR = env("ASSAY_STORE_CACHE_DIR", "")
STORE_CACHE_BYTES = env_int("ASSAY_STORE_CACHE_BYTES", 50 * 1024**3, least=1)
# The second place for checkpoints and tiles: this folder, or the URL of another folder or a bucket,
# s3://bucket/prefix, whose objects are locked for some days. boto3 finds credentials.
AUDIT_PUBLISH_DIR = Path(env("ASSAY_AUDIT_PUBLISH_DIR", str(DATA_DIR / "transparency")))
AUDIT_PUBLISH_URL = env("ASSAY_AUDIT_PUBLISH_URL", "")
AUDIT_S3_ENDPOINT_URL = env("ASSAY_AUDIT_S3_ENDPOINT_URL", "")
AUDIT_S3_REGION = env("ASSAY_AUDIT_S3_REGION", "")
AUDIT_S3_RETENTION_DAYS = env_int("ASSAY_AUDIT_S3_RETENTION_DAYS", 365)
# Witnesses that cosign checkpoints: "verifier-key url", commas between.
AUDIT_WITNESSES = env_list("ASSAY_AUDIT_WITNESSES")
# Minimum interval between two publications, in seconds.
AUDIT_PUBLISH_INTERVAL_S = env_int(
    "ASSAY_AUDIT_PUBLISH_INTERVAL_S", 10 if "://" in AUDIT_PUBLISH_URL or AUDIT_WITNESSES else 1
)
# Seconds after which an alarm is raised for an unsealed event, a checkpoint that is not published,
# and a checkpoint without a witness's cosignature.
AUDIT_SEALING_ALARM_S = env_int("ASSAY_AUDIT_SEALING_ALARM_S", 10)
AUDIT_PUBLISH_ALARM_S = env_int("ASSAY_AUDIT_PUBLISH_ALARM_S", 60)
AUDIT_WITNESS_ALARM_S = env_int("ASSAY_AUDIT_WITNESS_ALARM_S", 300)
# Whole months after which bodies of events move to the second place; 0 keeps them here.
AUDIT_OFFLOAD_MONTHS = env_int("ASSAY_AUDIT_OFFLOAD_MONTHS", 0)
if AUDIT_OFFLOAD_MONTHS and AUDIT_OFFLOAD_MONTHS < 4:
    raise ImproperlyConfigured(
        "ASSAY_AUDIT_OFFLOAD_MONTHS is 0 or at least 4: pages read the bodies of the last months."
    )
# Maximum number of events in an export with proofs; the whole log is exported without proofs.
AUDIT_EXPORT_MAX_ROWS = env_int("ASSAY_AUDIT_EXPORT_MAX_ROWS", 250_000)

if PRODUCTION:
    for _name in ("REDIS_URL",) if NODE else ("DATABASE_URL", "REDIS_URL"):
        env(_name)
    if PROCESS in {"web", "controller"}:
        env("MLFLOW_TRACKING_URI")
DATABASE_URL = env("DATABASE_URL", "postgresql:///assay")
# Instead of a password in the URL, which is then not a secret.
DATABASE_PASSWORD = env("DATABASE_PASSWORD", "")
REDIS_URL = broker_url(env("REDIS_URL", "redis://127.0.0.1:6379/0"))
# Only for `manage.py write_broker_users`.
BROKER_PASSWORDS = {
    "web": env("ASSAY_BROKER_PASSWORD_WEB", ""),
    "controller": env("ASSAY_BROKER_PASSWORD_CONTROLLER", ""),
    "compute": env("ASSAY_BROKER_PASSWORD_COMPUTE", ""),
    "engine": env("ASSAY_BROKER_PASSWORD_ENGINE", ""),
    "admin": env("ASSAY_BROKER_PASSWORD_ADMIN", ""),
}
MLFLOW_TRACKING_URI = env("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
# MLflow's client also reads both from the environment.
MLFLOW_SERVER_CERTIFICATE = env("MLFLOW_TRACKING_SERVER_CERT_PATH", "")
MLFLOW_CLIENT_CERTIFICATE = env("MLFLOW_TRACKING_CLIENT_CERT_PATH", "")
# On a node, all database access fails at once.
DATABASES: dict[str, Any] = {} if NODE else {"default": database(DATABASE_URL)}
# Only for `manage.py apply_database_roles`.
DATABASE_ROLE_PASSWORDS = {
    "web": env("ASSAY_DATABASE_PASSWORD_WEB", ""),
    "controller": env("ASSAY_DATABASE_PASSWORD_CONTROLLER", ""),
    "worker": env("ASSAY_DATABASE_PASSWORD_WORKER", ""),
}

ALLOWED_HOSTS = env_list("ASSAY_ALLOWED_HOSTS", "" if PRODUCTION else "localhost,127.0.0.1,[::1]")
if WEB and PRODUCTION and not ALLOWED_HOSTS:
    raise ImproperlyConfigured("ASSAY_ALLOWED_HOSTS is empty; set it to the portal's host names.")
# URL of the portal, for links in messages to people.
PORTAL_URL = env(
    "ASSAY_PORTAL_URL",
    f"https://{ALLOWED_HOSTS[0].lstrip('.*') or 'localhost'}"
    if PRODUCTION and ALLOWED_HOSTS
    else "http://localhost:8000",
).rstrip("/")
if not re.fullmatch(r"https?://[^\s/?#@]+(/[^\s?#]*)?", PORTAL_URL):
    raise ImproperlyConfigured(
        "ASSAY_PORTAL_URL is not a URL; set it in the form https://assay.example."
    )
# Addresses or CIDRs of proxies whose X-Forwarded-For is trusted, so that other clients cannot forge
# an address.
TRUSTED_PROXIES = env_networks("ASSAY_TRUSTED_PROXIES")
CSRF_TRUSTED_ORIGINS = env_list("ASSAY_CSRF_TRUSTED_ORIGINS")

INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "assay.static_assets.StaticAssetsConfig",
    "django.contrib.postgres",
    "django.contrib.humanize",
    "rest_framework",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "csp",
    "allauth",
    "allauth.account",
    "allauth.mfa",
    "allauth.socialaccount",
    "allauth.socialaccount.providers.openid_connect",
    "allauth.usersessions",
    "governance",
    "registry",
    "workers",
    "assay",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "csp.middleware.CSPMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "assay.middleware.RequestContextMiddleware",
    "allauth.account.middleware.AccountMiddleware",
    "assay.accounts.middleware.SessionActivityMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
ROOT_URLCONF = "assay.urls"
ASGI_APPLICATION = "assay.asgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [PACKAGE_DIR / "portal" / "templates"],
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "assay.portal.context.navigation",
            ],
            "builtins": [
                "assay.portal.templatetags.assay",
                "assay.portal.templatetags.charts",
                "assay.portal.templatetags.comparison",
                "assay.portal.templatetags.dossiers",
                "assay.portal.templatetags.fields",
                "assay.portal.templatetags.layout",
                "assay.portal.templatetags.opens",
                "django.templatetags.static",
            ],
            "libraries": {},
            "string_if_invalid": "",
        },
    }
]
AUTH_USER_MODEL = "governance.Person"
AUTH_PASSWORD_VALIDATORS = [
    {
        "NAME": "django.contrib.auth.password_validation.MinimumLengthValidator",
        "OPTIONS": {"min_length": 12},
    },
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]
# Tests set hundreds of passwords, and a strong hash takes 0.36 s.
if ENVIRONMENT == "test":
    PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
AUTHENTICATION_BACKENDS = ["django.contrib.auth.backends.ModelBackend"]
# Second factors and passkeys, single sign-on, sessions: assay.accounts. There is no self-service
# sign-up and no e-mail; assay.accounts defines the sign-in's steps and refusals.
ACCOUNT_ADAPTER = "assay.accounts.adapters.AccountAdapter"
ACCOUNT_LOGIN_METHODS = {"email"}
ACCOUNT_SIGNUP_FIELDS = ["email*"]
ACCOUNT_USER_MODEL_USERNAME_FIELD = None
ACCOUNT_EMAIL_VERIFICATION = "none"
ACCOUNT_RATE_LIMITS = False
MFA_ADAPTER = "assay.accounts.adapters.SecondFactorAdapter"
MFA_SUPPORTED_TYPES = ["totp", "recovery_codes", "webauthn"]
MFA_PASSKEY_LOGIN_ENABLED = True
MFA_TOTP_ISSUER = "Assay"
MFA_TOTP_TOLERANCE = 1
MFA_RECOVERY_CODE_DIGITS = 10
# Roles that require a second factor for sign-in with a password; empty for none.
SECOND_FACTOR_ROLES = env_list("ASSAY_SECOND_FACTOR_ROLES", "admin")
# An OpenID Connect provider. Register the redirect URL /sign-in/sso/callback there.
OIDC_ISSUER = env("ASSAY_OIDC_ISSUER", "").rstrip("/")
OIDC_NAME = env("ASSAY_OIDC_NAME", "single sign-on")
OIDC_CLIENT_ID = env("ASSAY_OIDC_CLIENT_ID", "")
OIDC_CLIENT_SECRET = env("ASSAY_OIDC_CLIENT_SECRET", "")
OIDC_SCOPES = env_list("ASSAY_OIDC_SCOPES", "openid,profile,email")
OIDC_GROUPS_CLAIM = env("ASSAY_OIDC_GROUPS_CLAIM", "groups")
# Domains in which only the provider assigns e-mail addresses, but does not mark them as verified.
OIDC_EMAIL_DOMAINS = [domain.lower() for domain in env_list("ASSAY_OIDC_EMAIL_DOMAINS")]
# Create accounts for unknown people whom the provider has authenticated; roles come from groups.
OIDC_CREATE_PEOPLE = env_bool("ASSAY_OIDC_CREATE_PEOPLE", True)
if OIDC_ISSUER and not (OIDC_CLIENT_ID and OIDC_CLIENT_SECRET):
    raise ImproperlyConfigured(
        "ASSAY_OIDC_ISSUER is set, but ASSAY_OIDC_CLIENT_ID or ASSAY_OIDC_CLIENT_SECRET is not; "
        "set both, or none of the three."
    )
if PRODUCTION and OIDC_ISSUER and not OIDC_ISSUER.startswith("https://"):
    raise ImproperlyConfigured(
        f"ASSAY_OIDC_ISSUER={OIDC_ISSUER!r} is not https; its answers could be forged in transit."
    )
# People are identified by the provider's `sub`, so each provider needs its own namespace.
OIDC_PROVIDER = f"oidc-{hashlib.sha256(OIDC_ISSUER.encode()).hexdigest()[:16]}"
SOCIALACCOUNT_ADAPTER = "assay.accounts.adapters.SingleSignOnAdapter"
SOCIALACCOUNT_PROVIDERS = {
    "openid_connect": {
        "OAUTH_PKCE_ENABLED": True,
        "APPS": [
            {
                "provider_id": OIDC_PROVIDER,
                "name": OIDC_NAME,
                "client_id": OIDC_CLIENT_ID,
                "secret": OIDC_CLIENT_SECRET,
                "settings": {"server_url": OIDC_ISSUER, "scope": OIDC_SCOPES},
            }
        ]
        if OIDC_ISSUER
        else [],
    }
}
LOGIN_URL = "portal:login"
LOGIN_REDIRECT_URL = "portal:overview"
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = "Lax"
SESSION_COOKIE_AGE = 12 * 3600
CSRF_COOKIE_HTTPONLY = True
CSRF_FAILURE_VIEW = "assay.portal.views.errors.csrf_failure"
X_FRAME_OPTIONS = "DENY"
SECURE_REFERRER_POLICY = "same-origin"
SECURE_CROSS_ORIGIN_OPENER_POLICY = "same-origin"
if PRODUCTION:
    SESSION_COOKIE_SECURE = True
    CSRF_COOKIE_SECURE = True
    SECURE_SSL_REDIRECT = env_bool("ASSAY_SSL_REDIRECT", True)
    SECURE_HSTS_SECONDS = env_int("ASSAY_HSTS_SECONDS", 31536000)
    SECURE_HSTS_INCLUDE_SUBDOMAINS = True
    if env_bool("ASSAY_BEHIND_TLS_PROXY"):
        SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": ["'self'"],
        # blob: for images and recordings that a person chose in the playground or received there.
        "img-src": ["'self'", "data:", "blob:"],
        "media-src": ["'self'", "blob:"],
        "object-src": ["'none'"],
        "base-uri": ["'none'"],
        "form-action": ["'self'"],
        "frame-ancestors": ["'none'"],
    }
}

STATIC_URL = "static/"
STATIC_ROOT = Path(env("ASSAY_STATIC_ROOT", str(Path.cwd() / "staticfiles")))
STATICFILES_DIRS = [("assay", PACKAGE_DIR / "portal" / "static")]
# Serve the files from `collectstatic`: compressed, fingerprinted, cached for a year. Otherwise
# serve the source files.
STATIC_COLLECTED = env_bool("ASSAY_STATIC_COLLECTED", PRODUCTION)
WHITENOISE_USE_FINDERS = not STATIC_COLLECTED
# Source maps are only loaded for debugging, so they are not compressed.
WHITENOISE_SKIP_COMPRESS_EXTENSIONS = ("map", "woff", "woff2", "png", "gz", "br")
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {
        "BACKEND": "whitenoise.storage.CompressedManifestStaticFilesStorage"
        if STATIC_COLLECTED
        else "django.contrib.staticfiles.storage.StaticFilesStorage"
    },
}

# State shared by all web processes, such as used identity tokens.
CACHES = {
    "default": {
        "BACKEND": "django.core.cache.backends.redis.RedisCache",
        "LOCATION": REDIS_URL,
        "KEY_PREFIX": "assay:cache",
    }
}

LANGUAGE_CODE = "en-us"
TIME_ZONE = "UTC"
USE_TZ = True
USE_I18N = False

# All input is bounded.
DATA_UPLOAD_MAX_MEMORY_SIZE = 2 * 1024 * 1024
# Enough for the most rows that can be selected, and the other fields of the form.
DATA_UPLOAD_MAX_NUMBER_FIELDS = 250
DATA_UPLOAD_MAX_NUMBER_FILES = 512
# Folder for incomplete uploads, which belongs to the web process and is not shared.
UPLOAD_DIR = Path(env("ASSAY_UPLOAD_DIR", str(DATA_DIR.absolute().parent / "uploads")))
FILE_UPLOAD_TEMP_DIR = str(UPLOAD_DIR) if WEB else None
FILE_UPLOAD_HANDLERS = ["django.core.files.uploadhandler.TemporaryFileUploadHandler"]
INTAKE_MAX_BYTES = env_int("ASSAY_INTAKE_MAX_BYTES", 20 * 1024**3)
# Indexes and texts of knowledge bases that one gateway process keeps in memory.
KNOWLEDGE_CACHE_BYTES = env_int("ASSAY_KNOWLEDGE_CACHE_BYTES", 512 * 1024**2)
DOCUMENT_MAX_BYTES = env_int("ASSAY_DOCUMENT_MAX_BYTES", 32 * 1024**2)
DATASET_MAX_BYTES = env_int("ASSAY_DATASET_MAX_BYTES", 512 * 1024**2)
# Maximum size of one image or recording in a request, an answer or a dataset.
MEDIA_MAX_BYTES = env_int("ASSAY_MEDIA_MAX_BYTES", 25 * 1024**2, least=1)
MEDIA_LIMITS = MediaLimits(
    bytes=MEDIA_MAX_BYTES,
    pixels=env_int("ASSAY_MEDIA_MAX_PIXELS", 40_000_000, least=1),
    side=env_int("ASSAY_MEDIA_MAX_SIDE", 16_384, least=1),
    seconds=env_int("ASSAY_MEDIA_MAX_SECONDS", 1800, least=1),
    channels=env_int("ASSAY_MEDIA_MAX_CHANNELS", 2, least=1),
    frames=env_int("ASSAY_MEDIA_MAX_FRAMES", 1_000, least=2),
    video_pixels=env_int("ASSAY_MEDIA_MAX_VIDEO_PIXELS", 100_000_000, least=1),
)
# Time for which media of requests and results are kept, in seconds, and their total size.
MEDIA_STORE_S = env_int("ASSAY_MEDIA_STORE_S", 900, least=60)
MEDIA_STORE_BYTES = env_int("ASSAY_MEDIA_STORE_BYTES", 4 * 1024**3, least=1)
# Maximum body of a request that sends a part of an upload.
UPLOAD_CHUNK_BYTES = 16 * 1024**2
# Hours after the last byte when an unfinished upload is removed, and the total size of uploads.
UPLOAD_HOURS = env_int("ASSAY_UPLOAD_HOURS", 24, least=1)
UPLOAD_TOTAL_BYTES = env_int("ASSAY_UPLOAD_TOTAL_BYTES", 80 * 1024**3)
GATEWAY_MAX_BODY_BYTES = env_int("ASSAY_GATEWAY_MAX_BODY_BYTES", 1024 * 1024)
# Maximum size of one file of /v1/files and of all files of a department; days until deletion.
FILE_MAX_BYTES = env_int("ASSAY_FILE_MAX_BYTES", 200 * 1024**2, least=1)
FILES_DEPARTMENT_BYTES = env_int("ASSAY_FILES_DEPARTMENT_BYTES", 5 * 1024**3, least=1)
FILE_RETENTION_DAYS = env_int("ASSAY_FILE_RETENTION_DAYS", 30, least=1)
# Maximum requests in one batch, concurrent requests of one batch, and of all batches on one
# deployment.
BATCH_MAX_REQUESTS = env_int("ASSAY_BATCH_MAX_REQUESTS", 50_000, least=1)
BATCH_CONCURRENCY = env_int("ASSAY_BATCH_CONCURRENCY", 4, least=1)
BATCH_DEPLOYMENT_LINES = env_int("ASSAY_BATCH_DEPLOYMENT_LINES", 8, least=1)
# Maximum requests that wait in the queue of one deployment.
GATEWAY_QUEUE_MAX = env_int("ASSAY_GATEWAY_QUEUE_MAX", 1000)
GATEWAY_REQUEST_TIMEOUT_S = env_int("ASSAY_GATEWAY_REQUEST_TIMEOUT_S", 120)
# Longest wait of a request for a deployment that is scaled to zero, in seconds.
GATEWAY_COLD_START_S = env_int("ASSAY_GATEWAY_COLD_START_S", 30, least=0)
METRICS_TOKEN = env("ASSAY_METRICS_TOKEN", "")
# Bearer token of the identity provider for /scim/v2/; SCIM is off without it.
SCIM_TOKEN = env("ASSAY_SCIM_TOKEN", "")
if SCIM_TOKEN and PRODUCTION and len(SCIM_TOKEN) < 32:
    raise ImproperlyConfigured(
        "ASSAY_SCIM_TOKEN is too short: production needs at least 32 characters in "
        "ASSAY_SCIM_TOKEN or ASSAY_SCIM_TOKEN_FILE; unset it to switch provisioning off."
    )
GATEWAY_SNAPSHOT_TTL_S = env_int("ASSAY_GATEWAY_SNAPSHOT_TTL_S", 5)
# A deployment stops serving if the controller has not confirmed it for this many seconds.
SERVING_LEASE_S = env_int("ASSAY_SERVING_LEASE_S", 30)
if SERVING_LEASE_S < 3 * GATEWAY_SNAPSHOT_TTL_S:
    raise ImproperlyConfigured(
        "ASSAY_SERVING_LEASE_S is too short: it needs at least three times "
        "ASSAY_GATEWAY_SNAPSHOT_TTL_S, or gateways miss renewals."
    )
# Controllers that should run; fewer raise an alert.
CONTROLLERS = env_int("ASSAY_CONTROLLERS", 1, least=1)
# Maximum duration of emergency access in hours, at most 24.
EMERGENCY_ACCESS_MAX_HOURS = min(24, max(1, env_int("ASSAY_EMERGENCY_ACCESS_MAX_HOURS", 8)))
# Currency of all amounts; a label only, amounts are not converted.
CURRENCY = env("ASSAY_CURRENCY", "EUR")
# Device time in seconds that a job reserves if none of its kind has run in its department yet.
JOB_RESERVE_S = env_int("ASSAY_JOB_RESERVE_S", 600)
# Interval of comparing the counters with the ledger, in seconds; missing ones are rebuilt at once.
QUOTA_RECONCILE_S = env_int("ASSAY_QUOTA_RECONCILE_S", 600)

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "assay.api.authentication.TokenAuthentication",
        "assay.api.authentication.SessionAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["assay.api.authentication.HasPrincipal"],
    "DEFAULT_PAGINATION_CLASS": "assay.api.pagination.CursorPagination",
    "DEFAULT_PARSER_CLASSES": ["rest_framework.parsers.JSONParser"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "EXCEPTION_HANDLER": "assay.api.problems.exception_handler",
    "PAGE_SIZE": 25,
    "UNAUTHENTICATED_USER": None,
    # The path or `Accept` selects a format; `?format=` is an unknown parameter.
    "URL_FORMAT_OVERRIDE": None,
}
SPECTACULAR_SETTINGS = {
    "TITLE": "Assay management API",
    "DESCRIPTION": "Every step from intake to a governed answer. Errors are RFC 9457 problems.",
    "VERSION": "1",
    "POSTPROCESSING_HOOKS": [
        "drf_spectacular.hooks.postprocess_schema_enums",
        "assay.api.documentation.add_problems",
    ],
    "SERVE_INCLUDE_SCHEMA": False,
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "REDOC_DIST": "SIDECAR",
    "COMPONENT_SPLIT_REQUEST": True,
    "ENUM_GENERATE_CHOICE_DESCRIPTION": False,
    "PATH_CONVERTER_OVERRIDES": {
        "id": {"type": "integer", "minimum": 1, "maximum": 10**18 - 1},
        "slug": {"type": "string", "pattern": "^[-a-zA-Z0-9_]+$"},
    },
    "ENUM_NAME_OVERRIDES": {"KeyStateEnum": "assay.api.views.keys.STATES"},
}

CELERY_BROKER_URL = REDIS_URL.replace("unix://", "redis+socket://", 1)
if NODE_URL:
    CELERY_BROKER_URL += "&" if "?" in CELERY_BROKER_URL else "?"
    CELERY_BROKER_URL += "credential_provider=workers.broker.NodeCredentials"
# Otherwise any client that can publish on the broker could shut workers down; see workers.presence.
CELERY_WORKER_ENABLE_REMOTE_CONTROL = False
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_ACKS_LATE = False
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_TASK_SERIALIZER = "json"
CELERY_ACCEPT_CONTENT = ["json"]
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
# A worker waits for the broker however long that is away; it keeps its models loaded.
CELERY_BROKER_CONNECTION_MAX_RETRIES = None
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_TASK_DEFAULT_QUEUE = "compute"

JOB_LEASE_S = env_int("ASSAY_JOB_LEASE_S", 30)
JOB_MAX_ATTEMPTS = env_int("ASSAY_JOB_MAX_ATTEMPTS", 3)
# Maximum devices and memory of one machine, and machines, that one job may request, according to
# the largest machine of this installation and its cluster. Enrolled nodes report their own. Memory
# of 0 means unknown.
JOB_MAX_DEVICES = env_int("ASSAY_JOB_MAX_DEVICES", 1, least=1)
JOB_MAX_MEMORY_GIB = env_int("ASSAY_JOB_MAX_MEMORY_GIB", 0)
JOB_MAX_NODES = env_int("ASSAY_JOB_MAX_NODES", 1, least=1)
# Percentage of the memory of the machine, container or unit for a job that requests none.
# Concurrent jobs share 80%.
JOB_MEMORY_PERCENT = env_int(
    "ASSAY_JOB_MEMORY_PERCENT",
    max(1, 80 // env_int("ASSAY_WORKER_CONCURRENCY", 1, least=1)),
    least=1,
)
# The launcher of this worker's runs: `local` forks them, `slurm` and `kubernetes` submit them.
LAUNCHER = env("ASSAY_LAUNCHER", "local")
SLURM_PYTHON = env("ASSAY_SLURM_PYTHON", "")
SLURM_PARTITION = env("ASSAY_SLURM_PARTITION", "")
SLURM_ACCOUNT = env("ASSAY_SLURM_ACCOUNT", "")
# A device of a job is a GPU if true; otherwise it is a process on CPUs.
SLURM_GPUS = env_bool("ASSAY_SLURM_GPUS")
SLURM_PORT = env_int("ASSAY_SLURM_PORT", 29_400, least=1024)
KUBERNETES_NAMESPACE = env("ASSAY_KUBERNETES_NAMESPACE", "")
KUBERNETES_RUNTIME = env("ASSAY_KUBERNETES_RUNTIME", "assay-run")
# Kubernetes resource for a device of a job; `cpu` if it is a process on CPUs.
KUBERNETES_DEVICE = env("ASSAY_KUBERNETES_DEVICE", "nvidia.com/gpu")
KUBERNETES_QUEUE = env("ASSAY_KUBERNETES_QUEUE", "")
KUBERNETES_WAIT_MINUTES = env_int("ASSAY_KUBERNETES_WAIT_MINUTES", 60, least=1)
KUBERNETES_CONFIG = env("ASSAY_KUBERNETES_CONFIG", "")
# Concurrent jobs of a department without its own limit; 0: no limit.
JOBS_AT_ONCE = env_int("ASSAY_JOBS_AT_ONCE", 0, least=0)
# Wait of the first job in line after which a running job is preempted, in seconds; 0: never.
PREEMPT_AFTER_S = env_int("ASSAY_PREEMPT_AFTER_SECONDS", 0, least=0)
# Concurrent jobs of all compute workers of one node.
NODE_JOBS_AT_ONCE = env_int("ASSAY_NODE_JOBS_AT_ONCE", 8, least=1)
# Maximum bytes of all files that one job may deliver.
JOB_OUTPUT_MAX_BYTES = env_int("ASSAY_JOB_OUTPUT_MAX_BYTES", 512 * 1024**3, least=1)
# Threads that torch may use in an engine worker: one fewer than the cores, so that the other
# process does not starve the matrix product (measured: 108 against 24 tokens/s).
ENGINE_THREADS = env_int("ASSAY_ENGINE_THREADS", max(1, (os.cpu_count() or 2) - 1))
# Maximum memory of an engine's server, such as llama.cpp's, including its child processes.
ENGINE_SERVER_MEMORY = env_int("ASSAY_ENGINE_SERVER_MEMORY_BYTES", 16 * 1024**3, least=2**28)
# Start such a server even if this kernel's Landlock cannot confine it to its own files.
ENGINE_SERVER_UNCONFINED = env_bool("ASSAY_ENGINE_SERVER_UNCONFINED")
# Python of the environment with vLLM; empty if the worker does not offer it.
VLLM_PYTHON = env("ASSAY_VLLM_PYTHON", "")
# Time after which an engine's batch counts as hung, in seconds.
ENGINE_BATCH_TIMEOUT_S = env_int("ASSAY_ENGINE_BATCH_TIMEOUT_S", 300, least=1)
# Concurrent requests of one engine worker; more stay in the queue for other workers.
# An egress worker holds each as an open connection without a thread.
ENGINE_REQUESTS = env_int("ASSAY_ENGINE_REQUESTS", 4096 if EGRESS else 128, least=1)
# Names of hosts, in lower case, that egress workers may reach although their addresses are private,
# and by plain HTTP.
EGRESS_INTERNAL_HOSTS = [name.lower() for name in env_list("ASSAY_EGRESS_INTERNAL_HOSTS")]
# HTTP proxy for all other hosts, and certificates that are trusted in addition to the system's.
EGRESS_PROXY = env("ASSAY_EGRESS_PROXY", "")
if EGRESS_PROXY and urlsplit(EGRESS_PROXY).scheme not in {"http", "https"}:
    raise ImproperlyConfigured(
        "ASSAY_EGRESS_PROXY is not a proxy's URL; set it to http://proxy.example:3128."
    )
EGRESS_CA_FILE = env("ASSAY_EGRESS_CA_FILE", "")
# Time limits of an exchange with a provider, in seconds: for the connection, until a streamed
# answer begins, and between two lines of it.
EGRESS_CONNECT_TIMEOUT_S = env_int("ASSAY_EGRESS_CONNECT_TIMEOUT_S", 10, least=1)
EGRESS_FIRST_BYTE_TIMEOUT_S = env_int("ASSAY_EGRESS_FIRST_BYTE_TIMEOUT_S", 120, least=1)
EGRESS_IDLE_TIMEOUT_S = env_int("ASSAY_EGRESS_IDLE_TIMEOUT_S", 60, least=1)
# Percentage of the memory of its GPU, or of its machine or container, that the models of an engine
# worker may take; and labels that deployments may require.
WORKER_MEMORY_PERCENT = env_int("ASSAY_WORKER_MEMORY_PERCENT", 80, least=1)
WORKER_LABELS = env_list("ASSAY_WORKER_LABELS")
# Time for which a worker that cannot reach the control plane keeps its models loaded, in seconds,
# without answering once their leases are over.
WORKER_KEEP_S = env_int("ASSAY_WORKER_KEEP_S", 3600, least=1)
# Time without a request after which a deployment with a minimum of zero replicas is unloaded.
PLACEMENT_IDLE_S = env_int("ASSAY_PLACEMENT_IDLE_S", 900, least=10)
# Threads that torch may use for one job of a compute worker.
COMPUTE_THREADS = env_int("ASSAY_COMPUTE_THREADS", os.cpu_count() or 1, least=1)

LOG_LEVEL = env("ASSAY_LOG_LEVEL", "INFO")
LOG_FORMAT = env("ASSAY_LOG_FORMAT", "json" if PRODUCTION else "text")
if LOG_FORMAT not in {"json", "text"}:
    raise ImproperlyConfigured(f"ASSAY_LOG_FORMAT={LOG_FORMAT!r} is unknown; set json or text.")
if LOG_FORMAT == "json":
    log_warnings_and_crashes()
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "filters": {"request_id": {"()": "governance.logs.RequestIdFilter"}},
    "formatters": {
        "text": {"format": "%(asctime)s %(levelname)s %(name)s [%(request_id)s] %(message)s"},
        "json": {"()": "governance.logs.JsonFormatter", "process": PROCESS},
    },
    "handlers": {
        "console": {
            "class": "logging.StreamHandler",
            "formatter": LOG_FORMAT,
            "filters": ["request_id"],
        },
    },
    "root": {"handlers": ["console"], "level": LOG_LEVEL},
    "loggers": {
        "django.request": {"level": "ERROR"},
        # Requests with a wrong host or too many fields are answered with 400. Without this, each
        # one-line request of a stranger would log a page.
        "django.security": {"level": "CRITICAL"},
        "django.security.csrf": {"level": "WARNING"},
        "botocore": {"level": "WARNING"},
        "httpx": {"level": "WARNING"},
        "fido2": {"level": "WARNING"},
        "fontTools": {"level": "WARNING"},
        "fpdf": {"level": "WARNING"},
        # At DEBUG these log metadata of files, and URLs with their queries.
        "PIL": {"level": "INFO"},
        "httpcore": {"level": "WARNING"},
        "urllib3": {"level": "WARNING"},
    },
}
