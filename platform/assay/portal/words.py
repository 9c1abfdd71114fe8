"""Audit events in words a person would use."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from governance.audit.models import AuditEvent
from governance.audit.personal import opened

# Past tense of "<resource>:<verb>"; {} is the subject's name.
PHRASES = {
    "audit:export": "exported the audit log",
    "audit:verify": "verified the audit log",
    "checklist:attest": "attested a checklist item of {}",
    "dataset:create": "added the dataset {}",
    "dataset_version:create": "added {}",
    "department:create": "founded the department {}",
    "deployment:create": "deployed {}",
    "deployment:invoke": "used {}",
    "deployment:await": "asked workers to load {}",
    "deployment:load": "loaded {}",
    "deployment:serve": "brought {} into service",
    "deployment:stop": "stopped {}",
    "evaluation:record": "recorded {}",
    "gate:set": "set a gate on {}",
    "group:create": "provisioned the group {}",
    "group:delete": "deleted the group {}",
    "group:members": "changed who is in the group {}",
    "group:update": "renamed or relabelled the group {}",
    "group_mapping:create": "gave the group {} a role",
    "group_mapping:delete": "took a role from the group {}",
    "intake:create": "delivered {}",
    "intake:check": "checked {}",
    "intake:reject": "rejected {}",
    "intake:sign_off": "signed off {}",
    "job:cancel": "cancelled the job {}",
    "job:create": "started the job {}",
    "job:bury": "gave up on the job {}",
    "job:claim": "took the job {}",
    "job:deliver": "delivered the result of {}",
    "job:requeue": "put the job {} back in the queue",
    "job:fail": "could not finish the job {}",
    "job:finish": "finished the job {}",
    "key:create": "made the key {}",
    "key:revoke": "revoked the key {}",
    "key:rotate": "rotated the key {}",
    "key:update": "changed the key {}",
    "model:create": "registered the model {}",
    "person:create": "added {}",
    "person:deactivate": "ended the access of {}",
    "person:deprovision": "deleted the account of {}; the record stays",
    "person:reactivate": "let {} in again",
    "person:update": "changed the account of {}",
    "person:sign_in": "signed in",
    "person:add_factor": "added a second factor for {}",
    "person:change_password": "changed the password of {}",
    "person:link": "linked {} with the identity provider",
    "person:remove_factor": "removed a second factor of {}",
    "person:renew_recovery_codes": "made new recovery codes for {}",
    "person:reset_factors": "reset the second factors of {}",
    "person:unlink": "ended the link of {} with the identity provider",
    "person:forget_credentials": "forgot how {} used to sign in",
    "policy:activate": "put {} in force",
    "policy:draft": "drafted {}",
    "policy:propose": "proposed {}",
    "policy:reject": "rejected {}",
    "policy:revise": "changed the draft of {}",
    "policy:supersede": "took {} out of force",
    "policy:withdraw": "withdrew {}",
    "quota:alert": "raised an alert: {} is running out",
    "quota:price": "set the {}",
    "quota:reconcile": "compared {} with the ledger",
    "quota:set": "set the limit {}",
    "release:approve": "approved {}",
    "release:decide": "decided on {}",
    "release:submit": "asked for {}",
    "release:withdraw": "withdrew {}",
    "release:expire": "let {} expire",
    "review:opened": "opened the review of {}",
    "review:approved": "closed the review of {}: approved",
    "review:rejected": "closed the review of {}: rejected",
    "review:withdrawn": "closed the review of {}: withdrawn",
    "review:changes_requested": "returned the review of {}: changes requested",
    "release:approved": "made {} servable: approved",
    "release:rejected": "{} was rejected",
    "release:changes_requested": "returned {} to its department",
    "release:in_review": "put {} in review",
    "release:expired": "let {} expire",
    "release:withdrawn": "withdrew {}",
    "review:approve": "approved {}",
    "review:comment": "commented on {}",
    "review:reject": "rejected {}",
    "review:request_changes": "requested changes to {}",
    "review:answer": "answered the review of {}",
    "role:grant": "granted a role to {}",
    "role:revoke": "took a role from {}",
    "session:revoke": "ended the {}",
    "version:register": "registered {}",
}
# The same as something tried and refused.
ATTEMPTS = {
    "audit:export": "export the audit log",
    "audit:view": "read the audit log",
    "checklist:attest": "attest a checklist item of {}",
    "deployment:create": "deploy {}",
    "deployment:invoke": "use {}",
    "deployment:load": "load {}",
    "deployment:stop": "stop {}",
    "intake:create": "deliver files for {}",
    "intake:sign_off": "sign off {}",
    "job:create": "start {}",
    "key:create": "make the key {}",
    "key:revoke": "revoke the key {}",
    "key:rotate": "rotate the key {}",
    "person:sign_in": "sign in",
    "policy:decide": "decide on {}",
    "policy:draft": "change {}",
    "policy:explain": "ask about {}",
    "quota:set": "set the limit {}",
    "release:decide": "decide on {}",
    "release:submit": "ask for the release of {}",
    "role:grant": "grant a role to {}",
    "session:revoke": "end the {}",
}
ICONS = {
    "audit": "file-certificate",
    "checklist": "clipboard-check",
    "dataset": "database",
    "dataset_version": "database",
    "department": "building",
    "deployment": "rocket",
    "evaluation": "flask",
    "gate": "scale",
    "group": "users",
    "group_mapping": "users",
    "intake": "package-import",
    "job": "activity",
    "key": "key",
    "model": "box",
    "person": "user",
    "policy": "certificate",
    "quota": "hourglass",
    "release": "git-pull-request",
    "review": "message-2",
    "role": "users",
    "version": "git-commit",
}


@dataclass(frozen=True, slots=True)
class Described:
    """One event as shown: who, what, and how it stands out."""

    event: AuditEvent
    who: str
    what: str
    icon: str
    tone: str


def described_all(events: Iterable[AuditEvent]) -> list[Described]:
    """Each of the events as a sentence, with the names of people in it."""
    return [described(event) for event in opened(events)]


def described(event: AuditEvent) -> Described:
    """An event that is opened as a sentence: `who` did `what`."""
    resource, _, verb = event.action.partition(":")
    subject = event.subject_name
    if subject in ("", event.subject_id):
        subject = f"{event.subject_type.replace('_', ' ')} {event.subject_id}"
    if resource == "quota":
        kind, of, whose = subject.partition(" of ")
        subject = f"{kind.replace('_', ' ')}{of}{whose.replace(':', ' ')}"
    phrase = PHRASES.get(event.action)
    if phrase is None:
        phrase = f"{resource.replace('_', ' ')}: {verb.replace('_', ' ')}, {{}}"
    if event.outcome == "denied" or (event.outcome == "failed" and event.action in ATTEMPTS):
        tried = ATTEMPTS.get(event.action, f"{verb.replace('_', ' ')} {{}}")
        end = "was refused" if event.outcome == "denied" else "failed"
        what = f"tried to {tried.replace('{}', subject)} and {end}"
    else:
        what = phrase.replace("{}", subject)
    tone = {"allowed": "", "denied": "bad", "failed": "warn"}.get(event.outcome, "")
    return Described(
        event=event,
        who=event.actor_name or event.actor_id,
        what=what,
        icon="ban" if event.outcome == "denied" else ICONS.get(resource, "circle-dot"),
        tone=tone,
    )
