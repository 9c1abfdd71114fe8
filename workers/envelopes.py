"""Check the format of messages that workers take from their queues; all others are not Assay's.

kombu and Celery trust what they read: invalid JSON, a tag that is not text or a body that unpacks
to gigabytes ends the only reading thread of a worker. So every message is checked before they see
it. `test_envelopes` compares the format with what gateways and Celery send. Uses neither Celery nor
Django.
"""

from __future__ import annotations

import binascii
import re
import uuid
from typing import Any

import orjson

from workers.wire import INFERENCE_TASK, JOB_QUEUE, JOB_TASK

# Media are not part of a request; its text has at most 2 MiB before sealing and encoding.
LONGEST = 32 * 1024**2
_PARTS = {"body", "content-encoding", "content-type", "headers", "properties"}
_NOT_CHAINED = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
# Headers that change how Celery handles a message, and their only allowed values.
_HEADERS: dict[str, tuple[Any, ...]] = {
    "eta": (None,),
    "group": (None,),
    "group_index": (None,),
    "retries": (0,),
    "timelimit": ([None, None],),
    "shadow": (None,),
    "parent_id": (None,),
    "replaced_task_nesting": (0,),
    "stamped_headers": (None,),
    "stamps": ({},),
    "ignore_result": (None, True),
}
# Headers that differ between messages: names and times.
_TEXTS = {"lang", "task", "id", "expires", "root_id", "argsrepr", "kwargsrepr", "origin"}
# Celery itself shortens its excerpts of arguments to 1,024 characters.
_TEXT_MAX = 2_048
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?\+00:00", re.ASCII)


class ForeignMessage(ValueError):
    """A message that no process of Assay sends; the text says what is wrong."""


def read_message(queue: str, data: bytes) -> dict[str, Any]:
    """Return a message from a queue in the form that kombu delivers, with a new tag.

    Raises:
        ForeignMessage: the message has another format.
    """
    if len(data) > LONGEST:
        raise ForeignMessage(f"it has {len(data):,} bytes")
    message = _object(data, "it")
    if message.keys() != _PARTS:
        raise ForeignMessage("its parts are not those of a message")
    if (message["content-type"], message["content-encoding"]) != ("application/json", "utf-8"):
        raise ForeignMessage("its content is not JSON")
    task = JOB_TASK if queue == JOB_QUEUE else INFERENCE_TASK
    _check_headers(message["headers"], task)
    _check_body(message["body"], task)
    if not isinstance(message["properties"], dict):
        raise ForeignMessage("its properties are not an object")
    # Workers need no other properties.
    message["properties"] = {
        "delivery_info": {"exchange": "", "routing_key": queue},
        "delivery_mode": 2,
        "delivery_tag": uuid.uuid4().hex,
        "body_encoding": "base64",
        "priority": 0,
        "correlation_id": message["headers"]["id"],
        "reply_to": "",
    }
    return message


def argument_of(message: dict[str, Any]) -> Any:
    """Return the only argument of the task in an opened message."""
    return orjson.loads(binascii.a2b_base64(message["body"]))[0][0]


def _object(data: bytes | str, what: str) -> dict[str, Any]:
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise ForeignMessage(f"{what} is not JSON") from error
    if not isinstance(value, dict):
        raise ForeignMessage(f"{what} is not an object")
    return value


def _check_headers(headers: Any, task: str) -> None:
    if not isinstance(headers, dict) or headers.keys() != _HEADERS.keys() | _TEXTS:
        raise ForeignMessage("its headers are not those of a task")
    for name, allowed in _HEADERS.items():
        # Compare types, too, because 0 equals False and 1 equals True.
        if not any(headers[name] == one and type(headers[name]) is type(one) for one in allowed):
            raise ForeignMessage(f"its header {name} has another value")
    expires = headers.pop("expires")
    for name in _TEXTS - {"expires"}:
        if not isinstance(headers[name], str) or len(headers[name]) > _TEXT_MAX:
            raise ForeignMessage(f"its header {name} is not a short text")
    if expires is not None and not (isinstance(expires, str) and _TIME.fullmatch(expires)):
        raise ForeignMessage("its header expires is not a time")
    headers["expires"] = expires
    if headers["task"] != task or not headers["id"]:
        raise ForeignMessage("it is for another task")


def _check_body(body: Any, task: str) -> None:
    try:
        content = orjson.loads(binascii.a2b_base64(body, strict_mode=True))
    except (ValueError, TypeError) as error:
        raise ForeignMessage("its body is not JSON in Base64") from error
    if not isinstance(content, list) or len(content) != 3 or content[1:] != [{}, _NOT_CHAINED]:
        raise ForeignMessage("its body is not a call of a task")
    arguments = content[0]
    kind = str if task == JOB_TASK else dict
    if not isinstance(arguments, list) or [type(one) for one in arguments] != [kind]:
        raise ForeignMessage("its body has other arguments")
    if kind is str:
        try:
            uuid.UUID(arguments[0])
        except ValueError as error:
            raise ForeignMessage("it names no job") from error
