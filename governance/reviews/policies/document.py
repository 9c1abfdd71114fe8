"""Content of a review policy: its conditions, required approvals, validity and checks.

The schema is strict and bounded; a fault names its line. Imports no Django.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import lru_cache
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from governance.bounds import TIER_MAX
from governance.errors import InvalidInput, TooLarge
from governance.faults import about, field_path, words
from governance.policy.cases import SPECIALTIES
from governance.reviews.policies import frameworks
from governance.reviews.policies.vocabulary import Answer, Vocabulary
from governance.yaml_text import Reader, check_events, hides, yaml_problem

MAX_BYTES = 64 * 1024
MAX_LINES = 2000
ITEMS_MAX = 60
FAULTS_MAX = 50
YEARS_MAX = 3 * 366


def _visible(text: str) -> str:
    if hides(text):
        raise ValueError("contains a character that does not show, such as a line break")
    if text != text.strip() or not text:
        raise ValueError("is empty, or begins or ends with a blank")
    return text


def _specialty(text: str) -> str:
    if text not in SPECIALTIES:
        raise ValueError(f"is not a specialty; they are {', '.join(sorted(SPECIALTIES))}")
    return text


Title = Annotated[str, Field(max_length=120), AfterValidator(_visible)]
Why = Annotated[str, Field(max_length=500), AfterValidator(_visible)]
Slug = Annotated[str, Field(pattern=r"^[a-z][a-z0-9]*(?:-[a-z0-9]+)*$", max_length=60)]
Days = Annotated[int, Field(ge=0, le=YEARS_MAX)]
References = Annotated[list[str], Field(max_length=20)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Condition(_Strict):
    """A condition that holds if the answer to a question is one of those named."""

    answer: Annotated[str, Field(max_length=60)]
    among: Annotated[list[Answer], Field(alias="is", min_length=1, max_length=30)]

    def holds(self, answers: Mapping[str, Any]) -> bool:
        """Return whether these answers meet the condition; a missing answer does not."""
        value = answers.get(self.answer)
        return any(type(value) is type(each) and value == each for each in self.among)


class Application(Condition):
    """A condition under which the policy applies, with the reason in words."""

    because: Why


class Approval(_Strict):
    """Required approvals of a specialty; with `when`, only if one of those conditions holds."""

    specialty: Annotated[str, AfterValidator(_specialty)]
    count: Annotated[int, Field(ge=1, le=5)] = 1
    when: Annotated[list[Condition], Field(max_length=10)] = []


class Gates(_Strict):
    """Required measurements. `at_least`: number of gates that must be set beforehand."""

    held_out: bool
    at_least: Annotated[int, Field(ge=0, le=20)] = 0


class Maps(_Strict):
    """Requirements of the frameworks that an item addresses."""

    eu_ai_act: Annotated[list[Annotated[str, AfterValidator(frameworks.eu_ai_act)]], Field()] = []
    iso_42001: Annotated[list[Annotated[str, AfterValidator(frameworks.iso_42001)]], Field()] = []
    nist_ai_rmf: Annotated[list[Annotated[str, AfterValidator(frameworks.nist_rmf)]], Field()] = []
    nist_ai_600_1: Annotated[
        list[Annotated[str, AfterValidator(frameworks.nist_600_1)]], Field()
    ] = []

    @model_validator(mode="after")
    def _has_references(self) -> Maps:
        every = [*self.eu_ai_act, *self.iso_42001, *self.nist_ai_rmf, *self.nist_ai_600_1]
        if not every or len(every) > 40:
            raise ValueError("must name 1 to 40 requirements of these frameworks")
        return self


class Item(_Strict):
    """A requirement: `automatic` by a machine's `check`, or `attested` by a reviewer.

    With `when`, only if one of those conditions holds. `waivable`: a second person may waive it.
    """

    code: Slug
    title: Annotated[str, Field(max_length=200), AfterValidator(_visible)]
    why: Why
    kind: Literal["automatic", "attested"]
    check: Annotated[str, Field(max_length=60)] | None = None
    waivable: bool = False
    when: Annotated[list[Condition], Field(max_length=10)] = []
    maps: Maps

    @model_validator(mode="after")
    def _has_one_checker(self) -> Item:
        if (self.kind == "automatic") != (self.check is not None):
            raise ValueError("an automatic item must name its check; an attested one must not")
        return self


class ReviewPolicyDocument(_Strict):
    """One review policy. Of those that apply, the one with the highest `rank` is the minimum tier.

    An approval is valid for `valid_days` and serves for `grace_days` more; warnings come
    `warn_days` before its end. A review is due `due_days` after it opens; its reviewers are
    reminded `escalate_days` before that, and administrators when it is overdue. New and newly
    empowered reviewers can vote after `vote_after_hours`.

    `after_upgrade`: if the answers of a worker's software differ from the measured ones, or cannot
    be compared, a release is suspended there, or an alarm is raised.
    """

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9]*(?:-[a-z0-9]+)*$", max_length=TIER_MAX)]
    title: Title
    summary: Why
    rank: Annotated[int, Field(ge=0, le=1000)]
    applies_when: Annotated[list[Application], Field(max_length=40)] = []
    approvals: Annotated[list[Approval], Field(min_length=1, max_length=10)]
    valid_days: Annotated[int, Field(ge=1, le=YEARS_MAX)]
    grace_days: Annotated[int, Field(ge=0, le=60)]
    warn_days: Annotated[list[Days], Field(max_length=6)]
    due_days: Annotated[int, Field(ge=1, le=120)]
    escalate_days: Annotated[int, Field(ge=0, le=60)]
    vote_after_hours: Annotated[int, Field(ge=0, le=720)] = 0
    after_upgrade: Literal["suspend", "alarm"] = "suspend"
    gates: Gates
    items: Annotated[list[Item], Field(min_length=1, max_length=ITEMS_MAX)]

    @model_validator(mode="after")
    def _is_consistent(self) -> ReviewPolicyDocument:
        codes = [item.code for item in self.items]
        if twice := sorted({code for code in codes if codes.count(code) > 1}):
            raise ValueError(f"two items have the code {twice[0]}")
        if not any(not approval.when for approval in self.approvals):
            raise ValueError("at least one approval is needed whatever the answers")
        if sorted(set(self.warn_days), reverse=True) != self.warn_days:
            raise ValueError("warn_days must decrease, without duplicates")
        if any(days >= self.valid_days for days in self.warn_days):
            raise ValueError("warn_days must be fewer than valid_days")
        if self.escalate_days >= self.due_days:
            raise ValueError("escalate_days must be fewer than due_days")
        return self

    def reason(self, answers: Mapping[str, Any]) -> str:
        """Return the reason that the policy applies to these answers; empty if it does not."""
        reasons = [each.because for each in self.applies_when if each.holds(answers)]
        return "; ".join(dict.fromkeys(reasons))

    def required_approvals(self, answers: Mapping[str, Any]) -> dict[str, int]:
        """Return the number of approvals that these answers require, by specialty."""
        needed: dict[str, int] = {}
        for each in self.approvals:
            if _applies(each.when, answers):
                needed[each.specialty] = max(each.count, needed.get(each.specialty, 0))
        return needed

    def items_for(self, answers: Mapping[str, Any]) -> list[Item]:
        """Return the items that these answers require, in the policy's order."""
        return [item for item in self.items if _applies(item.when, answers)]


def _applies(conditions: list[Condition], answers: Mapping[str, Any]) -> bool:
    return not conditions or any(each.holds(answers) for each in conditions)


def text_digest(text: str) -> str:
    """Return the SHA-256 of the unchanged text, in hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()


@lru_cache(maxsize=64)
def document_parsed(text: str) -> ReviewPolicyDocument:
    """Parse a stored text. It was checked when it was written, perhaps under other rules."""
    return ReviewPolicyDocument.model_validate(yaml.load(text, Loader=Reader))  # noqa: S506


def document_read(text: str, vocabulary: Vocabulary) -> ReviewPolicyDocument:
    """Parse and check a policy in YAML.

    Raises:
        InvalidInput: it is not a policy, or has terms that `vocabulary` lacks; `fields` maps
            `line 7` (or `yaml`) to the faults there.
        TooLarge: it has more than 64 KiB, or too many lines.
    """
    if len(text.encode("utf-8", "replace")) > MAX_BYTES:
        raise TooLarge(f"The review policy has more than {MAX_BYTES // 1024} KiB.")
    if text.count("\n") > MAX_LINES:
        raise TooLarge(f"The review policy has more than {MAX_LINES:,} lines.")
    try:
        check_events(text)
        node = yaml.compose(text, Loader=Reader)
        data = yaml.load(text, Loader=Reader)  # noqa: S506 (a safe loader of ours)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        problem = yaml_problem(error)
        line, column, rest = problem.partition(": ") if problem.startswith("line ") else ("",) * 3
        place = line.partition(",")[0] if column else "yaml"
        raise InvalidInput(
            f"This is not a review policy in YAML: {problem}.",
            fields={place: [about("", rest or problem)]},
        ) from error
    if not isinstance(data, dict):
        raise InvalidInput(
            "A review policy in YAML is a mapping with a name, a title, approvals and items.",
            fields={"line 1": ["it is not a mapping"]},
        )
    faults: list[tuple[tuple[Any, ...], str]] = []
    try:
        document = ReviewPolicyDocument.model_validate(data)
        faults = list(_unknown(document, vocabulary))
    except ValidationError as error:
        faults = [
            (fault["loc"], words(fault))
            for fault in error.errors(include_url=False, include_input=False)
        ]
    if faults:
        raise _invalid(faults, node)
    return document


def _unknown(
    document: ReviewPolicyDocument, vocabulary: Vocabulary
) -> list[tuple[tuple[Any, ...], str]]:
    faults: list[tuple[tuple[Any, ...], str]] = []
    conditions: list[tuple[tuple[Any, ...], Condition]] = [
        (("applies_when", at), each) for at, each in enumerate(document.applies_when)
    ]
    parts: list[tuple[str, int, list[Condition]]] = [
        *(("approvals", at, each.when) for at, each in enumerate(document.approvals)),
        *(("items", at, each.when) for at, each in enumerate(document.items)),
    ]
    for kind, at, when in parts:
        conditions += [((kind, at, "when", on), each) for on, each in enumerate(when)]
    for path, each in conditions:
        answers = vocabulary.questions.get(each.answer)
        if answers is None:
            terms = ", ".join(sorted(vocabulary.questions))
            faults.append(((*path, "answer"), f"is not a question; they are {terms}"))
            continue
        # `in` is safe although True equals 1 in Python: answers are never numbers.
        if any(value not in answers for value in each.among):
            terms = ", ".join(str(value).lower() for value in answers)
            faults.append(((*path, "is"), f"names an unknown answer; they are {terms}"))
    for at, item in enumerate(document.items):
        if item.check is not None and item.check not in vocabulary.checks:
            terms = ", ".join(sorted(vocabulary.checks))
            faults.append((("items", at, "check"), f"is not a check; they are {terms}"))
    return faults


def _invalid(faults: list[tuple[tuple[Any, ...], str]], node: Any) -> InvalidInput:
    fields: dict[str, list[str]] = {}
    for path, why in faults[:FAULTS_MAX]:
        fields.setdefault(f"line {_line(node, path)}", []).append(about(field_path(path), why))
    first = next(iter(fields))
    more = f" ({len(faults)} faults)" if len(faults) > 1 else ""
    return InvalidInput(
        f"The review policy is not valid: {first}: {fields[first][0]}{more}.", fields=fields
    )


def _line(node: Any, path: tuple[Any, ...]) -> int:
    """Return the line, counted from 1, at which the innermost existing part of `path` begins."""
    line = int(node.start_mark.line) + 1
    for part in path:
        inner = None
        if isinstance(node, yaml.MappingNode):
            matches = [(key, value) for key, value in node.value if key.value == part]
            if matches:
                line, inner = int(matches[0][0].start_mark.line) + 1, matches[0][1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int):
            inner = node.value[part]
            line = int(inner.start_mark.line) + 1
        if inner is None:
            break
        node = inner
    return line
