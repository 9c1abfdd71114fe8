"""From a request's inputs to the tokens of its prompt."""

from __future__ import annotations

from typing import Any

from workers.engines.protocol import RequestRefused


def encode(tokenizer: Any, inputs: dict[str, Any]) -> list[int]:
    """The prompt's tokens: {"messages": […]} by the chat template, {"prompt": str} as it is.

    Raises RequestRefused: neither or both are given, or the template refuses the messages.
    """
    if set(inputs) == {"prompt"} and isinstance(inputs["prompt"], str):
        tokens = tokenizer(inputs["prompt"])["input_ids"]
    elif set(inputs) == {"messages"}:
        tokens = _from_messages(tokenizer, inputs["messages"])
    else:
        raise RequestRefused("A request needs either messages or one prompt.")
    if not tokens:
        raise RequestRefused("The prompt is empty.")
    return list(tokens)


def _from_messages(tokenizer: Any, messages: Any) -> list[int]:
    if not isinstance(messages, list) or not messages:
        raise RequestRefused("messages must be a list of at least one message.")
    for message in messages:
        if not isinstance(message, dict) or not all(
            isinstance(message.get(key), str) for key in ("role", "content")
        ):
            raise RequestRefused("Every message needs a role and a content, both text.")
    if not tokenizer.chat_template:
        raise RequestRefused("This model has no chat template; send a prompt instead.")
    try:
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    except Exception as error:
        # Templates raise through Jinja when the roles do not alternate as they want.
        raise RequestRefused(f"The chat template refuses the messages: {error}") from error
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])
