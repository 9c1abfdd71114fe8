"""POST /v1/responses/input_tokens: count the tokens of an input, without generating."""

from __future__ import annotations

from dataclasses import replace

from assay.plugins import declare
from tasks.text_generation.messages_rendering import CountRenderer
from tasks.text_generation.responses import ResponsesRequest, continued, responses_plan


class InputTokensRequest(ResponsesRequest):
    """POST /v1/responses/input_tokens. Settings of an answer are refused."""

    max_output_tokens: None = None
    temperature: None = None
    top_p: None = None
    stream: None = None
    user: None = None
    metadata: None = None
    store: None = None
    background: None = None
    top_logprobs: None = None
    include: None = None
    prompt_cache_key: None = None
    safety_identifier: None = None
    service_tier: None = None
    personality: None = None


def read_input_tokens(body: declare.Body, request_id: str, name: str) -> declare.Plan:
    """Read POST /v1/responses/input_tokens. Raises RequestInvalid."""
    request = declare.parse(InputTokensRequest, body.data)

    def plan_of(request: ResponsesRequest, stored: bool) -> declare.Plan:
        plan = responses_plan(request, request_id, stored=stored)
        return replace(
            plan,
            options=plan.options.model_copy(update={"max_tokens": 0}),
            renderer=CountRenderer("response.input_tokens"),
            tokens=plan.prompt_tokens,
            counts_only=True,
        )

    return continued(request, False, plan_of)
