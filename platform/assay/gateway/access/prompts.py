"""Tokens that a deployment's own prompt adds to a request, for bounds and reservations.

Only the worker fills prompts in, from bytes that it has verified; the gateway counts tokens.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from registry.catalog.endpoints import Plan
from registry.catalog.generation import GenerationInputs, SamplingOptions
from registry.catalog.prompt import PromptDocument
from registry.versions.models import ModelVersion, VersionKind


@dataclass(frozen=True, slots=True)
class OwnPrompt:
    """Prompt that a version adds to each request: a document and a soft prompt's virtual tokens."""

    document: PromptDocument | None = None
    virtual_tokens: int = 0

    @property
    def has_system(self) -> bool:
        return self.document is not None and bool(self.document.system)


NO_PROMPT = OwnPrompt()


def own_prompt(version: ModelVersion) -> OwnPrompt:
    """Return the prompt of a version and its base. Raises InvalidInput."""
    document = None
    if version.kind == VersionKind.PROMPT:
        document = PromptDocument.read(version.parameters)
    chain = [each for each in (version, version.base) if each is not None]
    soft = (each.parameters.get("virtual_tokens", 0) for each in chain)
    return OwnPrompt(document, sum(count for count in soft if type(count) is int))


def check_prompt(plan: Plan, own: OwnPrompt) -> None:
    """Raise RequestInvalid if the worker would refuse to fill in the prompt.

    The error reveals the prompt's variables, so admit the caller first.
    """
    if own.document is not None and isinstance(plan.inputs, GenerationInputs):
        own.document.check(plan.inputs)


def add_prompt_tokens(plan: Plan, own: OwnPrompt) -> Plan:
    """Return the plan including the tokens of the deployment's prompt."""
    inputs, options = plan.inputs, plan.options
    if not isinstance(inputs, GenerationInputs) or not isinstance(options, SamplingOptions):
        return plan
    # A soft prompt stands before each prompt.
    added, longer = own.virtual_tokens * len(inputs.prompts or (None,)), 0
    if own.document is not None:
        added += own.document.added_tokens(inputs)
        limit = own.document.decoding.max_tokens
        if limit is not None and "max_tokens" not in options.stated:
            longer = (limit - (options.max_tokens or 0)) * options.made
    if not added and not longer:
        return plan
    return replace(
        plan,
        tokens=plan.tokens + added + longer,
        prompt_tokens=plan.prompt_tokens + added,
        units=plan.units and plan.units + added + longer,
    )
