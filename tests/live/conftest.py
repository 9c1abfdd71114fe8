"""Every process of a live test is the broker's user of its kind, and lacks no right."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
import redis as redis_module

from tests.services import broker_url


@pytest.fixture(autouse=True)
def _no_process_is_denied_by_the_broker() -> Iterator[None]:
    if broker_url("web") == os.environ["REDIS_URL"]:
        yield  # Another broker than the tests' own.
        return
    with redis_module.Redis.from_url(os.environ["REDIS_URL"]) as admin:
        admin.acl_log_reset()
        yield
        denied: Any = admin.acl_log()
        assert [(one["username"], one["reason"], one["object"]) for one in denied] == []
