"""Personal data in audit events: in boxes, each under the key of the person concerned.

An event's canonical bytes never hold a person's name, addresses or what is said about them in
clear. They hold `"personal": [{"of": "person:17", "box": "<base64>"}]`; a box is ChaCha20-Poly1305
(RFC 8439) of 32 zero bytes, which bind it to its key, and a JSON object that is merged over the
event to read it. Its key is HKDF-SHA256 (RFC 5869) of the person's key, salted with the event's
nonce: used once, so with a zero nonce. Destroying a person's key makes every box of theirs
unreadable, and leaves every hash as it was.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from django.db import connection

from governance import strict_json
from governance.audit.boxes import COMMITMENT, ZERO_NONCE, Body, merged, open_box
from governance.audit.models import AuditEvent

INFO = b"assay audit box v1"
KEY_BYTES = 32
PREFIX = "person:"
_KEYS = """
SELECT person_id, key FROM governance_auditpersonkey WHERE person_id = ANY (%s) AND key IS NOT NULL
"""
# Of `data`, what says nothing about the person that an event is about.
IMPERSONAL = frozenset({"decision", "code", "status"})


@dataclass(frozen=True, slots=True)
class Disclosure:
    """The key of one box of one event: whoever has it can open that box and no other."""

    of: str
    key: bytes


def person_keys(people: Iterable[int]) -> dict[int, bytes]:
    """The keys of those of `people` who have one: it is gone once they are erased."""
    wanted = set(people)
    if not wanted:
        return {}
    with connection.cursor() as cursor:
        # In plain SQL, since this is in the way of every change that a person makes.
        cursor.execute(_KEYS, [list(wanted)])
        return {person: bytes(key) for person, key in cursor.fetchall()}


def box_key(person_key: bytes, nonce: str) -> bytes:
    """The key of a person's box in the event of that nonce (hexadecimal)."""
    hkdf = HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=bytes.fromhex(nonce), info=INFO)
    return hkdf.derive(person_key)


def put_in_boxes(
    body: Body, *, actor: int | None, subject: int | None, keys: Mapping[int, bytes]
) -> Body:
    """The event's body with what is personal moved into boxes.

    Args:
        body: A canonical body, with its nonce; it is not modified.
        actor, subject: Ids of the person who acts, and of the one it is about, if they are people.
        keys: Their keys. Of who has none, being erased, name and address are left out for good, and
            so is a reason that may name them: what was refused is recorded after it happened.
    """
    if actor is None and subject is None:
        return body
    body = {**body, "data": dict(body["data"])}
    boxes: dict[int, Body] = {}
    if subject is not None:
        about = boxes.setdefault(subject, {})
        name = body["subject_name"]
        # A person who was erased before is called by number, which is not personal data.
        known = name and name.casefold() != f"erased person {subject}"
        named = known and name in body["reason"]
        _move(body, about, "subject_name")
        if subject in keys:
            _move_data(body, about)
        if subject in keys or named:
            _move(body, about, "reason")
        if actor is None:
            _move_address(body, about)
        _move_decided(body, about, "resource", "name", blank=True)
    if actor is not None:
        by = boxes.setdefault(actor, {})
        names = {body["actor_name"]} - {""}
        _move(body, by, "actor_name")
        _move_address(body, by)
        _move_decided(body, by, "principal", "name", blank=True)
        # A refusal's sentence says who was refused.
        told = body["outcome"] == "denied" or any(name in body["reason"] for name in names)
        if told:
            _move(body, by, "reason")
    nonce = body["nonce"]
    sealed = [
        {"of": f"{PREFIX}{person}", "box": _sealed(content, box_key(keys[person], nonce))}
        for person, content in boxes.items()
        if person in keys and content
    ]
    return {**body, "personal": sealed}


def sealed_body(event: AuditEvent) -> Body:
    """Return the hashed body: the decoded canonical bytes.

    Raises:
        ValueError: they are not a JSON object whose names are unique, which only tampering can
            cause.
    """
    body = strict_json.loads(bytes(event.canonical))
    if not isinstance(body, dict):
        raise ValueError(f"audit event {event.pk} is no JSON object")
    return body


def opened_body(event: AuditEvent) -> Body:
    """Return the recorded body: canonical, with every box in it that can still be opened.

    Raises:
        ValueError: as `sealed_body`.
    """
    return opened_bodies([event])[0]


def opened_bodies(events: Iterable[AuditEvent]) -> list[Body]:
    """As `opened_body` for many, whose keys are read at once."""
    bodies = [sealed_body(event) for event in events]
    keys = person_keys(people_in_boxes(bodies))
    return [with_boxes(body, keys) for body in bodies]


def opened(events: Iterable[AuditEvent]) -> list[AuditEvent]:
    """The events, with the names and reasons that stand in boxes filled in, in memory alone.

    An erased person is "erased person 17". An event whose bytes were tampered with is shown with
    its columns.
    """
    found = list(events)
    bodies: list[Body] = []
    for event in found:
        try:
            bodies.append(sealed_body(event))
        except ValueError:
            bodies.append({})
    keys = person_keys(people_in_boxes(bodies))
    for event, body in zip(found, bodies, strict=True):
        if _boxes(body):
            _fill(event, with_boxes(body, keys), keys)
    return found


def disclosures(events: Iterable[AuditEvent]) -> dict[int, list[Disclosure]]:
    """By the events' ids, the keys of their boxes, for who takes the events along."""
    found = [(event.pk, sealed_body(event)) for event in events]
    keys = person_keys(people_in_boxes(body for _, body in found))
    return {
        pk: [
            Disclosure(f"{PREFIX}{person}", box_key(keys[person], body["nonce"]))
            for person, _ in _boxes(body)
            if person in keys
        ]
        for pk, body in found
    }


def _move(body: Body, box: Body, name: str) -> None:
    if body[name]:
        box[name], body[name] = body[name], ""


def _move_address(body: Body, box: Body) -> None:
    _move(body, box, "client_address")
    _move_decided(body, box, "context", "client_address", blank=False)


def _move_data(body: Body, box: Body) -> None:
    said = {name: value for name, value in body["data"].items() if name not in IMPERSONAL}
    if said:
        box.setdefault("data", {}).update(said)
        body["data"] = {name: v for name, v in body["data"].items() if name in IMPERSONAL}


def _move_decided(body: Body, box: Body, part: str, name: str, *, blank: bool) -> None:
    """Take a field out of one part of the recorded decision; leave it blank, or out."""
    decision = body["data"].get("decision")
    inner = decision.get(part) if isinstance(decision, dict) else None
    if not isinstance(decision, dict) or not isinstance(inner, dict) or not inner.get(name):
        return
    kept = {other: value for other, value in inner.items() if other != name}
    if blank:
        kept[name] = ""
    body["data"]["decision"] = {**decision, part: kept}
    taken = box.setdefault("data", {}).setdefault("decision", {})
    taken[part] = {name: inner[name]}


def _sealed(content: Body, key: bytes) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    clear = COMMITMENT + text.encode("utf-8", "replace")
    box = ChaCha20Poly1305(key).encrypt(ZERO_NONCE, clear, None)
    return base64.b64encode(box).decode()


def _boxes(body: Body) -> list[tuple[int, bytes]]:
    """Person and bytes of every box that is one; a body that was tampered with has any shape."""
    listed = body.get("personal")
    found = []
    for entry in listed if isinstance(listed, list) else ():
        try:
            kind, _, person = entry["of"].partition(":")
            if f"{kind}:" == PREFIX:
                found.append((int(person), base64.b64decode(entry["box"], validate=True)))
        except (ValueError, KeyError, TypeError, AttributeError):
            continue
    return found


def with_boxes(body: Body, keys: Mapping[int, bytes]) -> Body:
    """The body with every box of the people of `keys` merged in."""
    for person, box in _boxes(body):
        try:
            body = merged(body, open_box(box, box_key(keys[person], body["nonce"])))
        except (KeyError, ValueError, TypeError):
            continue
    return body


def people_in_boxes(bodies: Iterable[Body]) -> set[int]:
    """Ids of the people of whom something stands in the boxes of `bodies`."""
    return {person for body in bodies for person, _ in _boxes(body)}


def box_opens(body: Body, person: int, keys: Mapping[int, bytes]) -> bool:
    """True when the person's key opens their boxes in `body`; also when they have none."""
    if person not in keys:
        return True
    try:
        key = box_key(keys[person], body["nonce"])
        for of, box in _boxes(body):
            if of == person:
                open_box(box, key)
    except (KeyError, ValueError, TypeError):
        return False
    return True


def _fill(event: AuditEvent, body: Body, keys: Mapping[int, bytes]) -> None:
    for name in ("actor_name", "subject_name", "reason"):
        setattr(event, name, str(body.get(name, "")))
    who, what = event.actor_id, event.subject_id
    for person, _ in _boxes(body):
        if person in keys:
            continue
        gone = f"erased person {person}"
        if not event.actor_name and who == str(person):
            event.actor_name = gone
        if not event.subject_name and (event.subject_type, what) == ("person", str(person)):
            event.subject_name = gone
