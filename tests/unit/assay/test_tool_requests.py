"""The demo's requests for tools: what a model learns is what Assay later shows it."""

from __future__ import annotations

import json
from itertools import pairwise

import jsonschema

from assay_demo.data.tool_requests import CLOSING, OPENING, tool_requests
from tasks.text_generation.schema import Conversation
from workers.engines.described_tools import described
from workers.engines.tool_calls import DESCRIBED


def test_no_word_of_a_test_tool_occurs_in_training() -> None:
    training, testing = tool_requests(600, 144)
    learned = {word for each in training for tool in each.tools for word in tool["name"].split("_")}
    names = [each.name for each in testing]
    assert len(set(names)) == 144
    for each in testing:
        assert not learned & {word for tool in each.tools for word in tool["name"].split("_")}
    assert not {each.text for each in training} & {each.text for each in testing}


def test_a_row_is_the_prompt_that_assay_makes_of_the_request() -> None:
    training, testing = tool_requests(60, 20)
    assert (DESCRIBED.opening, DESCRIBED.closing) == (OPENING, CLOSING)
    for each in [*training, *testing]:
        Conversation.model_validate(each.row)
        *prompt, answer = each.row["messages"]
        user = {"role": "user", "content": each.text}
        assert described([user], each.openai_tools) == prompt
        if each.name is None:
            assert OPENING not in answer["content"]
            continue
        call = {"function": {"name": each.name, "arguments": each.arguments}}
        turn = {"role": "assistant", "content": "", "tool_calls": [call]}
        assert described([user, turn], [])[-1] == answer
        tool = next(tool for tool in each.tools if tool["name"] == each.name)
        jsonschema.validate(each.arguments, tool["parameters"])
        assert all(str(value) in each.text for value in each.arguments.values())


def test_the_right_tool_is_not_always_in_the_same_place() -> None:
    _, testing = tool_requests(0, 40)
    places = [each.tools[0]["name"] == each.name for each in testing]
    assert any(first != second for first, second in pairwise(places))
    assert json.dumps([each.row for each in testing]) == json.dumps(
        [each.row for each in tool_requests(0, 40)[1]]
    )
