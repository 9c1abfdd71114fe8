"""Audit events in words a person would use."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

from governance.audit.models import AuditEvent
from governance.audit.personal import opened

# Past tense of "<resource>:<verb>"; {} is the subject's name.
PHRASES = {
    "absence:end": "ended an absence of {}",
    "absence:set": "named a deputy for {}, who is away",
    "audit:alarm_clear": "saw the end of the alarm: {}",
    "audit:alarm_raise": "raised an alarm: {}",
    "audit:export": "exported the audit log",
    "checklist:attest": "attested a checklist item of {}",
    "checklist:carry_over": "carried attestations over into the review of {}",
    "dataset:create": "added the dataset {}",
    "dataset:unmask": "read masked rows of {}",
    "dataset_version:create": "added {}",
    "department:create": "founded the department {}",
    "deployment:create": "deployed {}",
    "deployment:invoke": "used {}",
    "deployment:await": "asked workers to load {}",
    "deployment:load": "loaded {}",
    "deployment:rollback": "rolled {} back",
    "deployment:serve": "brought {} into service",
    "deployment:stop": "stopped {}",
    "evaluation:record": "recorded {}",
    "response:create": "stored {}",
    "response:delete": "deleted {}",
    "response:expire": "deleted expired responses of {}",
    "response:retain": "set how long {} keeps responses",
    "feedback:create": "sent {}",
    "feedback:erase": "erased {}",
    "feedback:review": "reviewed {}",
    "file:create": "added the file {}",
    "file:delete": "deleted the file {}",
    "file:expire": "deleted expired files of {}",
    "gate:set": "set a gate on {}",
    "group:create": "provisioned the group {}",
    "group:delete": "deleted the group {}",
    "group:members": "changed who is in the group {}",
    "group:update": "renamed or relabelled the group {}",
    "group_mapping:create": "gave the group {} a role",
    "group_mapping:delete": "took a role from the group {}",
    "upload:create": "began {}",
    "upload:complete": "completed {}",
    "upload:discard": "discarded {}",
    "upload:use": "took in {}",
    "upload:expire": "deleted {}, which expired",
    "intake:create": "delivered {}",
    "intake:check": "checked {}",
    "intake:sign_off": "signed off {}",
    "job:cancel": "canceled the job {}",
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
    "document:add": "added a draft of {}",
    "document:delete": "deleted the draft of {}",
    "document:publish": "published {}",
    "document:recall": "recalled {}",
    "knowledge:create": "created the knowledge base {}",
    "knowledge:index": "indexed the knowledge base {}",
    "knowledge:recall": "recalled a document of {}",
    "knowledge:search": "searched the knowledge base {}",
    "knowledge:share": "changed who may search the knowledge base {}",
    "model:create": "registered the model {}",
    "person:create": "added {}",
    "person:deactivate": "ended the access of {}",
    "person:deprovision": "deleted the account of {}; the record stays",
    "person:reactivate": "let {} in again",
    "person:update": "changed the account of {}",
    "person:sign_in": "signed in",
    "person:sign_out": "signed out",
    "person:step_up": "verified their identity with a second factor",
    "person:add_factor": "added a second factor for {}",
    "person:change_password": "changed the password of {}",
    "person:invite": "invited {} by a one-time link",
    "person:decline_access": "declined the role request of {}",
    "person:request_access": "requested a role for {}",
    "person:permit_factor": "permitted {} a first second factor, by a one-time link",
    "person:reset_password": "let {} set a new password, by a one-time link",
    "person:use_link": "set the password of {} by a one-time link",
    "person:link": "linked {} with the identity provider",
    "person:remove_factor": "removed a second factor of {}",
    "person:renew_recovery_codes": "made new recovery codes for {}",
    "person:reset_factors": "reset the second factors of {}",
    "person:unlink": "ended the link of {} with the identity provider",
    "person:forget_credentials": "forgot how {} used to sign in",
    "playground_token:create": "opened the playground for {}",
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
    "release:decide": "decided on {}",
    "release:evidence": "took the evidence pack of {}",
    "release:submit": "requested {}",
    "release:withdraw": "withdrew {}",
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
    "release:expiring": "warned that the approval of {} ends",
    "release:in_grace": "warned that the approval of {} has ended and its grace begun",
    "release:withdrawn": "withdrew {}",
    "review:assign": "assigned the review of {}",
    "review:comment": "commented on {}",
    "review:escalate": "told administrators that the review of {} is overdue",
    "review:remind": "reminded people of the review of {}",
    "review:reopen_thread": "reopened a thread in the review of {}",
    "review:resolve_thread": "resolved a thread in the review of {}",
    "review:unassign": "unassigned the review of {}",
    "review_policy:activate": "put the review policy {} in force",
    "review_policy:draft": "drafted the review policy {}",
    "review_policy:propose": "proposed the review policy {}",
    "review_policy:reject": "rejected the review policy {}",
    "review_policy:revise": "changed the draft of the review policy {}",
    "review_policy:supersede": "took the review policy {} out of force",
    "review_policy:withdraw": "withdrew the review policy {}",
    "role:approve": "approved a role for {}",
    "role:expire": "let a role request for {} expire",
    "role:grant": "granted a role to {}",
    "role:reject": "rejected a role for {}",
    "role:request": "requested a role for {}",
    "role:revoke": "took a role from {}",
    "role:withdraw": "withdrew a role request for {}",
    "session:revoke": "ended the {}",
    "usage:refuse": "dropped forged entries of the {}",
    "version:recall": "recalled {}",
    "version:register": "registered {}",
    "worker:register": "registered the key of the worker {}",
    "break_glass:active": "confirmed {}: it may serve before its review has decided",
    "break_glass:ended": "ended {}",
    "break_glass:lapsed": "let {} lapse without a confirmation",
    "break_glass:refused": "refused {}",
    "break_glass:requested": "requested {}",
    "break_glass:reviewed": "reviewed {} afterwards",
    "incident:add_version": "added a version to {}",
    "incident:closed": "closed {}",
    "incident:investigating": "began to investigate {}",
    "incident:lift": "lifted what {} had suspended",
    "incident:note": "wrote to the timeline of {}",
    "incident:open": "reported {}",
    "incident:rate": "rated {} anew",
    "incident:resolved": "resolved {}",
    "incident:update": "kept the record of {}",
    "release:break_glass": "requested a break-glass of {}",
    "release:break_glass_confirm": "confirmed a break-glass of {}",
    "release:suspended": "suspended {}",
    "release:voided": "ended the request for {}: something changed that it was about",
    "waiver:request": "asked to waive a checklist item of {}",
    "waiver:granted": "waived a checklist item of {} for a time",
    "waiver:refused": "refused to waive a checklist item of {}",
    "waiver:withdrawn": "took back a request to waive a checklist item of {}",
    "waiver:revoked": "revoked the waiver of a checklist item of {}",
    "waiver:expired": "saw the end of the waiver of a checklist item of {}",
    "deployment:view": "looked up {}",
    "person:erase": "erased {} from the records",
    "release:recalled": "recalled {}",
    "review:reopened": "reopened the review of {}",
    # As logs from before the name above have it.
    "review:open": "reopened the review of {}",
    "review:voided": "closed the review of {}: void",
    "audit:cancel_export": "stopped the export {}",
    "audit:download": "downloaded the export {}",
    "audit:finish_export": "finished the export {}",
    "audit:select": "requested an export of the audit log: {}",
    "audit:view": "read the audit log",
    "audit_filter:create": "kept the filter {}",
    "audit_filter:delete": "deleted the filter {}",
    "audit_filter:update": "changed the filter {}",
}
# The same as something tried and refused, or that failed.
ATTEMPTS = {
    "absence:end": "end an absence of {}",
    "absence:set": "name a deputy for {}",
    "audit:alarm_clear": "end the alarm: {}",
    "audit:alarm_raise": "raise an alarm: {}",
    "audit:cancel_export": "stop the export {}",
    "audit:download": "download the export {}",
    "audit:export": "export the audit log",
    "audit:finish_export": "finish the export {}",
    "audit:select": "export a selection of the audit log",
    "audit:view": "read the audit log",
    "audit_filter:create": "keep a filter of the audit log",
    "audit_filter:delete": "delete the filter {}",
    "audit_filter:update": "change the filter {}",
    "checklist:attest": "attest a checklist item of {}",
    "checklist:carry_over": "carry attestations over into the review of {}",
    "dataset:create": "add the dataset {}",
    "dataset:unmask": "read masked rows of {}",
    "dataset:view": "look at the dataset {}",
    "dataset_version:create": "add {}",
    "department:create": "found the department {}",
    "department:view": "look at the department {}",
    "deployment:await": "have workers load {}",
    "deployment:create": "deploy {}",
    "deployment:invoke": "use {}",
    "deployment:load": "load {}",
    "deployment:rollback": "roll {} back",
    "deployment:serve": "bring {} into service",
    "deployment:stop": "stop {}",
    "deployment:view": "look up {}",
    "evaluation:record": "record {}",
    "evaluation:view": "look at the evaluation {}",
    "response:create": "store {}",
    "response:delete": "delete {}",
    "response:expire": "delete expired responses of {}",
    "response:retain": "set how long {} keeps responses",
    "response:view": "look at {}",
    "file:create": "add files",
    "file:delete": "delete the file {}",
    "file:expire": "delete expired files of {}",
    "file:view": "look at the file {}",
    "feedback:create": "send feedback",
    "feedback:erase": "erase {}",
    "feedback:review": "review {}",
    "feedback:view": "look at {}",
    "gate:set": "set a gate on {}",
    "group:create": "provision the group {}",
    "group:delete": "delete the group {}",
    "group:members": "change who is in the group {}",
    "group:update": "rename or relabel the group {}",
    "group_mapping:create": "give the group {} a role",
    "group_mapping:delete": "take a role from the group {}",
    "intake:check": "pass the checks of {}",
    "intake:create": "deliver files for {}",
    "intake:sign_off": "sign off {}",
    "intake:view": "look at the delivery {}",
    "upload:create": "upload a file",
    "upload:complete": "complete {}",
    "upload:discard": "discard {}",
    "upload:use": "take in {}",
    "upload:expire": "delete {}, which expired",
    "job:bury": "finish the job {}",
    "job:cancel": "cancel the job {}",
    "job:claim": "take the job {}",
    "job:create": "start {}",
    "job:deliver": "deliver the result of {}",
    "job:fail": "finish the job {}",
    "job:finish": "finish the job {}",
    "job:requeue": "put the job {} back in the queue",
    "job:view": "look at the job {}",
    "key:create": "make the key {}",
    "key:revoke": "revoke the key {}",
    "key:rotate": "rotate the key {}",
    "key:update": "change the key {}",
    "key:view": "look at the key {}",
    "document:add": "add a draft of {}",
    "document:delete": "delete the draft of {}",
    "document:publish": "publish {}",
    "document:recall": "recall {}",
    "knowledge:create": "change the knowledge base {}",
    "knowledge:index": "index the knowledge base {}",
    "knowledge:recall": "recall a document of {}",
    "knowledge:search": "read the knowledge base {}",
    "knowledge:share": "change who may search the knowledge base {}",
    "knowledge:view": "look at the knowledge base {}",
    "model:create": "register the model {}",
    "model:view": "look at the model {}",
    "person:add_factor": "add a second factor for {}",
    "person:change_password": "change the password of {}",
    "person:create": "add the person {}",
    "person:deactivate": "end the access of {}",
    "person:deprovision": "delete the account of {}",
    "person:erase": "erase {}",
    "person:forget_credentials": "forget how {} used to sign in",
    "person:invite": "invite {} by a one-time link",
    "person:link": "link {} with the identity provider",
    "person:decline_access": "decline the role request of {}",
    "person:request_access": "request a role for {}",
    "person:permit_factor": "permit {} a first second factor",
    "person:reset_password": "let {} set a new password",
    "person:reactivate": "let {} in again",
    "person:remove_factor": "remove a second factor of {}",
    "person:renew_recovery_codes": "make new recovery codes for {}",
    "person:reset_factors": "reset the second factors of {}",
    "person:sign_in": "sign in",
    "person:sign_out": "sign out",
    "person:use_link": "use a one-time link",
    "person:step_up": "prove who they are by a second factor",
    "person:unlink": "end the link of {} with the identity provider",
    "person:update": "change the account of {}",
    "person:view": "look at the account of {}",
    "playground_token:create": "open the playground for {}",
    "policy:activate": "put {} in force",
    "policy:decide": "decide on {}",
    "policy:draft": "change {}",
    "policy:explain": "ask about {}",
    "policy:propose": "propose {}",
    "policy:reject": "reject {}",
    "policy:revise": "change the draft of {}",
    "policy:supersede": "take {} out of force",
    "policy:view": "read {}",
    "policy:withdraw": "withdraw {}",
    "quota:alert": "raise an alert: {} is running out",
    "quota:price": "set the {}",
    "quota:reconcile": "compare {} with the ledger",
    "quota:set": "set the limit {}",
    "quota:view": "look at the limit {}",
    "release:approved": "make {} servable",
    "release:changes_requested": "return {} to its department",
    "release:decide": "decide on {}",
    "release:evidence": "take the evidence pack of {}",
    "release:expired": "let {} expire",
    "release:expiring": "warn that the approval of {} ends",
    "release:in_grace": "warn that {} serves in its grace",
    "release:in_review": "put {} in review",
    "release:recalled": "recall {}",
    "release:rejected": "reject {}",
    "release:submit": "ask for the release of {}",
    "release:view": "look at the release {}",
    "release:withdraw": "withdraw {}",
    "release:withdrawn": "withdraw {}",
    "review:approved": "approve {}",
    "review:changes_requested": "return the review of {}",
    "review:assign": "assign the review of {}",
    "review:comment": "comment on {}",
    "review:escalate": "tell administrators of the review of {}",
    "review:remind": "remind people of the review of {}",
    "review:reopen_thread": "reopen a thread in the review of {}",
    "review:resolve_thread": "resolve a thread in the review of {}",
    "review:unassign": "unassign the review of {}",
    "review:open": "reopen the review of {}",
    "review:reopened": "reopen the review of {}",
    "review:opened": "open the review of {}",
    "review:rejected": "reject {}",
    "review:voided": "close the review of {}",
    "review:withdrawn": "withdraw the review of {}",
    "review_policy:activate": "put the review policy {} in force",
    "review_policy:draft": "draft the review policy {}",
    "review_policy:propose": "propose the review policy {}",
    "review_policy:reject": "reject the review policy {}",
    "review_policy:revise": "change the draft of the review policy {}",
    "review_policy:supersede": "take the review policy {} out of force",
    "review_policy:withdraw": "withdraw the review policy {}",
    "role:approve": "approve a role for {}",
    "role:expire": "close a role request for {}",
    "role:grant": "grant a role to {}",
    "role:reject": "reject a role for {}",
    "role:request": "request a role for {}",
    "role:revoke": "take a role from {}",
    "role:withdraw": "withdraw a role request for {}",
    "session:revoke": "end the {}",
    "session:view": "look at the {}",
    "usage:refuse": "drop forged entries of the {}",
    "usage:view": "look at the usage",
    "version:recall": "recall {}",
    "version:register": "register {}",
    "worker:register": "register the key of the worker {}",
    "break_glass:active": "confirm {}",
    "break_glass:ended": "end {}",
    "break_glass:lapsed": "let {} lapse",
    "break_glass:refused": "refuse {}",
    "break_glass:requested": "ask for {}",
    "break_glass:reviewed": "review {} afterwards",
    "incident:add_version": "add a version to {}",
    "incident:closed": "close {}",
    "incident:investigating": "investigate {}",
    "incident:lift": "lift what {} has suspended",
    "incident:note": "write to the timeline of {}",
    "incident:open": "report {}",
    "incident:rate": "rate {}",
    "incident:resolved": "resolve {}",
    "incident:update": "keep the record of {}",
    "incident:view": "look at {}",
    "release:break_glass": "ask for a break-glass of {}",
    "release:break_glass_confirm": "confirm a break-glass of {}",
    "release:suspended": "suspend {}",
    "release:voided": "end the request for {}",
    "waiver:decide": "decide on a waiver in the review of {}",
    "waiver:expired": "end a waiver in the review of {}",
    "waiver:granted": "waive a checklist item of {}",
    "waiver:refused": "refuse a waiver in the review of {}",
    "waiver:request": "ask for a waiver in the review of {}",
    "waiver:revoked": "revoke a waiver in the review of {}",
    "waiver:withdrawn": "take back a request for a waiver in the review of {}",
    # What was refused before anybody knew what it was to be: the address that was called.
    "api:delete": "delete something at {}",
    "api:patch": "change something at {}",
    "api:post": "do something at {}",
    "api:put": "change something at {}",
    "portal:post": "do something at {}",
    "scim:delete": "delete something at {}",
    "scim:patch": "change something at {}",
    "scim:post": "provision something at {}",
    "scim:put": "change something at {}",
}
# The same done to a person as to one thing of theirs.
OF_A_PERSON = {"session:revoke": ("ended every session of {}", "end every session of {}")}
# Subjects whose name is their id: it says what they are.
NAMED_BY_ID = frozenset({"address", "department", "deployment", "endpoint", "model"})
ENDPOINTS = {
    "/v1/chat/completions": "a model for a conversation (/v1/chat/completions)",
    "/v1/models": "the deployments that it may use (/v1/models)",
}
# Display names of the platform's processes, and of callers that are not signed in.
WHO = {
    ("anonymous", "anonymous"): "an unknown visitor",
    ("service", "bootstrap"): "the installation",
    ("service", "compute-worker"): "a compute worker",
    ("service", "controller"): "the controller",
    ("service", "engine-worker"): "an engine worker",
    ("service", "scim"): "the identity provider",
    ("service", "sso"): "single sign-on",
}
ICONS = {
    "audit": "file-certificate",
    "audit_filter": "search",
    "break_glass": "alert-triangle",
    "checklist": "clipboard-check",
    "dataset": "database",
    "dataset_version": "database",
    "department": "building",
    "deployment": "rocket",
    "evaluation": "flask",
    "feedback": "message-2",
    "response": "message-2",
    "file": "file-text",
    "gate": "scale",
    "group": "users",
    "group_mapping": "users",
    "incident": "alert-circle",
    "intake": "package-import",
    "job": "activity",
    "key": "key",
    "model": "box",
    "person": "user",
    "policy": "certificate",
    "quota": "hourglass",
    "release": "git-pull-request",
    "review": "message-2",
    "review_policy": "clipboard-check",
    "role": "users",
    "version": "git-commit",
    "waiver": "clipboard-check",
}


@cache
def action_groups() -> list[tuple[str, list[tuple[str, str]]]]:
    """Every action that has words, by what it is done to: (its name, [(action, words)])."""
    groups: dict[str, list[tuple[str, str]]] = {}
    for action in sorted({*PHRASES, *ATTEMPTS}):
        words = PHRASES.get(action) or ATTEMPTS[action]
        said = words.replace("{}", "…").strip()
        groups.setdefault(action.partition(":")[0], []).append((action, said))
    return sorted(groups.items())


def subject_types() -> list[str]:
    """Kinds of things that events are about."""
    return sorted(ICONS)


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
    person = event.subject_type == "person"
    whole = OF_A_PERSON.get(event.action, ("", "")) if person else ("", "")
    refused = event.outcome == "denied" or (event.outcome == "failed" and event.action in ATTEMPTS)
    if refused:
        tried = whole[1] or ATTEMPTS.get(event.action, f"{verb.replace('_', ' ')} {{}}")
        end = "was refused" if event.outcome == "denied" else "failed"
        what = f"tried to {_about(tried, event)} and {end}"
    else:
        done = f"did “{verb.replace('_', ' ')}” to {{}}"
        what = _about(whole[0] or PHRASES.get(event.action, done), event)
    tone = {"allowed": "", "denied": "bad", "failed": "warn"}.get(event.outcome, "")
    return Described(
        event=event,
        who=WHO.get((event.actor_kind, event.actor_id)) or event.actor_name or _actor(event),
        what=what,
        icon="ban" if event.outcome == "denied" else ICONS.get(resource, "circle-dot"),
        tone=tone,
    )


def _about(phrase: str, event: AuditEvent) -> str:
    """The phrase with its subject: by name, else by number, else as one of its kind."""
    kind = event.subject_type.replace("_", " ")
    name = event.subject_name
    if name == event.subject_id and event.subject_type not in NAMED_BY_ID:
        name = ""
    if not name and event.subject_id:
        name = f"{kind} {event.subject_id}"
    if not name:
        article = "an" if kind[:1] in "aeiou" else "a"
        # "the key {}" is then "a key".
        return re.sub(r"(?:the (?:[a-z]+ ){1,2})?\{\}", f"{article} {kind}", phrase)
    if event.action.startswith("quota:"):
        of_kind, of, whose = name.partition(" of ")
        name = f"{of_kind.replace('_', ' ')}{of}{whose.replace(':', ' ')}"
    if event.subject_type == "endpoint":
        name = ENDPOINTS.get(name, name)
    return re.sub(rf"(?:the {kind} )?\{{\}}", lambda found: _once(found[0], kind, name), phrase)


def _once(found: str, kind: str, name: str) -> str:
    """The subject without its kind said twice: not "the group group 4"."""
    if found.startswith("the ") and name.startswith(f"{kind} "):
        return name
    return found.replace("{}", name)


def _actor(event: AuditEvent) -> str:
    return f"{event.actor_kind} {event.actor_id}".strip()
