"""Check SCIM with scim2-tester: URL and token in, results as JSON out."""

from __future__ import annotations

import json
import sys
from typing import Any
from uuid import uuid4

import httpx2
from scim2_client.engines.httpx2 import SyncSCIMClient
from scim2_tester import Status, check_server

URL, TOKEN = sys.argv[1:]
client = SyncSCIMClient(
    httpx2.Client(
        base_url=f"{URL}/scim/v2", headers={"Authorization": f"Bearer {TOKEN}"}, timeout=60
    )
)
client.discover()
user: Any = client.get_resource_model("User")
# SCIM's schemas cannot state that a user name is an e-mail address, or that a person's only address
# is the primary one.
user.model_fields["user_name"].examples = [f"{uuid4()}@example.org" for _ in range(10_000)]
user.Emails.model_fields["primary"].examples = [True]
results = check_server(client)
json.dump(
    {
        "passed": sum(result.status is Status.SUCCESS for result in results),
        "others": [
            [result.resource_type, result.title, result.status.name, result.reason]
            for result in results
            if result.status is not Status.SUCCESS
        ],
    },
    sys.stdout,
)
