"""A password alone, or a token made with one, binds nobody.

Every operation that changes something is either in `BINDING`, and is refused without a fresh second
factor, or in `EXEMPT` with the reason. A new one that is in neither fails the walk.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.test import Client

from governance.audit.models import AuditEvent
from governance.keys.services import access_token_create
from tests.abuse.company import address_book, person_of, values
from tests.abuse.database import digests, undone
from tests.abuse.surface import Operation, body_of, filled, operations, send
from tests.unit.assay.portal_data import Company

ADMIN, COMPLIANCE, SECURITY = "an admin", "a compliance reviewer", "a security reviewer"

# Operations of the management API that bind others, each with a role that the policy permits.
BINDING: Mapping[str, str] = {
    "absences_post": COMPLIANCE,
    "emergency_access_confirm_post": ADMIN,
    "emergency_access_review_post": SECURITY,
    "decisions_post": SECURITY,
    "deployment_switch_post": ADMIN,
    "deployment_targets_put": ADMIN,
    "group_mapping_delete": ADMIN,
    "group_mappings_post": ADMIN,
    "incident_lift_post": SECURITY,
    "intake_sign_off_post": SECURITY,
    "key_patch": ADMIN,
    "key_rotate_post": ADMIN,
    "credential_rotate_post": ADMIN,
    "credentials_post": ADMIN,
    "document_recall_post": ADMIN,
    "jobs_at_once_post": ADMIN,
    "keys_post": ADMIN,
    "knowledge_share_post": "a lead of engineering",
    "node_revoke_post": ADMIN,
    "nodes_post": ADMIN,
    "people_post": ADMIN,
    "person_deactivate_post": ADMIN,
    "person_erase_post": ADMIN,
    "person_password_link_post": ADMIN,
    "person_reactivate_post": ADMIN,
    "person_recoveries_post": ADMIN,
    "person_role_delete": ADMIN,
    "person_roles_post": ADMIN,
    "policy_approve_post": ADMIN,
    "policy_reject_post": ADMIN,
    "prices_post": ADMIN,
    "recovery_approve_post": ADMIN,
    "quotas_post": ADMIN,
    "release_request_content_post": "a lead of engineering",
    "request_content_post": "a lead of engineering",
    "request_feedback_post": "a lead of engineering",
    "request_log_erase_post": ADMIN,
    "request_log_forget_post": ADMIN,
    "request_log_keys_post": ADMIN,
    "request_log_post": ADMIN,
    "requests_export_post": "a lead of engineering",
    "response_retention_post": ADMIN,
    "retention_post": ADMIN,
    "review_policy_decide_post": ADMIN,
    "role_request_approve_post": ADMIN,
    "role_request_reject_post": ADMIN,
    "version_recall_post": ADMIN,
    "waiver_decision_post": SECURITY,
    "waiver_revoke_post": SECURITY,
}
# Of these, what first says why the state of their object refuses it; tests of their own reach the
# second factor.
STATE_FIRST = frozenset(
    {
        "emergency_access_confirm_post",
        "emergency_access_review_post",
        "decisions_post",
        "incident_lift_post",
        "waiver_decision_post",
        "waiver_revoke_post",
    }
)

MARKS = "says who looks after a review, and changes nothing of who may decide"
ASKS = "asks for something that somebody else decides with a second factor"
BUILDS = "makes a thing of the department, which serves nothing before a review has approved it"
OWN = "concerns the person's own account or texts alone"
PROTECTS = "takes access or service away, and must be possible at once in an emergency"
READS = "reads"
RUNS = "runs or stops what reviews have approved; it grants nothing"
SAYS = "says something on the record, and decides nothing"
EXEMPT: Mapping[str, str] = {
    "absence_end_post": PROTECTS,
    "answers_post": ASKS,
    "assignee_delete": MARKS,
    "assignees_post": MARKS,
    "audit_export_cancel_post": OWN,
    "audit_exports_post": READS,
    "audit_filter_delete": OWN,
    "audit_filter_patch": OWN,
    "audit_filters_post": OWN,
    "emergency_access_end_post": PROTECTS,
    "emergency_access_refuse_post": PROTECTS,
    "checklist_item_post": "counts only with an approval, which needs a second factor",
    "credential_revoke_post": PROTECTS,
    "dataset_version_rows_unmask_post": "shows rows to people of the department, and is an event",
    "dataset_versions_post": BUILDS,
    "datasets_post": BUILDS,
    "departments_post": "an empty department gives nobody anything",
    "deployment_rollback_post": RUNS,
    "document_delete": BUILDS,
    "document_publish_post": "puts a document of the department in force, which can be recalled",
    "deployment_replicas_post": RUNS,
    "deployment_stop_post": RUNS,
    "deployments_post": RUNS,
    "draft_delete": OWN,
    "draft_patch": OWN,
    "drafts_post": OWN,
    "evaluations_post": BUILDS,
    "feedback_erase_post": PROTECTS,
    "feedback_review_post": SAYS,
    "feedback_version_post": BUILDS,
    "fine_tunes_post": BUILDS,
    "gates_post": BUILDS,
    "incident_notes_post": SAYS,
    "incident_severity_post": SAYS,
    "incident_state_post": SAYS,
    "incident_versions_post": PROTECTS,
    "incidents_post": PROTECTS,
    "hosted_models_post": ASKS,
    "intakes_post": ASKS,
    "upload_delete": OWN,
    "upload_patch": ASKS,
    "uploads_post": ASKS,
    "job_cancel_post": RUNS,
    "job_clone_post": BUILDS,
    "job_pause_post": RUNS,
    "job_priority_post": RUNS,
    "job_resume_post": RUNS,
    "job_retry_post": BUILDS,
    "key_leaked_post": PROTECTS,
    "knowledge_bases_post": BUILDS,
    "knowledge_documents_post": BUILDS,
    "knowledge_index_post": BUILDS,
    "key_revoke_post": PROTECTS,
    "models_post": BUILDS,
    "node_cordon_post": RUNS,
    "node_drain_post": RUNS,
    "node_uncordon_post": RUNS,
    "prompt_versions_post": BUILDS,
    "policy_explain_post": READS,
    "policy_propose_post": ASKS,
    "policy_version_delete": ASKS,
    "policy_version_patch": ASKS,
    "policy_versions_post": ASKS,
    "policy_who_can_post": READS,
    "policy_withdraw_post": ASKS,
    "reconcile_post": "makes counters the sums of the ledger, and sets no limit",
    "recovery_reject_post": PROTECTS,
    "release_emergency_access_post": ASKS,
    "release_draft_delete": BUILDS,
    "release_draft_put": BUILDS,
    "release_draft_submit_post": ASKS,
    "release_drafts_post": BUILDS,
    "releases_post": ASKS,
    "renewal_post": ASKS,
    "review_policies_post": ASKS,
    "review_policy_patch": ASKS,
    "review_policy_propose_post": ASKS,
    "review_policy_withdraw_post": ASKS,
    "schedule_delete": BUILDS,
    "schedule_pause_post": RUNS,
    "schedule_resume_post": BUILDS,
    "schedule_run_post": BUILDS,
    "schedules_post": BUILDS,
    "version_watch_post": BUILDS,
    "session_delete": PROTECTS,
    "role_request_withdraw_post": ASKS,
    "step_up_post": "takes the second factor itself",
    "thread_comments_post": SAYS,
    "thread_reopen_post": SAYS,
    "thread_resolve_post": SAYS,
    "threads_post": SAYS,
    "token_post": OWN,
    "waiver_withdraw_post": ASKS,
    "waivers_post": ASKS,
    "withdraw_post": PROTECTS,
}


def unproven(company: Company, name: str) -> Client:
    """One of the company as a client of the API, by a token that was made with a password alone."""
    _, token = access_token_create(person=person_of(company, name), name="password only")
    client = Client(headers={"authorization": f"Bearer {token}"}, raise_request_exception=False)
    client.get("/api/v1/me")
    return client


def prepared(company: Company) -> tuple[dict[str, Any], dict[str, Any]]:
    """Address book and values with which every binding operation would go through."""
    company.key.scopes = ["deployment:invoke", "model:create"]
    company.key.save(update_fields=["scopes"])
    known = {
        **values(company),
        "keys_post:scopes": ["deployment:invoke", "model:create"],
        "review_policy_decide_post:verdict": "approve",
    }
    return address_book(company), known


def test_every_operation_that_changes_something_is_known() -> None:
    changing = {each.name for each in operations() if not each.reads}
    assert not BINDING.keys() & EXEMPT.keys()
    assert BINDING.keys() | EXEMPT.keys() == changing


def test_a_token_of_a_password_binds_nobody_through_the_api(company: Company) -> None:
    book, known = prepared(company)
    clients = {name: unproven(company, name) for name in set(BINDING.values())}
    faults = []
    for operation in operations():
        if operation.name not in BINDING:
            continue
        path, body = filled(operation, book), body_of(operation, known)
        with undone():
            fault = refusal_of(clients[BINDING[operation.name]], operation, path, body)
        if fault:
            faults.append((str(operation), *fault))
    assert faults == []


def refusal_of(
    client: Client, operation: Operation, path: str, body: dict[str, Any]
) -> tuple[Any, ...]:
    """Flaws of the refusal; empty when there are none."""
    before, denied = digests(), AuditEvent.objects.filter(outcome="denied").count()
    response = send(client, operation, path, body)
    told = response.content.decode()
    states = {403, 409} if operation.name in STATE_FIRST else {403}
    if response.status_code not in states or digests() != before:
        return response.status_code, told[:300]
    if operation.name not in STATE_FIRST and "step_up_required" not in told:
        return response.status_code, told[:300]
    if "step_up_required" in told and "assay step-up" not in told:
        return ("no hint", told[:300])
    if AuditEvent.objects.filter(outcome="denied").count() <= denied:
        return ("not audited",)
    return ()


def test_what_is_exempt_does_not_ask_for_a_second_factor(company: Company) -> None:
    """Else the list of what binds others would be shorter than the truth."""
    book, known = prepared(company)
    clients = [unproven(company, name) for name in (ADMIN, SECURITY, "a lead of engineering")]
    asked = []
    for operation in operations():
        if operation.name not in EXEMPT or operation.name in {"token_post", "step_up_post"}:
            continue
        path, body = filled(operation, book), body_of(operation, known)
        for client in clients:
            with undone():
                response = send(client, operation, path, body)
            if b"step_up_required" in response.content:
                asked.append(str(operation))
    assert asked == []
