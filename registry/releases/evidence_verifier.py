#!/usr/bin/env python3
"""Check an evidence pack. Needs Python 3.8 or later and nothing else; uses no network.

    python3 verify.py                      the folder of this file
    python3 verify.py pack.zip             a packed archive, or another folder
    python3 verify.py pack.zip --key KEY   with the log's public key as you know it from elsewhere
    python3 verify.py --witness KEY        the checkpoint must be cosigned by this witness

Without --key, the pack is checked with the key in it, which shows that it is consistent, not who
signed it. Exits with 0 if every check passes, else with 1.

Ed25519 is RFC 8032, ChaCha20-Poly1305 RFC 8439, the tree of the log RFC 6962, and signed texts are
C2SP signed notes (https://c2sp.org/signed-note). Canonical JSON: sorted keys, no spaces, UTF-8.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import hmac
import json
import os
import re
import struct
import sys
import zlib
from collections.abc import Iterator
from typing import Any

FORMAT = "assay-evidence/1"
MAX_BYTES = 256 * 1024 * 1024


class Fault(Exception):
    """A check of the pack failed; the text says why."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise Fault("an object names a member twice, so readers may understand it differently")
    return members


def _constant(name: str) -> Any:
    raise Fault(f"{name} is not JSON")


def loads(data: str | bytes) -> Any:
    """Return the value of a JSON text that every reader understands alike."""
    return json.loads(data, object_pairs_hook=_unique, parse_constant=_constant)


# --- Ed25519: RFC 8032, section 5.1 ---------------------------------------------------------------

_P = 2**255 - 19
_ORDER = 2**252 + 27742317777372353535851937790883648493
_D = -121665 * pow(121666, _P - 2, _P) % _P
_ROOT = pow(2, (_P - 1) // 4, _P)


def _point(data: bytes) -> tuple[int, int, int, int]:
    number = int.from_bytes(data, "little")
    y, sign = number & ((1 << 255) - 1), number >> 255
    if len(data) != 32 or y >= _P:
        raise ValueError("not a canonical encoding of a point")
    square = (y * y - 1) * pow(_D * y * y + 1, _P - 2, _P) % _P
    x = pow(square, (_P + 3) // 8, _P)
    if (x * x - square) % _P:
        x = x * _ROOT % _P
    if (x * x - square) % _P or (x == 0 and sign):
        raise ValueError("not a point of the curve")
    x = _P - x if x & 1 != sign else x
    return x, y, 1, x * y % _P


def _add(p: tuple[int, int, int, int], q: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
    a, b = (p[1] - p[0]) * (q[1] - q[0]) % _P, (p[1] + p[0]) * (q[1] + q[0]) % _P
    c, d = 2 * p[3] * q[3] * _D % _P, 2 * p[2] * q[2] % _P
    e, f, g, h = b - a, d - c, d + c, b + a
    return e * f % _P, g * h % _P, f * g % _P, e * h % _P


def _times(scalar: int, point: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
    total = (0, 1, 1, 0)
    while scalar:
        total = _add(total, point) if scalar & 1 else total
        point, scalar = _add(point, point), scalar >> 1
    return total


_BASE = _point((4 * pow(5, _P - 2, _P) % _P).to_bytes(32, "little"))


def ed25519_valid(public: bytes, message: bytes, signature: bytes) -> bool:
    """Check a signature strictly: scalar below the order, canonical points, no small-order key."""
    try:
        key = _point(public)
    except ValueError:
        return False
    scalar = int.from_bytes(signature[32:], "little")
    if len(signature) != 64 or scalar >= _ORDER or _times(8, key)[0] % _P == 0:
        return False
    digest = hashlib.sha512(signature[:32] + public + message).digest()
    factor = int.from_bytes(digest, "little") % _ORDER
    minus_key = (_P - key[0], key[1], 1, _P - key[3])
    x, y, z, _ = _add(_times(scalar, _BASE), _times(factor, minus_key))
    inverse = pow(z, _P - 2, _P)
    encoded = y * inverse % _P | (x * inverse % _P & 1) << 255
    return encoded.to_bytes(32, "little") == signature[:32]


# --- ChaCha20-Poly1305: RFC 8439 ------------------------------------------------------------------

_COLUMNS = ((0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15))
_DIAGONALS = ((0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14))


def chacha20_block(key: bytes, counter: int, nonce: bytes) -> bytes:
    start = [0x61707865, 0x3320646E, 0x79622D32, 0x6B206574]
    start += [*struct.unpack("<8L", key), counter, *struct.unpack("<3L", nonce)]
    s = list(start)
    for _ in range(10):
        for a, b, c, d in _COLUMNS + _DIAGONALS:
            for to, other, by, shift in (a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7):
                s[to] = (s[to] + s[other]) & 0xFFFFFFFF
                word = s[by] ^ s[to]
                s[by] = (word << shift | word >> (32 - shift)) & 0xFFFFFFFF
    return struct.pack("<16L", *((s[at] + start[at]) & 0xFFFFFFFF for at in range(16)))


def poly1305(key: bytes, data: bytes) -> bytes:
    r = int.from_bytes(key[:16], "little") & 0x0FFFFFFC0FFFFFFC0FFFFFFC0FFFFFFF
    total = 0
    for at in range(0, len(data), 16):
        total = (total + int.from_bytes(data[at : at + 16] + b"\x01", "little")) * r % (2**130 - 5)
    return ((total + int.from_bytes(key[16:], "little")) % 2**128).to_bytes(16, "little")


def decrypted(key: bytes, nonce: bytes, box: bytes, extra: bytes = b"") -> bytes:
    """Return the content of the box; its tag is the last 16 bytes.

    Raises:
        Fault: the tag does not match the key.
    """
    if len(key) != 32 or len(nonce) != 12 or len(box) < 16:
        raise Fault("a box or its key has a wrong length")
    text, tag = box[:-16], box[-16:]
    padded = extra + bytes(-len(extra) % 16) + text + bytes(-len(text) % 16)
    sealed = padded + struct.pack("<QQ", len(extra), len(text))
    if not hmac.compare_digest(poly1305(chacha20_block(key, 0, nonce)[:32], sealed), tag):
        raise Fault("a box does not open with its key")
    blocks = range(1, 1 - len(text) // -64)
    stream = b"".join(chacha20_block(key, at, nonce) for at in blocks)[: len(text)]
    clear = int.from_bytes(text, "big") ^ int.from_bytes(stream, "big")
    return clear.to_bytes(len(text), "big")


# --- The log: RFC 6962 and signed notes -----------------------------------------------------------


def leaf_hash(data: bytes) -> bytes:
    return hashlib.sha256(b"\x00" + data).digest()


def root_from(leaf: bytes, index: int, size: int, path: list[bytes]) -> bytes:
    """Return the root that an inclusion path leads to (RFC 9162, section 2.1.3.2)."""
    if not 0 <= index < size:
        raise Fault(f"event {index} is outside the tree")
    node, last, result = index, size - 1, leaf
    for sibling in path:
        if last == 0:
            raise Fault(f"the path of event {index} is too long")
        if node & 1 or node == last:
            result = hashlib.sha256(b"\x01" + sibling + result).digest()
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            result = hashlib.sha256(b"\x01" + result + sibling).digest()
        node, last = node >> 1, last >> 1
    if last:
        raise Fault(f"the path of event {index} is too short")
    return result


def decoded(text: str) -> bytes:
    """Decode canonical Base64."""
    data = base64.b64decode(text, validate=True)
    if base64.b64encode(data).decode() != text:
        raise Fault("it is not canonical base64")
    return data


def public_keys(text: str, kind: bytes = b"\x01") -> tuple[str, dict[bytes, bytes]]:
    """Parse `name+hash+base64`, separated by commas, into the owner and the keys by ID."""
    names, keys = set(), {}
    for part in filter(None, (each.strip() for each in text.replace("\n", ",").split(","))):
        name, claimed, encoded = part.split("+", 2)
        data = decoded(encoded)
        key_id = hashlib.sha256(name.encode() + b"\n" + data).digest()[:4]
        if data[:1] != kind or len(data) != 33 or key_id.hex() != claimed:
            raise Fault(f"{part[:80]} is not an Ed25519 key of that kind, or is damaged")
        names.add(name)
        keys[key_id] = data[1:]
    if len(names) != 1:
        raise Fault("the public keys must be those of one owner")
    return names.pop(), keys


def signed_lines(note: bytes, name: str, keys: dict[bytes, bytes], origin: str) -> list[str]:
    """Return the three lines of a note of `origin` that one of the keys signed as `name`."""
    text, separator, signatures = note.decode("utf-8").partition("\n\n")
    lines, prefix = text.split("\n"), f"\N{EM DASH} {name} "
    if not separator or len(lines) != 3 or not signatures.endswith("\n"):
        raise Fault("it is not a signed note of three lines")
    if lines[0] != origin:
        raise Fault(f"it is a note of {lines[0][:80]}, not of {origin}")
    for line in signatures.split("\n"):
        if line.startswith(prefix):
            data = decoded(line[len(prefix) :])
            if ed25519_valid(keys.get(data[:4], b""), text.encode() + b"\n", data[4:]):
                return lines
    raise Fault(f"it carries no valid signature by {name}")


def cosigned(note: bytes, witness: str) -> str:
    """Return the name of the witness if it cosigned (https://c2sp.org/tlog-cosignature)."""
    name, keys = public_keys(witness, b"\x04")
    text, _, signatures = note.decode("utf-8").partition("\n\n")
    for line in signatures.split("\n"):
        if line.startswith(f"\N{EM DASH} {name} "):
            data = decoded(line.split(" ")[2])
            message = f"cosignature/v1\ntime {int.from_bytes(data[4:12], 'big')}\n{text}\n"
            if ed25519_valid(keys.get(data[:4], b""), message.encode(), data[12:]):
                return name
    raise Fault(f"{name} did not cosign the checkpoint")


# --- The pack -------------------------------------------------------------------------------------


def canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def merged(under: Any, over: Any) -> Any:
    """Return `under` with its blanks filled from the content of a box, object by object."""
    if not isinstance(under, dict) or not isinstance(over, dict):
        if under not in (None, "", over):
            raise Fault("a box contradicts its event")
        return over
    return {**under, **{name: merged(under.get(name), value) for name, value in over.items()}}


def conditions_logged(conditions: dict[str, Any]) -> dict[str, Any]:
    """Return the conditions in the form that the log holds: free texts as their SHA-256."""
    logged = dict(conditions)
    if "obligations" in logged:
        texts = [str(text).encode() for text in logged["obligations"]]
        logged["obligations"] = [hashlib.sha256(text).hexdigest() for text in texts]
    return logged


class Pack:
    """The files of a pack. Each check returns its result in words, or raises Fault."""

    def __init__(self, files: dict[str, bytes], key: str, witnesses: tuple[str, ...]) -> None:
        self.files, self.witnesses = files, witnesses
        self.manifest: Any = loads(files["manifest.json"])
        self.name, self.keys = public_keys(key or files["public-keys.txt"].decode())
        self.subject = f"release {self.manifest['release']['id']}"
        self.size, self.root = 0, b""
        # Position in the log → body of the event.
        self.events: dict[int, Any] = {}

    def read(self, name: str) -> Any:
        return loads(self.files[name])

    def allowed(self, kind: str, *actions: str) -> list[Any]:
        """Return the actions on this release and its reviews, in order."""
        bodies = [body for _, body in sorted(self.events.items()) if body["outcome"] == "allowed"]
        own = {("release", str(self.manifest["release"]["id"]))}
        for body in bodies:
            if body["action"] == "review:opened" and body["data"]["subject"] == self.subject:
                own.add(("review", body["subject_id"]))
        return [
            body
            for body in bodies
            if body["subject_type"] == kind and (kind, body["subject_id"]) in own
            if not actions or body["action"] in actions
        ]

    def signature(self) -> str:
        origin = f"{self.name}/evidence"
        lines = signed_lines(self.files["manifest.sig"], self.name, self.keys, origin)
        digest = hashlib.sha256(self.files["manifest.json"]).hexdigest()
        if lines[1:] != [self.subject, digest]:
            raise Fault("the signature is of another manifest")
        if (self.manifest["format"], self.manifest["log"]) != (FORMAT, self.name):
            raise Fault("the manifest is of another format or another log")
        return f"{self.name} signed the list of files"

    def digests(self) -> str:
        listed = {entry["path"]: entry for entry in self.manifest["files"]}
        expected = {*listed, "manifest.json", "manifest.sig"}
        for name in sorted(expected ^ set(self.files)):
            raise Fault(f"{name} is {'missing' if name in expected else 'not of the pack'}")
        for name, entry in listed.items():
            actual = (hashlib.sha256(self.files[name]).hexdigest(), len(self.files[name]))
            if actual != (entry["sha256"], entry["size"]):
                raise Fault(f"{name} was changed")
        return f"{len(listed)} files match the list, and there are no others"

    def checkpoint(self) -> str:
        lines = signed_lines(self.files["checkpoint.txt"], self.name, self.keys, self.name)
        self.size, self.root = int(lines[1]), decoded(lines[2])
        if str(self.size) != lines[1]:
            raise Fault("the checkpoint's size is not a number in canonical form")
        if self.manifest["checkpoint"] != {"size": self.size, "root": self.root.hex()}:
            raise Fault("the manifest names another checkpoint")
        by = [self.name, *(cosigned(self.files["checkpoint.txt"], key) for key in self.witnesses)]
        return f"{', '.join(by)} signed the root over its first {self.size} events"

    def inclusion(self) -> str:
        last = -1
        for event in self.read("events.json")["events"]:
            at, data = event["sequence"], event["canonical"].encode("utf-8")
            if at <= last:
                raise Fault("events are not in order, or one appears twice")
            if leaf_hash(data).hex() != event["leaf_hash"]:
                raise Fault(f"event {at} was changed")
            path = [bytes.fromhex(step) for step in event["path"]]
            if root_from(leaf_hash(data), at, self.size, path) != self.root:
                raise Fault(f"event {at} is not in the log")
            self.events[at], last = loads(data), at
        return f"{len(self.events)} events lead to the signed root"

    def boxes(self) -> str:
        opened, closed = 0, set()
        for event in self.read("events.json")["events"]:
            body = self.events[event["sequence"]]
            keys = {each["of"]: bytes.fromhex(each["key"]) for each in event["disclosures"]}
            for box in body.get("personal", []):
                if box["of"] not in keys:
                    closed.add(box["of"])
                    continue
                content = decrypted(keys[box["of"]], bytes(12), decoded(box["box"]))
                if content[:32] != bytes(32):
                    raise Fault("a box is not bound to its key")
                body = merged(body, loads(content[32:]))
                opened += 1
            self.events[event["sequence"]] = body
        erased = (
            f"; some of {len(closed)} people stay closed: erased, or of another department"
            if closed
            else ""
        )
        return f"names in {opened} boxes could be read{erased}"

    def dossier(self) -> str:
        data, digest = self.files["dossier.json"], self.manifest["dossier"]
        dossier = loads(data)
        if hashlib.sha256(data).hexdigest() != digest or canonical(dossier) != data:
            raise Fault(f"the dossier does not have the digest {digest[:12]}")
        logged = {"after": "in_review"}
        for body in self.allowed("release"):
            logged.update(body["data"])
        if (logged["dossier"], logged["version"]) != (digest, dossier["identity"]["digest"]):
            raise Fault("the log names another dossier or another version of the model")
        if logged["after"] != self.manifest["release"]["state"]:
            raise Fault(f"the log says that the release is {logged['after']}")
        identity, place = dossier["identity"], dossier["release"]
        stated = {name: place[name] for name in ("department", "deployment_name", "environment")}
        stated["version"] = f"{identity['model']} v{identity['version']}"
        if not stated.items() <= self.manifest["release"].items():
            raise Fault("the manifest describes another release than the dossier")
        return f"the log names {digest}"

    def model(self) -> str:
        dossier = self.read("dossier.json")
        identity = dossier["identity"]
        files = sorted(identity["files"], key=lambda file: str(file["path"]))
        bases = [None, *(base["digest"] for base in identity["bases"][:1])]
        digests = [
            hashlib.sha256(canonical({"base": b, "files": files})).hexdigest() for b in bases
        ]
        if identity["digest"] not in digests:
            raise Fault("the model's files do not give the digest of the version")
        component = self.read("mlbom.cdx.json")["metadata"]["component"]
        listed = {each["name"]: each["hashes"] for each in component["components"]}
        if listed != {f["path"]: [{"alg": "SHA-256", "content": f["sha256"]}] for f in files}:
            raise Fault("the bill of materials names other files than the dossier")
        measured = {each["id"]: each for each in self.read("evaluations.json")["evaluations"]}
        for each in dossier["evaluations"]:
            if any(measured[each["id"]][name] != each[name] for name in ("digest", "metrics")):
                raise Fault(f"evaluation {each['id']} differs from the dossier")
        return f"{len(files)} files and the evaluations match the dossier"

    def review_policy(self) -> str:
        named = self.read("dossier.json").get("review_policy")
        if not named:
            return "the dossier names none"
        texts = [
            review.get("review_policy") or {} for review in self.read("decisions.json")["reviews"]
        ]
        for each in texts:
            if each and hashlib.sha256(each["text"].encode()).hexdigest() != each["digest"]:
                raise Fault(f"the text of {each['name']} v{each['version']} has another digest")
        if not any(named.items() <= each.items() for each in texts):
            raise Fault("no review was held under the review policy that the dossier names")
        return f"{named['name']} v{named['version']}, whose text has the digest in the dossier"

    def decisions(self) -> str:
        names = ("verdict", "specialty", "digest", "round")
        left = self.allowed("review", "release:decide", "review:comment")
        left = [body for body in left if "thread" not in body["data"]]
        count = len(left)
        for review in self.read("decisions.json")["reviews"]:
            for each in review["decisions"]:
                body, person = self.events.get(each["event"]), each["person"]
                if body is None or body not in left:
                    raise Fault(f"the log has no decision by {person['name']} at {each['event']}")
                left.remove(body)
                stated = ["person", str(person["id"]), each["at"], str(review["id"]), self.subject]
                logged = [
                    body[of] for of in ("actor_kind", "actor_id", "occurred_at", "subject_id")
                ]
                stated += [each[name] for name in names]
                logged += [body["data"][name] for name in ("subject", *names)]
                stated.append((each.get("in_place_of") or {}).get("id"))
                logged.append(body["data"].get("in_place_of"))
                stated += [each.get(name) for name in ("proof_method", "proved_at")]
                logged += [body["data"].get(name) for name in ("proof_method", "proved_at")]
                stated.append(conditions_logged(each.get("conditions", {})))
                logged.append(body["data"].get("conditions", {}))
                if stated != logged or body["actor_name"] not in ("", person["name"]):
                    raise Fault(f"event {each['event']} is of another decision by {person['name']}")
                # The log has at most 2,000 characters of a reason; a cut one ends with a mark.
                reason, text = body["reason"], each["reason"]
                cut = len(reason) == 2000 and text.startswith(reason[:-1])
                if reason != text and not cut:
                    raise Fault(f"event {each['event']} gives another reason")
        if left:
            raise Fault(f"{len(left)} decisions of the log are not in decisions.json")
        conditions = conditions_logged(self.read("decisions.json").get("conditions", {}))
        for body in self.allowed("release", "release:approved"):
            if body["data"].get("conditions", {}) != conditions:
                raise Fault("the release was approved on other conditions than decisions.json says")
        return f"{count} decisions and comments match the log"

    def waivers(self) -> str:
        steps: dict[int, list[Any]] = {}
        for body in self.allowed("review"):
            if body["action"].startswith("waiver:"):
                steps.setdefault(body["data"]["waiver"], []).append(body)
        reviews = self.read("decisions.json")["reviews"]
        stated = {each["id"]: (str(r["id"]), each) for r in reviews for each in r["waivers"]}
        if steps.keys() != stated.keys():
            raise Fault("decisions.json has other waivers than the log")
        for number, bodies in steps.items():
            review, waiver = stated[number]
            history = waiver["history"]
            if len(history) != len(bodies) or waiver["state"] != history[-1]["state"]:
                raise Fault(f"waiver {number} has other steps than in the log")
            asked_by = bodies[0]["actor_id"]
            for at, body in enumerate(bodies):
                step = history[at]
                action = "waiver:" + step["state"].replace("requested", "request")
                person = str(step["person"]["id"]) if step["person"] else body["actor_id"]
                expected = [action, person, step["at"], step["reason"], review, asked_by]
                expected += [waiver[name] for name in ("item", "digest", "expires_at")]
                of = ("action", "actor_id", "occurred_at", "reason", "subject_id")
                logged = [*(body[name] for name in of), str(body["data"]["asked_by"])]
                logged += [body["data"][name] for name in ("item", "digest", "expires_at")]
                if logged != expected or body is not self.events.get(step["event"]):
                    raise Fault(f"event {step['event']} differs from waiver {number}")
        granted = [
            f"{waiver['item']} until {waiver['expires_at'][:10]}"
            for _, waiver in stated.values()
            if waiver["state"] == "granted"
        ]
        return f"{len(stated)} requested; in force: {', '.join(granted) or 'none'}"

    def threads(self) -> str:
        left = [body for body in self.allowed("review") if "thread" in body["data"]]
        actions = {
            "comment": "review:comment",
            "resolve": "review:resolve_thread",
            "reopen": "review:reopen_thread",
        }
        count, still = 0, 0
        for review in self.read("decisions.json")["reviews"]:
            for thread in review.get("threads", []):
                count += 1
                state = "open"
                for entry in thread["entries"]:
                    body, person = self.events.get(entry["event"]), entry["person"]
                    if body is None or body not in left:
                        raise Fault(f"the log has nothing by {person['name']} at {entry['event']}")
                    left.remove(body)
                    stated = [actions[entry["said"]], "person", str(person["id"]), entry["at"]]
                    stated += [str(review["id"]), self.subject, thread["id"], thread["anchor"]]
                    stated += [thread["blocking"], entry["digest"], entry["round"]]
                    of = ("action", "actor_kind", "actor_id", "occurred_at", "subject_id")
                    facts = ("subject", "thread", "anchor", "blocking", "digest", "round")
                    logged = [body[name] for name in of] + [body["data"][name] for name in facts]
                    if stated != logged or body["actor_name"] not in ("", person["name"]):
                        raise Fault(f"event {entry['event']} differs from its thread")
                    logged_text, text = body["reason"], entry["text"]
                    cut = len(logged_text) == 2000 and text.startswith(logged_text[:-1])
                    if logged_text != text and not cut:
                        raise Fault(f"event {entry['event']} has another text")
                    if entry["said"] != "comment":
                        state = "resolved" if entry["said"] == "resolve" else "open"
                if thread["state"] != state:
                    raise Fault(f"thread {thread['id']} is {state} by the log")
                still += state == "open"
        if left:
            raise Fault(f"{len(left)} entries of threads in the log are not in decisions.json")
        return f"{count} threads match the log; {still} of them open"

    def separation(self) -> str:
        made = {body["actor_id"] for body in self.allowed("release", "release:submit")}
        for body in self.allowed("review"):
            if body["action"] == "review:opened":
                made |= {body["actor_id"], *map(str, body["data"]["excluded_people"])}
            elif body["action"] == "review:reopened":
                # A person who answered the reviewers has a part in it from then on.
                made.add(body["actor_id"])
            elif body["action"] == "release:decide":
                # A deputy's vote counts for the absent person too.
                for person in (body["actor_id"], str(body["data"].get("in_place_of"))):
                    if person in made:
                        raise Fault(f"person {person} decided on their own work")
            elif body["action"] == "waiver:granted" and body["actor_id"] in {
                *made,
                str(body["data"]["asked_by"]),
            }:
                raise Fault(f"person {body['actor_id']} granted a waiver of their own")
        return "no person decided on what they submitted or made"

    def approval(self) -> str:
        if not self.allowed("release", "release:approved"):
            return f"none; the release is {self.manifest['release']['state'].replace('_', ' ')}"
        number = self.allowed("review", "review:approved")[-1]["subject_id"]
        opened = self.allowed("review", "review:opened")
        seen: set[int] = set()
        blocked: set[int] = set()
        for body in self.allowed("review"):
            if body["subject_id"] != number:
                continue
            if body["action"] == "review:approved" and blocked:
                raise Fault(f"{len(blocked)} threads that block were open when it was approved")
            if body["data"].get("blocking"):
                thread = body["data"]["thread"]
                if body["action"] == "review:resolve_thread":
                    blocked.discard(thread)
                elif body["action"] == "review:reopen_thread" or thread not in seen:
                    blocked.add(thread)
                seen.add(thread)
        votes = [
            body
            for body in self.allowed("review", "release:decide")
            if (body["subject_id"], body["data"]["verdict"]) == (number, "approve")
            and body["data"]["digest"] == self.manifest["dossier"]
        ]
        last = max((body["data"]["round"] for body in votes), default=0)
        approvals = {
            body["actor_id"]: (body["data"]["specialty"], body["actor_name"] or "an erased person")
            for body in votes
            if body["data"]["round"] == last
        }
        (required,) = [b["data"]["required_approvals"] for b in opened if b["subject_id"] == number]
        for specialty, needed in required.items():
            if [each for each, _ in approvals.values()].count(specialty) < needed:
                raise Fault(f"fewer than {needed} approved this dossier for {specialty}")
        by = ", ".join(f"{name} for {specialty}" for specialty, name in approvals.values())
        return f"exactly this dossier, by {by}"


CHECKS = (
    ("Signature", Pack.signature),
    ("Files", Pack.digests),
    ("Checkpoint", Pack.checkpoint),
    ("Events", Pack.inclusion),
    ("Names", Pack.boxes),
    ("Dossier", Pack.dossier),
    ("Model", Pack.model),
    ("Review policy", Pack.review_policy),
    ("Decisions", Pack.decisions),
    ("Waivers", Pack.waivers),
    ("Threads", Pack.threads),
    ("Separation of duties", Pack.separation),
    ("Approval", Pack.approval),
)


def check(
    files: dict[str, bytes], key: str = "", witnesses: tuple[str, ...] = ()
) -> list[tuple[bool, str, str]]:
    """Run every check; return for each whether it passed, its title and its result in words."""
    try:
        pack = Pack(files, key, witnesses)
    except (Fault, KeyError, TypeError, ValueError, RecursionError) as error:
        return [(False, "Pack", f"this is not an evidence pack ({error})")]
    rows = []
    for title, one in CHECKS:
        try:
            rows.append((True, title, one(pack)))
        except Fault as fault:
            rows.append((False, title, str(fault)))
        except Exception as error:
            rows.append((False, title, f"it cannot be read ({type(error).__name__}: {error})"))
    return rows


_PLAIN = re.compile(r"(?!\.+$)[A-Za-z0-9._-]+")
_LOCAL, _CENTRAL = struct.Struct("<4s5H3L2H"), struct.Struct("<4s6H3L5H2L")


def unpacked(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of each file of an archive in the only form that packs may have.

    Entries fill it from the first byte to the directory, and the directory to the end, without
    comments and extra fields. In any other form, programs that read other parts of an archive could
    find other files.

    Raises:
        Fault, struct.error, zlib.error: it has another form, or is damaged.
    """
    if data[-22:-12] != b"PK\5\6" + bytes(4) + data[-12:-10] or data[-2:] != bytes(2):
        raise Fault("it does not end as the archive of a pack does")
    count, size, start = struct.unpack("<HLL", data[-12:-2])
    if start + size != len(data) - 22:
        raise Fault("there are bytes before, between or after its files")
    at, listed = 0, start
    for _ in range(count):
        central = _CENTRAL.unpack_from(data, listed)
        name_length, rest, offset = central[10], central[11:15], central[16]
        packed, length = central[8:10]
        listed += _CENTRAL.size + name_length
        name = data[listed - name_length : listed]
        content = at + _LOCAL.size + name_length
        # Version, flags, method, time, date, checksum, both sizes and the length of the name.
        local = _LOCAL.pack(b"PK\3\4", *central[2:11], 0)
        if central[0] != b"PK\1\2" or any(rest) or central[3] or offset != at:
            raise Fault("there are bytes before, between or after its files")
        if data[at:content] != local + name or central[4] not in (0, 8):
            raise Fault("one of its files is described in two ways, or packed in another way")
        if central[15] >> 16 & 0o170000 not in (0, 0o100000):
            raise Fault("an entry is not a file")
        at = content + packed
        inflated = data[content:at]
        if central[4]:
            inflate = zlib.decompressobj(-15)
            inflated = inflate.decompress(inflated, MAX_BYTES + 1)
            if len(inflated) <= MAX_BYTES and (not inflate.eof or inflate.unused_data):
                raise Fault("there are bytes between its files")
        if (len(inflated), zlib.crc32(inflated)) != (length, central[7]) and len(
            inflated
        ) <= MAX_BYTES:
            raise Fault("one of its files is damaged")
        yield name.decode("ascii"), inflated
    if at != start or listed != len(data) - 22:
        raise Fault("there are bytes before, between or after its files")


def load(path: str) -> dict[str, bytes]:
    """Return the files of an archive or a folder by name. Nothing is written to disk.

    Raises:
        Fault, OSError: it cannot be read, is too large, or contains a name twice.
    """
    files: dict[str, bytes] = {}
    names, left = set(), MAX_BYTES

    def keep(name: str, data: bytes) -> None:
        nonlocal left
        if name.lower() in names:
            raise Fault(f"{name} appears twice")
        if not all(_PLAIN.fullmatch(part) for part in name.split("/")):
            raise Fault(f"{name!r} is not a valid file name")
        names.add(name.lower())
        files[name] = data
        left -= len(data)
        if left < 0:
            raise Fault(f"it holds more than {MAX_BYTES} bytes")

    if os.path.isdir(path):
        for folder, folders, inside in os.walk(path):
            for full in (os.path.join(folder, name) for name in [*folders, *inside]):
                # Links to folders are not followed, so they could hide files.
                if os.path.islink(full) or not (os.path.isfile(full) or os.path.isdir(full)):
                    raise Fault(f"{os.path.relpath(full, path)} is not a file")
                if os.path.isfile(full):
                    with open(full, "rb") as file:
                        keep(os.path.relpath(full, path).replace(os.sep, "/"), file.read(left + 1))
        return files
    with open(path, "rb") as file:
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise Fault(f"it holds more than {MAX_BYTES} bytes")
    try:
        for name, content in unpacked(data):
            keep(name, content)
    except (struct.error, zlib.error, UnicodeError) as error:
        raise Fault(f"it is not an archive, or is damaged ({error})") from error
    return files


def main(arguments: list[str]) -> int:
    here = os.path.dirname(os.path.abspath(__file__))
    parser = argparse.ArgumentParser(description="Checks an evidence pack of a release.")
    parser.add_argument("pack", nargs="?", default=here, help="the archive, or its folder")
    parser.add_argument("--key", default="", help="the log's public key, known from elsewhere")
    parser.add_argument(
        "--witness", default=[], action="append", help="key of a witness who cosigned it"
    )
    options = parser.parse_args(arguments)
    try:
        rows = check(load(options.pack), options.key, tuple(options.witness))
    except (Fault, OSError) as error:
        rows = [(False, "Pack", f"{options.pack}: {error}")]
    holds = all(ok for ok, _, _ in rows)
    lines = [f"{'ok  ' if ok else 'FAIL'}  {title:<20}  {finding}" for ok, title, finding in rows]
    if not options.key:
        lines.append("Checked with the key in the pack; pass --key to check with your own.")
    lines.append("Every check passed." if holds else "Checks failed. Do not rely on this pack.")
    sys.stdout.buffer.write("\n".join([*lines, ""]).encode("utf-8", "replace"))
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
