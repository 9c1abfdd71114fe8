"""Each field of a declaration is checked, and each fault says how to fix it."""

from __future__ import annotations

import sys
import types
from typing import Any

import pytest

from registry.catalog import TASKS
from registry.catalog.checks.declaration import declaration_faults
from registry.catalog.declaration import Task
from tests.plug_ins import declared


def task_of(change: str = "", before: str = "") -> Any:
    """Return the declaration of a package of tests, with changes."""
    module = types.ModuleType("mine_in_a_test")
    sys.modules[module.__name__] = module
    space = module.__dict__
    source = declared("mine", "mine", change)
    if before:
        source = source.replace("\nTASK = dataclasses", f"\n{before}\nTASK = dataclasses")
    exec(compile(source, "mine.py", "exec"), space)  # noqa: S102 (a declaration of this test)
    return space["TASK"]


def test_a_whole_declaration_has_no_fault() -> None:
    assert declaration_faults(task_of()) == []


@pytest.mark.parametrize("task", list(TASKS.values()), ids=lambda task: task.name)
def test_the_declarations_of_assay_have_no_fault(task: Task) -> None:
    assert declaration_faults(task) == []


RECIPE = "recipes=(dataclasses.replace(TASK.recipes[0], {}),)"
EVALUATION = "evaluation=dataclasses.replace(TASK.evaluation, {})"
ENDPOINT = "endpoints=(dataclasses.replace(TASK.endpoints[0], {}),)"
PLAYGROUND = "playground=dataclasses.replace(TASK.playground, {})"
ROW = "class Other(BaseModel):\n    {}\n"
FAULTY = [
    # change, field, part of what is wrong
    ("interface=2", "interface", "written for interface 2 of assay.plugins; this Assay has"),
    ("interface='1'", "interface", "written for interface '1'"),
    ("name='Mine'", "name", "'Mine' is not a valid name"),
    ("name='m' * 41", "name", "not a valid name"),
    ("name='mine\\n'", "name", "not a valid name"),
    ("name=None", "name", "None is not a valid name"),
    ("title=''", "title", "empty"),
    ("title='x' * 200", "title", "200 characters"),
    ("title='Safe\\u202etxt'", "title", "cannot be shown"),
    ("title=7", "title", "7 is not text"),
    ("description='two\\nlines'", "description", "cannot be shown"),
    ("modality='Text!'", "modality", "'Text!' is not a valid name"),
    ("family='Language'", "family", "'Language' is not a Family"),
    ("inputs=()", "inputs", "It is empty"),
    ("inputs=[Modality.TEXT]", "inputs", "is not a tuple"),
    ("outputs=('scent',)", "outputs[0]", "'scent' is not a Modality"),
    ("architectures=()", "architectures", "It is empty"),
    ("architectures=('../x',)", "architectures", "'../x' is not a valid name"),
    ("components=('NoLibrary',)", "components", "`library.Class`"),
    ("engine='batch'", "engine", "'batch' is not an engine"),
    ("runner=''", "runner", "has no runner"),
    ("runner='mine/runner.py'", "runner", "not a dotted name"),
    ("engine=GENERATION", "runner", "Leave `runner` out"),
    ("unit='furlongs'", "unit", "'furlongs' is not a Unit"),
    ("input_schema=dict", "input_schema", "does not derive from Inputs"),
    ("option_schema=TextInputs", "option_schema", "does not derive from Options"),
    ("result_type=object()", "result_type", "raised"),
    ("feedback_row=print_nothing", "feedback_row", "It takes ()"),
    ("endpoints=()", "endpoints", "It is empty"),
    ("endpoints=None", "endpoints", "None is not a tuple"),
    ("endpoints=TASK.endpoints * 2", "endpoints", "occurs twice"),
    (ENDPOINT.format("path='/api/v1/people'"), "endpoints[0].path", "not a path below /v1/"),
    (ENDPOINT.format("path='/v1/../portal'"), "endpoints[0].path", "not a path below /v1/"),
    (ENDPOINT.format("path='/v1/Mine'"), "endpoints[0].path", "not a path below /v1/"),
    (ENDPOINT.format("path='/v1/mine?x'"), "endpoints[0].path", "not a path below /v1/"),
    (ENDPOINT.format("path='/v1/mine/'"), "endpoints[0].path", "not a path below /v1/"),
    (ENDPOINT.format("read=None"), "endpoints[0].read", "cannot be called"),
    (ENDPOINT.format("read=text_of"), "endpoints[0].read", "It takes (row"),
    (ENDPOINT.format("named=1"), "endpoints[0].named", "1 is not a bool"),
    (ENDPOINT.format("content_types=('json',)"), "endpoints[0].content_types", "'json'"),
    (ENDPOINT.format("content_types='application/json'"), "endpoints[0].content_types", "a tuple"),
    (ENDPOINT.format("request=dict"), "endpoints[0].request", "not a pydantic model"),
    ("sample={}", "sample", "It is empty"),
    ("sample={'inputs': 3}", "sample", "No endpoint reads it"),
    ("sample={'inputs': {1, 2}}", "sample", "not JSON serializable"),
    (ENDPOINT.format("read=lambda b, r, n: None"), "the plan of", "`read` returned None"),
    (ENDPOINT.format("read=wrong_plan"), "the plan of", "Its model is 'another'"),
    (ENDPOINT.format("read=exits"), "sample", "SystemExit"),
    (PLAYGROUND.format("body={'inputs': '$txt'}"), "playground.body", "no placeholder $txt"),
    (PLAYGROUND.format("path='/v1/models'"), "playground.path", "is not an endpoint of the task"),
    (PLAYGROUND.format("lines='x'"), "playground.lines", "is not a tuple"),
    ("row=dict", "row", "does not derive from BaseModel"),
    ("row=Unbounded", "row.text", "A text has no maximum length"),
    ("row=Long", "row.texts", "A list has no maximum length"),
    ("row=Wide", "row.values", "A mapping has no maximum length"),
    ("row=Backtracks", "row", "Python's `re`"),
    ("row_input=None", "row_input", "cannot be called"),
    ("row_input=lambda row: 7", "examples[0]", "`row_input` returned 7"),
    ("examples=()", "examples", "It is empty"),
    ("examples=({'text': 'no label'},)", "examples", "ValidationError"),
    ("other_rows=(RowKind('', 'Pairs', Row, text_of, TASK.examples),)", "other_rows", "twice"),
    ("other_rows=(RowKind('A b', 'Pairs', Row, text_of, TASK.examples),)", "other_rows[0].name",
     "'A b'"),
    ("recipes=TASK.recipes * 2", "recipes", "'full' occurs twice"),
    (RECIPE.format("method='../full'"), "recipes[0].method", "not a valid name"),
    (RECIPE.format("makes='fully'"), "recipes[0].makes", "not a kind of version"),
    (RECIPE.format("train=text_of"), "recipes[0].train", "not a dotted name"),
    (RECIPE.format("row_kind='pairs'"), "recipes[0].row_kind", "'pairs'"),
    (RECIPE.format("bases='text'"), "recipes[0].bases", "are not tasks"),
    (RECIPE.format("hyperparameters=Loose"), "recipes[0].hyperparameters.epochs",
     "A number has no bounds"),
    (RECIPE.format("hyperparameters=Needs"), "recipes[0].hyperparameters.epochs",
     "Give it a default"),
    (EVALUATION.format("metrics=()"), "evaluation.metrics", "It is empty"),
    (EVALUATION.format("metrics=('accuracy',)"), "evaluation.metrics[0]", "is not a Metric"),
    (EVALUATION.format("metrics=TASK.metrics * 2"), "evaluation.metrics", "occurs twice"),
    (EVALUATION.format("metrics=(Metric('F1 %', 'F1'),), primary_metric='F1 %'"),
     "evaluation.metrics[0].name", "not a valid name"),
    (EVALUATION.format("primary_metric='f2'"), "evaluation.primary_metric", "one of its metrics"),
    (EVALUATION.format("score=text_of"), "evaluation.score", "not a dotted name"),
    (EVALUATION.format("judge='No one'"), "evaluation.judge", "is not a task"),
    (
        EVALUATION.format("request=lambda row: ('x', 'y')"),
        "evaluation.request of",
        "not a TextInputs",
    ),
    (EVALUATION.format("request=lambda row: row['nothing']"), "evaluation.request", "KeyError"),
]  # fmt: skip
HELPERS = """
class Unbounded(BaseModel):
    text: str
    label: str = Field(max_length=40)

class Long(BaseModel):
    texts: list[int]

class Wide(BaseModel):
    values: dict[str, int]

class Backtracks(BaseModel):
    model_config = ConfigDict(regex_engine="python-re")
    text: str = Field(pattern="^(a+)+$", max_length=99)

class Loose(BaseModel):
    epochs: int = 3

class Needs(BaseModel):
    epochs: int = Field(ge=1, le=9)

def print_nothing():
    pass

def exits(body, request_id, name):
    raise SystemExit(1)

def wrong_plan(body, request_id, name):
    return dataclasses.replace(read(body, request_id, name), model="another")
"""


@pytest.mark.parametrize(("change", "where", "what"), FAULTY, ids=lambda each: str(each)[:40])
def test_a_faulty_declaration_is_refused_with_the_field_and_how_to_fix_it(
    change: str, where: str, what: str
) -> None:
    faults = declaration_faults(task_of(change, HELPERS))
    assert any(where in each.where and what in f"{each.what} {each.fix}" for each in faults), [
        str(each) for each in faults
    ]
    assert all(each.fix.endswith(".") and each.what.endswith(".") for each in faults)
    # One mistake is reported as one or two.
    assert len(faults) <= 3


def test_a_value_that_raises_wherever_it_is_looked_at_is_one_fault() -> None:
    class Hostile:
        def __repr__(self) -> str:
            raise SystemExit(1)

        def __eq__(self, other: object) -> bool:
            raise SystemExit(2)

        __hash__ = None  # type: ignore[assignment]

    import dataclasses

    for name in (field.name for field in dataclasses.fields(Task)):
        broken = dataclasses.replace(task_of(), **{name: Hostile()})
        assert declaration_faults(broken), name
