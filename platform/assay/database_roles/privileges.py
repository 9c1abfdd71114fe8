"""The database role of each process, and its privileges by table; the only source of privileges.

`assay_owner` owns the tables and runs `migrate`; server processes do not use it. The roles of the
processes own nothing and cannot bypass row security.

`web` is the web process, which runs the portal, the management API and the gateway. `requests` is
`assay_app`, the role to which `governance.rowsecurity.scope` restricts a request: it has the
privileges of `web` unless a table states others. `controller` and `worker` are the other two
processes.

A test fails for a table that is missing here.
"""

from __future__ import annotations

from dataclasses import dataclass

OWNER = "assay_owner"
MLFLOW = "assay_mlflow"


@dataclass(frozen=True, slots=True)
class ProcessRole:
    """The role that one kind of process connects with, and its limits.

    `connections` limits all processes of the kind together; `statement_timeout` limits each
    statement.
    """

    name: str
    connections: int
    statement_timeout: str


ROLES: dict[str, ProcessRole] = {
    "web": ProcessRole("assay_web", connections=50, statement_timeout="60s"),
    # Each loop and each SIEM stream may use a connection, and a second controller may stand by.
    # Rebuilding counters and reading exports of a large log take minutes.
    "controller": ProcessRole("assay_controller", connections=90, statement_timeout="10min"),
    "worker": ProcessRole("assay_worker", connections=40, statement_timeout="60s"),
}

READ = "SELECT"
ADD = "SELECT, INSERT"
CHANGE = "SELECT, UPDATE"
KEEP = "SELECT, INSERT, UPDATE"
ALL = "SELECT, INSERT, UPDATE, DELETE"


@dataclass(frozen=True, slots=True)
class Grant:
    """Privileges on one table, in the syntax of `GRANT`; empty means none."""

    web: str = ""
    controller: str = ""
    worker: str = ""
    requests: str | None = None

    def of_requests(self) -> str:
        """Return the privileges of a request that is restricted to rows its actor may access."""
        return self.web if self.requests is None else self.requests


_ACCOUNTS = {
    "account_emailaddress": Grant(web=ALL),
    "account_emailconfirmation": Grant(web="SELECT, DELETE"),
    "auth_group": Grant(),
    "auth_group_permissions": Grant(),
    "auth_permission": Grant(),
    "django_content_type": Grant(web=READ),
    "django_migrations": Grant(web=READ, controller=READ, worker=READ),
    "django_session": Grant(web=ALL, controller="SELECT, DELETE"),
    "mfa_authenticator": Grant(web=ALL),
    "socialaccount_socialaccount": Grant(web=ALL),
    "socialaccount_socialapp": Grant(web=READ),
    "socialaccount_socialtoken": Grant(web=ALL),
    "usersessions_usersession": Grant(web=ALL, controller="SELECT, DELETE"),
    "assay_idempotencyrecord": Grant(web="SELECT, INSERT, DELETE"),
}

_PEOPLE = {
    "governance_absence": Grant(web=KEEP, controller=READ),
    "governance_accessrequest": Grant(web=ALL),
    "governance_accountnotice": Grant(
        web=ALL, controller="SELECT, UPDATE (attempts, next_at, sent_at, error)"
    ),
    # The controller closes expired recoveries.
    "governance_accountrecovery": Grant(
        web=ALL, controller="SELECT, UPDATE (state, ended_by_id, ended_at, end_reason)"
    ),
    "governance_apikey": Grant(web=KEEP, controller="SELECT, UPDATE (last_used_at)"),
    "governance_department": Grant(web=KEEP, controller=READ, worker=READ),
    "governance_directorygroup": Grant(web=ALL),
    "governance_directorygroup_members": Grant(web=ALL),
    "governance_groupmapping": Grant(web=ALL),
    "governance_look": Grant(web=ALL),
    # For the separation of duties of suspensions that the controller begins. No secrets.
    "governance_onetimelink": Grant(
        web=ALL, controller="SELECT (id, person_id, recovery_id, created_by_id, used_at)"
    ),
    "governance_person": Grant(web=KEEP, controller=READ),
    "governance_namedlock": Grant(web=ALL, controller=ALL),
    "governance_playgroundtoken": Grant(web=ALL, controller="SELECT, DELETE"),
    "governance_policyversion": Grant(web=KEEP, controller=READ),
    "governance_roleassignment": Grant(web=ALL, controller=READ),
    # The controller closes requests that were not decided in time.
    "governance_rolerequest": Grant(
        web=KEEP, controller="SELECT, UPDATE (state, reason, decided_by_id, decided_at)"
    ),
}

# Workers read what is sealed; only egress workers have the key that opens it.
_CREDENTIALS = {
    "governance_credential": Grant(web=KEEP, worker=READ),
    "governance_credentialuse": Grant(
        web=READ, worker="SELECT, INSERT (credential_id, deployment, used_at), UPDATE (used_at)"
    ),
}

_AUDIT = {
    # Only the controller numbers events, signs checkpoints and updates the search tables.
    "governance_auditalarm": Grant(web=READ, controller=ALL),
    "governance_auditcheckpoint": Grant(web=READ, controller=KEEP),
    "governance_auditcosignature": Grant(web=READ, controller=ADD),
    # A trigger limits workers to events about their own work (`workers.0007_worker_limits`).
    # They cannot choose the ID either: a later event with the same ID would wait for theirs.
    "governance_auditevent": Grant(
        web=ADD,
        controller="SELECT, INSERT, UPDATE (sequence, canonical)",
        worker=(
            "SELECT (id), INSERT (actor_kind, actor_id, actor_name, department, action, outcome,"
            " subject_type, subject_id, subject_name, reason, request_id, occurred_at,"
            " policy_version, delivery, canonical, leaf_hash)"
        ),
    ),
    "governance_auditexport": Grant(web=KEEP, controller="SELECT, UPDATE, DELETE"),
    "governance_auditfilter": Grant(web=ALL),
    "governance_auditkeeper": Grant(web=READ, controller=KEEP),
    "governance_auditname": Grant(web=READ, controller=KEEP),
    "governance_auditoffload": Grant(web=READ, controller=KEEP),
    "governance_auditpersonkey": Grant(web="SELECT, UPDATE (key, erased_at)", controller=READ),
    "governance_auditspan": Grant(web=READ, controller=KEEP),
    "governance_auditstream": Grant(web=READ, controller=KEEP),
    "governance_auditsubtree": Grant(web=READ, controller=ADD),
}

# Only triggers add changes, as the tables' owner.
_CHANGES = {
    "governance_change": Grant(web=READ, controller="SELECT, DELETE", requests=""),
    "governance_changehorizon": Grant(web=READ, controller=KEEP, requests=""),
}

_BUDGETS = {
    "governance_budgethold": Grant(
        web=KEEP,
        controller=KEEP,
        worker=(
            "SELECT, UPDATE (device_ms, running_since, state, outcome, ended_at, prompt_tokens,"
            " completion_tokens)"
        ),
    ),
    "governance_price": Grant(web=ALL, controller=READ),
    "governance_quotaalert": Grant(web=ALL, controller=ALL),
    "governance_quotalimit": Grant(web=ALL, controller=CHANGE),
    "governance_archivedmonth": Grant(web=READ, controller=KEEP),
    "governance_retentionrule": Grant(web=KEEP, controller=READ),
    # The web process writes content behind answers; requests of people read and erase it. Only it
    # can decrypt: the controller deletes what has expired.
    "governance_forgottenuser": Grant(web=ALL, controller="SELECT, DELETE"),
    "governance_loggedrequest": Grant(
        web="SELECT, INSERT, DELETE",
        requests="SELECT, DELETE",
        controller="SELECT (id, occurred_at, department_id), DELETE",
    ),
    "governance_requestlogday": Grant(web=KEEP, requests=READ, controller="SELECT, DELETE"),
    "governance_requestlogkey": Grant(web=KEEP),
    "governance_requestlogpolicy": Grant(web=KEEP, controller=READ),
    # A trigger of the ledger writes it, with the collector's privileges.
    "governance_billedrequest": Grant(controller="SELECT, INSERT, DELETE"),
    "governance_shadowtotal": Grant(web=READ, controller=KEEP),
    "governance_usagerecord": Grant(web=READ, controller=ADD),
    # A function writes the former and a trigger the latter, with their owner's privileges.
    "governance_usagetimes": Grant(web=READ, controller=READ),
    "governance_usagetimesprogress": Grant(controller=KEEP),
    "governance_usagetotal": Grant(web=READ, controller=READ),
}

_REVIEWS = {
    "governance_checklistitem": Grant(web=ALL, controller=CHANGE, worker=READ),
    "governance_commentdraft": Grant(web=ALL),
    # Only people cast votes, in the web process.
    "governance_decision": Grant(web=ADD, controller=READ, worker=READ),
    "governance_mention": Grant(web=KEEP),
    "governance_review": Grant(web=KEEP, controller=CHANGE, worker=READ),
    "governance_reviewassignment": Grant(web=ALL),
    "governance_reviewnotice": Grant(web=KEEP, controller=KEEP),
    "governance_reviewpolicy": Grant(web=KEEP, controller=READ, worker=READ),
    "governance_reviewreminder": Grant(web=ADD, controller=ADD),
    "governance_reviewthread": Grant(web=KEEP, controller=READ, worker=READ),
    "governance_threadcomment": Grant(web=ADD, controller=READ),
    "governance_waiver": Grant(web=KEEP, controller=CHANGE, worker=READ),
}

_REGISTRY = {
    "registry_emergencyaccess": Grant(web=KEEP, controller=CHANGE, worker=READ),
    "registry_dataset": Grant(web=KEEP, controller=READ, worker=READ),
    "registry_datasetversion": Grant(web=KEEP, controller=READ, worker=READ),
    "registry_datasetversion_feedback": Grant(web=ADD, controller=READ),
    "registry_feedback": Grant(web=KEEP, controller=READ),
    "registry_document": Grant(web=ALL, controller=READ, worker=READ),
    "registry_documentversion": Grant(web=ALL, controller=READ, worker=READ),
    "registry_evaluation": Grant(web=READ, controller=ADD, worker=READ),
    "registry_evaluationreference": Grant(web=READ, controller=ADD, worker=READ),
    # A trigger limits workers to releases that they should serve; the web process writes for nodes.
    "registry_equivalencecheck": Grant(
        web=ADD,
        requests=READ,
        controller=READ,
        worker=(
            "SELECT, INSERT (release_id, environment_id, outcome, rows, differing, worker,"
            " checked_at)"
        ),
    ),
    "registry_softwareenvironment": Grant(
        web="SELECT, INSERT, UPDATE (seen_at)",
        requests=READ,
        controller=READ,
        worker=(
            "SELECT, INSERT (fingerprint, engine, versions, first_seen_at, seen_at),"
            " UPDATE (seen_at)"
        ),
    ),
    "registry_gate": Grant(web=KEEP, controller=READ),
    "registry_gateresult": Grant(web=READ, controller=ADD),
    # The controller opens incidents about hosted versions.
    "registry_incident": Grant(
        web=KEEP, controller="SELECT, INSERT, UPDATE (severity)", worker=READ
    ),
    "registry_incident_departments": Grant(web=ALL, controller=ADD, worker=READ),
    "registry_storedfile": Grant(web=ALL, controller="SELECT, DELETE"),
    "registry_batch": Grant(web=KEEP, controller="SELECT, DELETE"),
    "registry_batchline": Grant(web=ALL, controller="SELECT, DELETE", requests=READ),
    "registry_incidentnote": Grant(web=ADD, controller=ADD),
    "registry_incidentnotice": Grant(
        controller="SELECT, INSERT, UPDATE (attempts, next_at, sent_at, error)"
    ),
    "registry_incidentsuspension": Grant(
        web=KEEP, controller="SELECT, INSERT, UPDATE (excluded_people)", worker=READ
    ),
    "registry_incidentversion": Grant(web=ADD, controller=ADD, worker=READ),
    "registry_knowledgebase": Grant(
        web=KEEP, controller="SELECT, UPDATE (index_id, revision)", worker=READ
    ),
    "registry_knowledgebase_departments": Grant(web=ALL, controller=READ, worker=READ),
    "registry_knowledgeindex": Grant(web=READ, controller=ADD, worker=READ),
    "registry_upload": Grant(web=ALL, controller="SELECT, UPDATE, DELETE"),
    "registry_intake": Grant(web=KEEP, controller=CHANGE, worker=READ),
    # Egress workers take calls of providers and report them; the controller decides.
    "registry_intakeprobe": Grant(
        web=READ,
        requests=READ,
        controller=KEEP,
        worker="SELECT, UPDATE (worker, due_at, tries, result)",
    ),
    "registry_model": Grant(web=KEEP, controller=CHANGE, worker=READ),
    "registry_modelversion": Grant(web=KEEP, controller=KEEP, worker=READ),
    "registry_release": Grant(web=KEEP, controller=CHANGE, worker=READ),
    # The controller creates drafts after a chain of jobs, and deletes unused ones.
    "registry_releasedraft": Grant(web=ALL, controller=ALL),
    "registry_responseretention": Grant(web=KEEP, controller=READ),
    "registry_storedresponse": Grant(web=ALL, controller="SELECT, UPDATE (expires_at), DELETE"),
    "registry_release_departments": Grant(web=ALL, controller=READ, worker=READ),
}

_OF_A_REPLICA = (
    "state, loaded_digest, message, load_seconds, failures, retry_at, started_at, heartbeat_at"
)
_OF_A_WORKER = (
    "public_key, registered_at, engines, seen_at, memory, device, devices, labels, code,"
    " environments"
)
_WORK = {
    "workers_deployment": Grant(
        web=KEEP, controller=CHANGE, worker="SELECT, UPDATE (state, message, stopped_at)"
    ),
    # The controller starts the links of a chain, and queues the jobs that follow a fine-tune.
    "workers_chainlink": Grant(web=ADD, controller=KEEP),
    "workers_chaindraft": Grant(web=ADD, controller=KEEP),
    "workers_job": Grant(
        web=KEEP,
        controller=KEEP,
        worker=(
            "SELECT, UPDATE (state, result, error, progress, checkpoints, fence, attempt, worker,"
            " lease_until, dispatches, dispatch_after, stop_request, stop_reason, interruptions,"
            " queued_at, claimed_at, paused_at, started_at, finished_at)"
        ),
    ),
    "workers_attemptlog": Grant(
        web=ADD,
        requests=READ,
        controller="SELECT, DELETE",
        worker="SELECT, INSERT (job_id, attempt, at, lines)",
    ),
    "workers_jobevent": Grant(
        web=ADD,
        requests=READ,
        controller=ADD,
        worker="SELECT, INSERT (job_id, attempt, at, step, message, data)",
    ),
    # It has no rows and is only locked, which requires a privilege on the whole table.
    "workers_jobline": Grant(web=CHANGE, controller=CHANGE, worker=CHANGE),
    "workers_controllerprocess": Grant(web=READ, controller=ALL),
    "workers_leadership": Grant(web=READ, controller=KEEP),
    "workers_measurement": Grant(web=READ, controller=ALL),
    # The web process writes the reports of nodes, which requests of people may not change.
    # Compute workers leave jobs to a node that alone has the devices for them.
    "workers_node": Grant(
        web=KEEP,
        controller="SELECT, UPDATE (broker_denials)",
        worker="SELECT (id, state, seen_at, facts)",
    ),
    "workers_nodesample": Grant(web=KEEP, requests=READ, controller="SELECT, DELETE"),
    "workers_nodesession": Grant(web=KEEP, controller="SELECT, DELETE"),
    "workers_nodetoken": Grant(web=KEEP),
    # Only the controller decides which worker loads what.
    "workers_placement": Grant(web=READ, controller=ALL, worker=READ),
    # By column, because a role that may update a whole table may lock it against every reader.
    "workers_replica": Grant(
        web=KEEP,
        requests=READ,
        controller=CHANGE,
        worker=(
            f"SELECT, INSERT (deployment_id, worker, {_OF_A_REPLICA}), UPDATE ({_OF_A_REPLICA})"
        ),
    ),
    "workers_servinglease": Grant(
        web=ADD, controller="SELECT, UPDATE (servable_until)", worker=READ
    ),
    "workers_workertasks": Grant(
        web=KEEP,
        requests=READ,
        # The sweep locks the rows that it deletes, and skips rows that others have locked.
        controller="SELECT, UPDATE (seen_at), DELETE",
        worker="SELECT, INSERT (worker, role, tasks, seen_at), UPDATE (role, tasks, seen_at)",
    ),
    "workers_workerkey": Grant(
        web=KEEP,
        requests=READ,
        controller="SELECT, DELETE",
        worker=f"SELECT, INSERT (worker, {_OF_A_WORKER}), UPDATE ({_OF_A_WORKER})",
    ),
    "workers_schedule": Grant(web=ALL, controller=CHANGE),
    "workers_schedulerun": Grant(web=ALL, controller=ALL),
    # Workers add names that answers state, within the limits of a trigger; the controller compares
    # them.
    "workers_statedmodel": Grant(
        web=READ,
        controller="SELECT, UPDATE (differs, recorded_at)",
        worker=(
            "SELECT, INSERT (deployment_id, model, fingerprint, first_at, seen_at),"
            " UPDATE (seen_at)"
        ),
    ),
    # Written together with the transition that it records, outside of the request's restriction.
    "workers_servingperiod": Grant(
        web=KEEP,
        requests=READ,
        controller=KEEP,
        worker=(
            "SELECT, INSERT (deployment_id, digest, serving_from, began_event_id, serving_until,"
            " ended_as, ended_event_id), UPDATE (serving_until, ended_as, ended_event_id)"
        ),
    ),
}

# Sequences of IDs that are no identity columns, because their tables are partitioned; whoever may
# insert into the table may use them.
SEQUENCES = {
    "governance_loggedrequest": "governance_loggedrequest_id_seq",
    "governance_usagerecord": "governance_usagerecord_id_seq",
    "workers_jobevent": "workers_jobevent_id_seq",
}

# Functions that run as the tables' owner; only the controller may call them.
OF_THE_CONTROLLER = (
    "assay_month_add(text, date)",
    "assay_month_drop(bigint)",
    "assay_log_month_drop(date)",
    "assay_usage_times(bigint, bigint)",
    "assay_sessions()",
    "assay_session_end(integer, timestamptz)",
    "assay_role_settings_restore()",
)

TABLES: dict[str, Grant] = {
    **_ACCOUNTS,
    **_PEOPLE,
    **_CREDENTIALS,
    **_AUDIT,
    **_CHANGES,
    **_BUDGETS,
    **_REVIEWS,
    **_REGISTRY,
    **_WORK,
}
