"""Every service that the policy lets people use either needs a fresh second factor, or is exempt by
name: `authorize_binding` and `require_proof` are found in the code, not in a list.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

pytestmark = pytest.mark.sweep

ROOT = Path(__file__).parents[2]
SOURCES = ("governance", "registry", "workers", "platform/assay/accounts")
PROVES = frozenset({"authorize_binding", "proof_for", "require_proof"})
GATES = frozenset({"authorize", "authorize_binding"})
READING = frozenset({"VIEW", "EXPLAIN", "EXPORT", "EVIDENCE"})
# Functions that ask the policy about a change and need no second factor, each with the reason. The
# tests in tests/abuse/test_step_up.py say the same of the operations that call them.
ASKS = "asks for something that somebody else decides with a second factor"
BUILDS = "makes a thing of the department, which serves nothing before a review has approved it"
HELPER = "finds the object; whoever calls it proves"
LETS = "lets a body be read; the service that takes it asks again"
PROTECTS = "takes access or service away, and must be possible at once in an emergency"
PROVIDER = "acts for the identity provider, whose groups mean what two administrators mapped"
RUNS = "runs or stops what reviews have approved; it grants nothing"
SAYS = "says something in a review; an approval past it needs a second factor"
EXEMPT = {
    "_apply": PROVIDER,
    "_authorize_in": HELPER,
    "_authorized": HELPER,
    "chain_draft_checked": HELPER,
    "credential_revoke": PROTECTS,
    "_decides": HELPER,
    "_locked_access": HELPER,
    "_reportable": HELPER,
    "locked": HELPER,
    "_releases_permitted": HELPER,
    "_target_insert": HELPER,
    "_absentee": HELPER,
    "_allowed": HELPER,
    "absence_end": PROTECTS,
    "recovery_reject": PROTECTS,
    "access_request_decline": "closes a request, and gives nobody anything",
    "emergency_access_request": ASKS,
    "checklist_attest": "counts only with an approval, which needs a second factor",
    "comment_write": SAYS,
    "dataset_create": BUILDS,
    "dataset_media_open": "opens a file of rows that were unmasked before",
    "dataset_unmask": "shows rows of the department to its own people, and is an event",
    "dataset_version_add": BUILDS,
    "dataset_version_allow": LETS,
    "department_create": "an empty department gives nobody anything",
    "deployment_create": RUNS,
    "deployment_rollback": RUNS,
    "deployment_place": RUNS,
    "deployment_stop": RUNS,
    "directory_group_change": PROVIDER,
    "directory_group_create": PROVIDER,
    "directory_group_delete": PROVIDER,
    "document_draft_delete": BUILDS,
    "document_read": "reads",
    "document_version_add": BUILDS,
    "document_version_allow": LETS,
    "document_version_publish": "puts a document of the department in force, which can be recalled",
    "draft_create": ASKS,
    "_reviewed": "feedback becomes data, which serves nothing before a review has approved it",
    "feedback_create": SAYS,
    "feedback_erase": PROTECTS,
    "gate_set": BUILDS,
    "batch_cancel": PROTECTS,
    "batch_create": "each line runs as a request of the key would, under every rule",
    "chat_label": "words of the key's own department on what it stored",
    "file_check": HELPER,
    "file_create": "the bytes of the key's own department, which nothing runs by itself",
    "file_delete": PROTECTS,
    "incident_for_change": HELPER,
    "intake_allow": LETS,
    "hosted_request": ASKS,
    "intake_request": ASKS,
    "intake_submit": ASKS,
    "request_check": HELPER,
    "job_cancel": RUNS,
    "job_clone": BUILDS,
    "job_prioritize": RUNS,
    "job_pause": RUNS,
    "job_resume": RUNS,
    "job_retry": BUILDS,
    "index_request": BUILDS,
    "job_create": BUILDS,
    "key_revoke": PROTECTS,
    "knowledge_base_create": BUILDS,
    "members_sync": PROVIDER,
    "model_create": BUILDS,
    "person_deprovision": PROVIDER,
    "person_provision": PROVIDER,
    "playground_open": "a token for what the person may use anyway, for their session alone",
    "policy_read": ASKS,
    "quota_reconcile": "makes counters the sums of the ledger, and sets no limit",
    "recall_radius": HELPER,
    "requests_export": "reads; content takes a second factor where the department requires it",
    "response_create": "the content of the key's own request; a lead decided on its retention",
    "response_delete": PROTECTS,
    "release_answer": ASKS,
    "release_submit": ASKS,
    "release_withdraw": PROTECTS,
    "renewal_preview": HELPER,
    "prompt_version_create": BUILDS,
    "request_obstacle": HELPER,
    "review_close": PROTECTS,
    "review_open": ASKS,
    "review_policy_draft": ASKS,
    "roles_from_groups": PROVIDER,
    "role_request_withdraw": PROTECTS,
    "session_revoke": PROTECTS,
    "sessions_revoke": PROTECTS,
    "thread_set_state": SAYS,
    "upload_append": ASKS,
    "upload_create": ASKS,
    "waiver_request": ASKS,
    "waiver_withdraw": ASKS,
}


@dataclass(frozen=True, slots=True)
class Site:
    """A function that asks the policy about an action that changes something."""

    module: str
    name: str
    proves: bool


@cache
def sites() -> list[Site]:
    return [
        site
        for root in SOURCES
        for path in sorted((ROOT / root).rglob("*.py"))
        if "migrations" not in path.parts
        for site in _sites(path)
    ]


def _sites(path: Path) -> Iterator[Site]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    called = {node.name: _called(node) for node in functions}
    for node in functions:
        if node.name != "authorize_binding" and any(map(_changes, _asked(node))):
            names = set(called[node.name])
            # A helper of the same module may prove for it.
            names |= {inner for name in names for inner in called.get(name, ())}
            yield Site(str(path.relative_to(ROOT)), node.name, bool(names & PROVES))


def _called(node: ast.AST) -> set[str]:
    return {
        inner.func.id
        for inner in ast.walk(node)
        if isinstance(inner, ast.Call) and isinstance(inner.func, ast.Name)
    }


def _asked(node: ast.AST) -> Iterator[ast.expr]:
    """The action in each call of `authorize` or `authorize_binding`."""
    for inner in ast.walk(node):
        if not isinstance(inner, ast.Call) or not isinstance(inner.func, ast.Name):
            continue
        if inner.func.id in GATES:
            yield from (each.value for each in inner.keywords if each.arg == "action")


def _changes(action: ast.expr) -> bool:
    """Return whether the action is not only about reading; one that is passed along may be any."""
    if not isinstance(action, ast.Attribute):
        return True
    return action.attr.rpartition("_")[2] not in READING


def test_the_walk_sees_who_proves() -> None:
    proving = {site.name for site in sites() if site.proves}
    assert {"role_grant", "person_erase", "version_recall", "quota_set"} <= proving
    assert len(proving) > 15


def test_every_service_needs_a_second_factor_or_says_why_not() -> None:
    assert {site.name for site in sites() if not site.proves} - EXEMPT.keys() == set()


def test_no_exemption_is_left_over() -> None:
    assert EXEMPT.keys() <= {site.name for site in sites() if not site.proves}
