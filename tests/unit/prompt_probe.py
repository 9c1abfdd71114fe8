"""The process of prompts, whose chat template tries what it lists."""

from __future__ import annotations

import json
from typing import Any

from registry.sandbox.forks import run_source
from tests.unit.reach import attempts
from workers.engines import prompt_process


def _probe(self: Any, template: str, messages: Any) -> bytes:
    return json.dumps(attempts(json.loads(template))).encode()


if __name__ == "__main__":
    prompt_process.Prompts.render = _probe  # type: ignore[method-assign]
    run_source(prompt_process.prepare, prompt_process.SETUP)
