"""Tools, structured output and sampling options, by the official client before a real engine."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import openai
import pytest

from registry.catalog import get_task
from registry.catalog.generation import GenerationInputs
from tests.unit.tasks.openai_engine import client_of
from tests.unit.workers.recording import Answer, prompted
from tests.waiting import PATIENCE_S
from workers.wire import Delta, Done, Failed

pytestmark = pytest.mark.torch
TASK = get_task("text-generation")
HI: Any = [{"role": "user", "content": "Hi"}]
# As Qwen2.5's, in short: tools in the system's turn, calls and their results as it writes them.
TEMPLATE = """{%- if tools %}<|im_start|>system
{%- for tool in tools %}
{{ tool | tojson }}
{%- endfor %}<|im_end|>
{% endif -%}
{%- for message in messages %}<|im_start|>{{ message.role }}
{{ message.content }}
{%- for call in message.tool_calls or [] %}
<tool_call>
{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}
</tool_call>
{%- endfor %}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""
WEATHER = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "maxLength": 8},
        "unit": {"type": "string", "enum": ["C", "F"]},
        "days": {"type": "integer", "minimum": 1, "maximum": 9},
    },
    "required": ["city", "unit", "days"],
    "additionalProperties": False,
}
NODE = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 3},
        "left": {"$ref": "#/$defs/node"},
        "kind": {"enum": ["leaf", "branch"]},
        "weights": {"type": "array", "items": {"type": "number"}, "minItems": 2},
    },
    "required": ["name", "kind", "weights"],
    "additionalProperties": False,
}
ENDLESS = {"$defs": {"node": NODE}, "$ref": "#/$defs/node"}
TOOLS: Any = [
    {"type": "function", "function": {"name": "weather", "parameters": WEATHER}},
    {"type": "function", "function": {"name": "now"}},
]
NAMED: Any = {"type": "function", "function": {"name": "weather"}}


def loaded(folder: Path) -> Any:
    from workers.engines.generation import GenerationEngine

    return GenerationEngine(
        folder, architectures=TASK.architectures, threads=1, dtype="float32", max_waiting=64
    )


@pytest.fixture(scope="module")
def plain(tiny: Path) -> Iterator[Any]:
    """A tiny random model with SmolLM2's own tokenizer and template."""
    made = loaded(tiny)
    yield made
    made.close()


@pytest.fixture(scope="module")
def calling(tiny_whole: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The same model with a template that knows tools."""
    folder = tmp_path_factory.mktemp("calling") / "model"
    shutil.copytree(tiny_whole, folder)
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    made = loaded(folder)
    yield made
    made.close()


@pytest.fixture(scope="module")
def untrained(tiny_whole: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The same model with SmolLM2's own template, which knows no tools, and room for their text."""
    folder = tmp_path_factory.mktemp("untrained") / "model"
    shutil.copytree(tiny_whole, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 2048}))
    made = loaded(folder)
    yield made
    made.close()


def test_a_named_tool_is_called_with_arguments_that_fit_its_schema(calling: Any) -> None:
    client = client_of(calling, TASK)
    for seed in range(3):
        chat = client.chat.completions.create(
            model="m", messages=HI, tools=TOOLS, tool_choice=NAMED, max_tokens=80, seed=seed
        )
        (choice,) = chat.choices
        assert choice.finish_reason == "tool_calls"
        (call,) = choice.message.tool_calls or ()
        assert call.type == "function"
        assert call.function.name == "weather"
        jsonschema.validate(json.loads(call.function.arguments), WEATHER)
        assert choice.message.content is None
    assert chat.usage is not None
    assert chat.usage.prompt_tokens > 30


def test_a_required_call_streams_and_its_result_goes_back_as_a_turn(calling: Any) -> None:
    client = client_of(calling, TASK)
    body: Any = {"model": "m", "tools": TOOLS, "max_tokens": 80, "seed": 4}
    with client.chat.completions.stream(
        messages=HI, tool_choice="required", parallel_tool_calls=False, **body
    ) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_completion()
    assert "tool_calls.function.arguments.delta" in kinds
    message = final.choices[0].message
    assert final.choices[0].finish_reason == "tool_calls"
    (call,) = message.tool_calls or ()
    assert call.function.name in ("weather", "now")
    answered = client.chat.completions.create(
        messages=[
            *HI,
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"id": call.id, "type": "function", "function": {
                    "name": call.function.name, "arguments": call.function.arguments}}],
            },
            {"role": "tool", "tool_call_id": call.id, "content": "sunny"},
        ],
        model="m", max_tokens=3,
    )  # fmt: skip
    assert answered.choices[0].finish_reason == "length"


def test_a_model_free_to_call_answers_in_text_and_none_hides_the_tools(calling: Any) -> None:
    client = client_of(calling, TASK)
    wish: Any = {"model": "m", "messages": HI, "max_tokens": 4, "temperature": 0}
    plain = client.chat.completions.create(**wish)
    hidden = client.chat.completions.create(**wish, tools=TOOLS, tool_choice="none")
    shown = client.chat.completions.create(**wish, tools=TOOLS)
    assert hidden.choices[0].message.content == plain.choices[0].message.content
    assert hidden.usage == plain.usage
    assert shown.usage is not None
    assert plain.usage is not None
    assert shown.usage.prompt_tokens > plain.usage.prompt_tokens
    assert shown.choices[0].message.tool_calls is None


NESTED = {
    "type": "object",
    "properties": {
        "place": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "zip": {"type": ["string", "null"]}},
            "required": ["city"],
            "additionalProperties": False,
        },
        "days": {
            "type": "array",
            "items": {"enum": ["Monday", "Friday"]},
            "minItems": 1,
            "maxItems": 3,
        },
    },
    "required": ["place", "days"],
    "additionalProperties": False,
}
OPTIONAL = {
    "type": "object",
    "properties": {"limit": {"type": "integer", "minimum": 5}, "note": {"type": "string"}},
    "additionalProperties": False,
}
RANGES = {
    "type": "object",
    "properties": {
        "since": {"type": "string", "format": "date"},
        "ranges": {
            "type": "array",
            "items": {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2},
        },
    },
    "required": ["since", "ranges"],
    "additionalProperties": False,
}
SCHEMAS: dict[str, Any] = {
    "weather": WEATHER, "nested": NESTED, "optional": OPTIONAL, "ranges": RANGES, "endless": ENDLESS
}  # fmt: skip


@pytest.mark.parametrize("choice", ["required", "named"])
def test_every_required_call_fits_its_schema_though_the_model_has_never_seen_a_tool(
    untrained: Any, choice: str
) -> None:
    client = client_of(untrained, TASK)
    tools: list[Any] = [
        {"type": "function", "function": {"name": name, "parameters": schema}}
        for name, schema in SCHEMAS.items()
    ]
    tools.append({"type": "function", "function": {"name": "now"}})
    for seed, name in enumerate([*SCHEMAS, "now"]):
        named: Any = {"type": "function", "function": {"name": name}}
        answer = client.chat.completions.create(
            model="m", messages=HI, tools=tools, max_tokens=100, seed=seed,
            tool_choice="required" if choice == "required" else named,
        )  # fmt: skip
        (made,) = answer.choices
        assert made.finish_reason == "tool_calls"
        assert made.message.content is None
        assert made.message.tool_calls
        for call in made.message.tool_calls:
            assert call.type == "function"
            assert choice == "required" or call.function.name == name
            nothing = {"type": "object", "maxProperties": 0}
            schema = SCHEMAS.get(call.function.name, nothing)
            jsonschema.validate(json.loads(call.function.arguments), schema)


def test_a_template_without_tools_describes_them_with_calls_and_results(plain: Any) -> None:
    inputs = {
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Hi"},
            {
                "role": "assistant",
                "content": "",
                "tool_calls": [{"id": "c", "name": "now", "arguments": {"zone": "UTC"}}],
            },
            {"role": "tool", "tool_call_id": "c", "content": "noon"},
            {"role": "tool", "tool_call_id": "d", "content": "2 pm"},
        ],
        "tools": [{"name": "now", "description": "The time.", "parameters": {"type": "object"}}],
    }
    tokens = plain._prompts.encode("r", GenerationInputs.model_validate(inputs))
    text = plain._tokenizer.decode(tokens)
    assert text.index("Be brief.") < text.index('{"name": "now", "description": "The time."')
    assert '<tool_call>\n{"name": "now", "arguments": {"zone": "UTC"}}\n</tool_call>' in text
    assert (
        "<tool_response>\nnoon\n</tool_response>\n<tool_response>\n2 pm\n</tool_response>" in text
    )
    assert text.count("<|im_start|>user") == 2


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_fits_its_json_schema(plain: Any, stream: bool) -> None:
    client = client_of(plain, TASK)
    wish: Any = {
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "weather", "strict": True, "schema": WEATHER},
        },
        "model": "m", "messages": HI, "max_tokens": 120, "seed": 1,
    }  # fmt: skip
    if stream:
        chunks = list(client.chat.completions.create(**wish, stream=True))
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    else:
        text = client.chat.completions.create(**wish).choices[0].message.content or ""
    jsonschema.validate(json.loads(text), WEATHER)


@pytest.mark.parametrize("schema", [{"type": "object"}, ENDLESS], ids=["any", "endless"])
def test_an_answer_whose_tokens_run_out_is_completed_in_time(
    plain: Any, schema: dict[str, Any]
) -> None:
    """A random model writes without end; every value that it began is completed."""
    client = client_of(plain, TASK)
    form: Any = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    for seed, most in enumerate((48, 49, 50, 90)):
        answer = client.chat.completions.create(
            model="m", messages=HI, response_format=form, max_tokens=most, seed=seed
        )
        (choice,) = answer.choices
        assert choice.finish_reason == "stop"
        jsonschema.validate(json.loads(choice.message.content or ""), schema)
        assert answer.usage is not None
        assert answer.usage.completion_tokens <= most


def test_an_answer_with_too_few_tokens_to_complete_says_that_it_is_cut(plain: Any) -> None:
    form: Any = {"type": "json_schema", "json_schema": {"name": "x", "schema": ENDLESS}}
    answer = client_of(plain, TASK).chat.completions.create(
        model="m", messages=HI, response_format=form, max_tokens=5
    )
    assert answer.choices[0].finish_reason == "length"


def test_an_answer_that_repeats_itself_is_ended(plain: Any) -> None:
    """With this bias the model would write one word until its tokens are used up."""
    form: Any = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}}
    answer = client_of(plain, TASK).chat.completions.create(
        model="m", messages=HI, response_format=form, max_tokens=200, temperature=0,
        logit_bias={"500": 100},
    )  # fmt: skip
    content = answer.choices[0].message.content or ""
    assert isinstance(json.loads(content), dict)
    assert "ast" * 90 in content
    assert "ast" * 100 not in content


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        ({"not": {"type": "string"}}, "Unimplemented keys"),
        ({"type": "object", "$ref": "#/nowhere"}, "does not exist"),
        ({"type": "string", "pattern": "(?=a)b"}, "look-around"),
        ({"type": "object", "properties": {str(n): {} for n in range(5000)}}, "more than 4,096"),
        ({"$ref": "#"}, "leads to itself"),
        (
            {
                "$ref": "#/$defs/a",
                "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}},
            },
            "leads to itself",
        ),
        ({"allOf": [{"$ref": "#"}]}, "leads to itself"),
        ({"anyOf": [{"$ref": "#"}]}, "leads to itself"),
    ],
    ids=["keyword", "reference", "pattern", "size", "itself", "two", "all", "any"],
)
def test_a_schema_that_cannot_be_enforced_is_refused_with_its_reason(
    plain: Any, schema: dict[str, Any], reason: str
) -> None:
    form: Any = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    with pytest.raises(openai.BadRequestError, match=reason):
        client_of(plain, TASK).chat.completions.create(
            model="m", messages=HI, response_format=form, max_tokens=9
        )


@pytest.mark.parametrize("strict", [False, True])
def test_tools_whose_schema_has_no_end_are_refused(calling: Any, strict: bool) -> None:
    """Their answer begins with a mark and a name, so that the engine would notice late."""
    schema = {
        "type": "object",
        "properties": {"a": {"$ref": "#/properties/a"}},
        "required": ["a"],
        "additionalProperties": False,
    }
    tool: Any = {"name": "look", "parameters": schema, "strict": strict}
    with pytest.raises(openai.BadRequestError, match="leads to itself"):
        client_of(calling, TASK).chat.completions.create(
            model="m", messages=HI, tools=[{"type": "function", "function": tool}], max_tokens=9
        )


def test_a_grammar_that_becomes_too_complex_ends_its_request_and_is_charged(plain: Any) -> None:
    schema = {"type": "string", "pattern": "^.*[a-m].{14}[a-m].{14}$"}
    options = {"max_tokens": 100, "json_schema": schema, "choices": 2, "seed": 1}
    broken, beside = Answer(), Answer()
    plain.submit(prompted("broken", {"prompt": "Hi"}, options), broken)
    plain.submit(prompted("beside", {"prompt": "Hi"}, {"max_tokens": 100}), beside)
    failed = broken.wait()
    assert isinstance(failed, Failed)
    assert (failed.code, failed.status) == ("schema_too_complex", 400)
    assert failed.completion_tokens >= sum(delta.tokens for delta in broken.deltas)
    assert failed.completion_tokens > 2
    assert failed.units == failed.prompt_tokens + failed.completion_tokens
    assert isinstance(beside.wait(), Done)


def test_a_request_for_more_answers_than_its_half_of_the_batch_is_overtaken(plain: Any) -> None:
    ends: list[Any] = []

    def late(event: Any) -> None:
        if not isinstance(event, Delta):
            ends.append(many.end)

    def join() -> None:
        many._on_delta = None
        plain.submit(prompted("late", {"prompt": "Hi"}, {"max_tokens": 2}), late)

    many = Answer(on_delta=join)
    plain.submit(prompted("many", {"prompts": ["one two"] * 32}, {"max_tokens": 8}), many)
    many.done()
    assert ends == [None]


def test_a_constrained_row_changes_nothing_for_those_beside_it(plain: Any) -> None:
    from concurrent.futures import ThreadPoolExecutor

    client = client_of(plain, TASK)
    free: Any = {"model": "m", "messages": HI, "max_tokens": 30, "temperature": 0}
    alone = client.chat.completions.create(**free).choices[0].message.content
    with ThreadPoolExecutor(4) as pool:
        forms: list[Any] = [{"type": "json_object"}, {"type": "text"}] * 2
        mixed = list(
            pool.map(
                lambda form: client.chat.completions.create(**free, response_format=form), forms
            )
        )
    texts = [each.choices[0].message.content or "" for each in mixed]
    assert texts[1] == texts[3] == alone
    assert texts[0][0] == texts[2][0] == "{"


def test_choices_differ_by_seed_and_are_all_metered(plain: Any) -> None:
    client = client_of(plain, TASK)
    wish: Any = {"model": "m", "messages": HI, "max_tokens": 5, "seed": 3}
    one = client.chat.completions.create(**wish)
    three = client.chat.completions.create(**wish, n=3)
    assert [choice.index for choice in three.choices] == [0, 1, 2]
    assert {choice.finish_reason for choice in three.choices} <= {"stop", "length"}
    assert three.choices[0].message.content == one.choices[0].message.content
    assert len({choice.message.content for choice in three.choices}) > 1
    assert three.usage is not None
    assert one.usage is not None
    assert three.usage.prompt_tokens == one.usage.prompt_tokens
    assert three.usage.completion_tokens > 2 * one.usage.completion_tokens
    chunks = list(client.chat.completions.create(**wish, n=3, stream=True))
    texts = ["", "", ""]
    for chunk in chunks:
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
    assert texts == [choice.message.content for choice in three.choices]


def test_probabilities_are_the_models_own(plain: Any) -> None:
    chat = client_of(plain, TASK).chat.completions.create(
        model="m", messages=HI, max_tokens=4, temperature=0, logprobs=True, top_logprobs=2
    )
    stated = chat.choices[0].logprobs
    assert stated is not None
    tokens = stated.content or []
    assert len(tokens) == 4
    for each in tokens:
        assert each.logprob == max(likely.logprob for likely in each.top_logprobs)
        assert len(each.top_logprobs) == 2
        assert bytes(each.bytes or ()).decode("utf-8", "replace") == each.token
    assert "".join(each.token for each in tokens).startswith(chat.choices[0].message.content or "")


def test_a_bias_acts_and_unknown_tokens_are_refused(plain: Any) -> None:
    completions = client_of(plain, TASK).completions
    wish: Any = {"model": "m", "prompt": "one two", "temperature": 0, "max_tokens": 12}
    with_scores = completions.create(**wish, logprobs=1, logit_bias={"500": 100})
    assert with_scores.choices[0].text == "ast" * 12
    with pytest.raises(openai.BadRequestError, match="names token 999999"):
        completions.create(**wish, logit_bias={"999999": 1})


def test_the_request_of_lm_evaluation_harness_gets_each_prompts_likelihood(
    plain: Any, tiny: Path
) -> None:
    import torch
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny)
    model = transformers.AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32)
    prompts = [tokenizer(text)["input_ids"] for text in ("The sky is blue", "1, 2, 3, 4, 5")]
    # As LocalCompletionsAPI sends it for loglikelihoods.
    answer = client_of(plain, TASK, strict=False).completions.create(
        model="m", prompt=prompts, temperature=0, max_tokens=1, logprobs=1, seed=1234, echo=True
    )
    assert [choice.index for choice in answer.choices] == [0, 1]
    for choice, prompt in zip(answer.choices, prompts, strict=True):
        stated: Any = choice.logprobs
        assert len(stated.token_logprobs) == len(prompt) + 1
        assert stated.token_logprobs[0] is None
        with torch.no_grad():
            logs = model(torch.tensor([prompt])).logits[0].log_softmax(-1)
        expected = [float(logs[place, token]) for place, token in enumerate(prompt[1:])]
        assert stated.token_logprobs[1:-1] == pytest.approx(expected, abs=1e-4)
        assert [max(top.values()) for top in stated.top_logprobs[1:-1]] == pytest.approx(
            logs[:-1].max(-1).values.tolist(), abs=1e-4
        )
        assert choice.text.startswith(tokenizer.decode(prompt))
    nothing = client_of(plain, TASK, strict=False).completions.create(
        model="m", prompt="a b c", max_tokens=0, echo=True
    )
    assert (nothing.choices[0].text, nothing.choices[0].finish_reason) == ("a b c", "length")


def test_a_long_prompt_is_scored_in_slices_and_a_fault_there_fails_its_request_alone(
    plain: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from workers.engines import adapters, likelihood

    def measured() -> float:
        answer = Answer()
        options = {"max_tokens": 1, "reference": " three four five"}
        plain.submit(prompted("measured", {"prompt": "one two"}, options), answer)
        (result,) = answer.done().results or []
        return float(result["nats"])

    wish: Any = {
        "model": "m", "prompt": ["one two three four five six", "a b c"],
        "max_tokens": 1, "logprobs": 2, "echo": True, "n": 2, "seed": 1,
    }  # fmt: skip
    client = client_of(plain, TASK, strict=False)
    whole = client.completions.create(**wish)
    at_once = measured()
    monkeypatch.setattr(adapters, "SLICE", 2)
    monkeypatch.setattr(likelihood, "MAX_POSITIONS", 2)
    assert measured() == pytest.approx(at_once, abs=1e-3)
    sliced = client.completions.create(**wish)
    for choice, other in zip(whole.choices, sliced.choices, strict=True):
        stated, again = choice.logprobs, other.logprobs
        assert stated.token_logprobs[1:] == pytest.approx(again.token_logprobs[1:], abs=1e-4)
        assert (stated.tokens, stated.text_offset) == (again.tokens, again.text_offset)
    monkeypatch.setattr(adapters, "SLICE", 0)  # range refuses it
    held, go = threading.Event(), threading.Event()

    def hold() -> None:
        held.set()
        go.wait(PATIENCE_S)

    first, scored, beside = Answer(on_delta=hold), Answer(), Answer()
    plain.submit(prompted("first", {"prompt": "a"}, {"max_tokens": 2}), first)
    assert held.wait(PATIENCE_S)
    echoing = {"max_tokens": 1, "echo": True, "logprobs": 0, "choices": 2}
    plain.submit(prompted("scored", {"prompt": "a b"}, echoing), scored)
    plain.submit(prompted("beside", {"prompt": "a b"}, {"max_tokens": 2}), beside)
    go.set()
    failed = scored.wait()
    assert isinstance(failed, Failed)
    assert failed.code == "engine_error"
    assert beside.done().completion_tokens == 2


def test_the_best_of_several_is_the_likeliest(plain: Any) -> None:
    completions = client_of(plain, TASK).completions
    wish: Any = {
        "model": "m", "prompt": ["one", "two"], "max_tokens": 4, "seed": 5, "logprobs": 0
    }  # fmt: skip
    every = completions.create(**wish, n=4)
    best = completions.create(**wish, n=1, best_of=4)
    assert [choice.index for choice in best.choices] == [0, 1]

    def mean(choice: Any) -> float:
        scores = choice.logprobs.token_logprobs
        return float(sum(scores) / len(scores))

    for place, choice in enumerate(best.choices):
        assert mean(choice) == pytest.approx(
            max(mean(each) for each in every.choices[4 * place : 4 * place + 4])
        )
    assert best.usage == every.usage


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "x"}}},
         "tool_choice"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"parallel_tool_calls": True}, "parallel_tool_calls"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"n": 17}, "n"),
        ({"logit_bias": {"x": 1}}, "logit_bias.x"),
        ({"presence_penalty": 3}, "presence_penalty"),
        ({"tools": TOOLS, "logprobs": True}, "logprobs"),
        ({"functions": []}, "functions"),
        ({"service_tier": "flex"}, "service_tier"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
    ],
    ids=str,
)  # fmt: skip
def test_a_chat_parameter_acts_or_is_refused_by_name(
    plain: Any, more: dict[str, Any], param: str
) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client_of(plain, TASK).chat.completions.create(
            model="m", messages=HI, extra_body={"max_tokens": 2, **more}
        )
    assert str(refused.value.param).startswith(param)


FUNCTION: Any = {"type": "function", "name": "weather", "parameters": WEATHER, "strict": True}


def test_a_response_calls_a_function_and_takes_its_output(calling: Any) -> None:
    client = client_of(calling, TASK)
    wish: Any = {"model": "m", "tools": [FUNCTION], "max_output_tokens": 80}
    made = client.responses.create(
        input="Hi", tool_choice="required", parallel_tool_calls=False, **wish
    )
    (call,) = made.output
    assert call.type == "function_call"
    jsonschema.validate(json.loads(call.arguments), WEATHER)
    assert made.status == "completed"
    again = client.responses.create(
        model="m",
        max_output_tokens=2,
        input=[
            {"role": "user", "content": "Hi"},
            call.model_dump(exclude_none=True),  # type: ignore[list-item]
            {"type": "function_call_output", "call_id": call.call_id, "output": "sunny"},
        ],
    )
    assert again.incomplete_details is not None
    named: Any = {"type": "function", "name": "weather"}
    with client.responses.stream(input="Hi", tool_choice=named, **wish) as stream:
        events = list(stream)
        final = stream.get_final_response()
    assert [event.sequence_number for event in events] == list(range(len(events)))
    kinds = [event.type for event in events]
    assert kinds[2:6] == [
        "response.output_item.added",
        "response.function_call_arguments.delta",
        "response.function_call_arguments.done",
        "response.output_item.done",
    ]
    assert final.output[0].type == "function_call"


def test_a_response_fits_its_schema(plain: Any) -> None:
    form: Any = {"format": {"type": "json_schema", "name": "w", "schema": WEATHER}}
    made = client_of(plain, TASK).responses.create(
        model="m", input="Hi", text=form, max_output_tokens=120
    )
    jsonschema.validate(json.loads(made.output_text), WEATHER)
