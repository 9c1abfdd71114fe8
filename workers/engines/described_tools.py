"""Describe tools in plain text to models whose chat template has no place for them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import groupby
from typing import Any

from workers.engines.tool_calls import DESCRIBED

_INTRODUCTION = f"""You can call these functions, each with a JSON schema of its arguments:
{{functions}}
To call a function, answer only with its name and arguments, in this form:
{DESCRIBED.opening}
{{{{"name": "function", "arguments": {{{{}}}}}}}}
{DESCRIBED.closing}"""


def described(
    turns: Sequence[dict[str, Any]], tools: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Return a conversation in which plain text describes the tools, calls and results.

    Args:
        turns: Turns in the format of chat templates.
        tools: Tools in the same format.
    """
    plain: list[dict[str, Any]] = []
    for role, group in groupby(turns, key=lambda turn: turn["role"]):
        # Many templates require that roles alternate, so that results of several calls are one turn
        # of the user.
        if role == "tool":
            results = [f"<tool_response>\n{turn['content']}\n</tool_response>" for turn in group]
            plain.append({"role": "user", "content": "\n".join(results)})
        else:
            plain += [_with_calls(turn) for turn in group]
    if not tools:
        return plain
    functions = "\n".join(json.dumps(each["function"], ensure_ascii=False) for each in tools)
    introduction = _INTRODUCTION.format(functions=functions)
    if plain[0]["role"] == "system":
        first, *rest = plain
        return [{**first, "content": f"{first['content']}\n\n{introduction}"}, *rest]
    return [{"role": "system", "content": introduction}, *plain]


def _with_calls(turn: dict[str, Any]) -> dict[str, Any]:
    """Return a turn whose calls are part of its text."""
    calls = [
        f"{DESCRIBED.opening}\n{json.dumps(call['function'], ensure_ascii=False)}\n"
        f"{DESCRIBED.closing}"
        for call in turn.get("tool_calls", ())
    ]
    others = {key: value for key, value in turn.items() if key != "tool_calls"}
    return {**others, "content": "\n".join(filter(None, [turn["content"], *calls]))}
