"""Synonyms for the search: words that people type instead of those in titles."""

from __future__ import annotations

QUERY_MAX = 64
WORDS_MAX = 6
# Synonyms of a word in the title of a page or an action.
SYNONYMS = {
    "absences": "vacation holiday leave deputy away",
    "account": "2fa mfa otp passkeys password profile settings authenticator",
    "api": "token credentials apikey",
    "assign": "delegate reviewers",
    "audit": "logs history trail",
    "batches": "bulk",
    "budgets": "quotas limits spending costs money prices billing",
    "checkpoints": "merkle proofs seals",
    "compare": "diff versus side-by-side",
    "credentials": "secrets providers openai azure bedrock vertex entra passwords",
    "dark": "night theme appearance",
    "department": "team tenant organization",
    "departments": "teams tenants organizations",
    "deploy": "ship publish promote serve",
    "deployments": "endpoints serving services production live",
    "emergency": "break override",
    "evaluate": "test benchmark measure",
    "explain": "why denied",
    "fine-tune": "train training finetune lora",
    "groups": "teams scim",
    "health": "status monitoring uptime doctor checks alarms queues",
    "incident": "outage problem bug",
    "incidents": "outages problems bugs",
    "invite": "add new users members",
    "jobs": "runs experiments training queues",
    "knowledge": "rag documents retrieval",
    "light": "day theme appearance",
    "models": "registry versions",
    "operations": "nodes gpus machines workers servers cluster",
    "overview": "home dashboard start",
    "people": "users members accounts employees",
    "playground": "chat try prompt",
    "policy": "permissions rules access rbac authorization",
    "recall": "withdraw ban block",
    "release": "ship publish promote approval",
    "retention": "archive export parquet drop partitions months growth",
    "reviews": "approvals approve pending",
    "requests": "log traces prompts answers completions",
    "roll": "rollback revert undo",
    "scale": "replicas autoscale instances",
    "schedules": "cron recurring repeat",
    "sign": "login logout log-out sso saml oidc idp",
    "stop": "retire shutdown delete undeploy kill",
    "streaming": "siem splunk",
    "system": "theme appearance",
    "tasks": "todo inbox pending",
    "upload": "import deliver",
    "usage": "costs spending billing consumption",
    "who": "permissions access",
}
# Shorter words would match too many synonyms.
_SYNONYM_MIN = 3


def meanings(text: str) -> list[list[str]]:
    """Return each word of `text` in lower case, followed by the words of titles that it may mean.

    Characters beyond `QUERY_MAX` are ignored.
    """
    words = text.replace("\x00", "")[:QUERY_MAX].lower().split()[:WORDS_MAX]
    return [[word, *_meant_by(word)] for word in words]


def _meant_by(word: str) -> list[str]:
    if len(word) < _SYNONYM_MIN:
        return []
    return [
        title_word
        for title_word, synonyms in SYNONYMS.items()
        # "approv" and "approvals" both match "approval".
        if any(
            each.startswith(word) or (len(each) > _SYNONYM_MIN and word.startswith(each))
            for each in synonyms.split()
        )
    ]
