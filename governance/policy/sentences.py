"""Sentences about decisions and rules. Imports no Django."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from governance.policy.terms import noun, plural, text_words, verb_of
from governance.principals import Principal, PrincipalKind

if TYPE_CHECKING:
    from governance.policy.rule_conditions import BoundCondition, Resource
    from governance.policy.rules import Condition, Matcher, Rule


def actor_words(actor: Principal) -> str:
    """Return the subject of a sentence: an API key acts for its department."""
    if actor.kind is PrincipalKind.KEY and actor.department is not None:
        return f"Department {actor.department}"
    if actor.kind is PrincipalKind.SERVICE:
        return f"Service {actor.name}"
    if actor.kind is PrincipalKind.ANONYMOUS:
        return "Someone who is not signed in"
    return actor.name


def resource_words(resource: Resource) -> str:
    """Describe a resource: `deployment docstring-writer`, `model in department clinical`."""
    if name := resource.name or resource.id:
        return f"{resource.type.replace('_', ' ')} {name}"
    if resource.department is not None:
        return f"{noun(resource.type)} in department {resource.department}"
    return noun(resource.type)


def action_words(action: str, resource: Resource) -> str:
    """Describe an action: `use deployment docstring-writer`, `create job for model sentiment`."""
    kind, words = action.partition(":")[0], verb_of(action)
    if kind == resource.type:
        return f"{words} {resource_words(resource)}"
    return f"{words} {noun(kind)} for {resource_words(resource)}"


def denial(actor: Principal, action: str, resource: Resource, why: str, version: int) -> str:
    """Return the sentence of a denial, with the number of the policy."""
    words = action_words(action, resource)
    return f"{actor_words(actor)} may not {words}: {why} (policy {version})."


def scope_denial(actor: Principal) -> str:
    """Explain a denial by a token's scopes."""
    scopes = ", ".join(sorted(actor.scopes or ())) or "nothing"
    return f"its token is limited to {scopes}"


def describe_failure(
    condition: BoundCondition, resource: Resource, context: Mapping[str, Any]
) -> str:
    """Describe the property of the resource or context that keeps a permit from applying."""
    if condition.attribute == "department":
        owner = resource.department
        return "it belongs to no department" if owner is None else f"it belongs to {owner}"
    if condition.attribute.startswith("context."):
        name = condition.attribute.removeprefix("context.")
        whose = "the request's"
        return f"{_subject_and_verb(whose, name)} {value_words(context.get(name))}"
    actual = resource.attributes.get(condition.attribute)
    return f"{_subject_and_verb('its', condition.attribute)} {value_words(actual)}"


def _subject_and_verb(whose: str, name: str) -> str:
    """Return subject and verb: `its environment is`, `the request's tokens are`."""
    verb = "are" if name.endswith("s") and not name.endswith("ss") else "is"
    return f"{whose} {name.replace('_', ' ')} {verb}"


def value_words(value: Any) -> str:
    """Describe a value: `yes`, `not given`, `clinical, finance`."""
    if isinstance(value, (list, tuple, set, frozenset)):
        return ", ".join(sorted(value_words(item) for item in value)) or "empty"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return text_words(value)
    return "not given" if value is None else str(value)


_COMPARISONS = {
    "eq": "is",
    "ne": "is not",
    "in": "is one of",
    "not_in": "is none of",
    "contains": "include",
    "contains_any": "include one of",
    "lte": "is at most",
    "gte": "is at least",
    "in_network": "is in",
    "not_in_network": "is not in",
}


def attribute_words(attribute: str) -> str:
    """Describe an attribute: `its environment`, `the request's tokens`."""
    source, _, name = attribute.rpartition(".")
    whose = "the request's" if source else "its"
    return f"{whose} {name.replace('_', ' ')}"


def condition_words(condition: Condition | BoundCondition) -> str:
    """Describe a condition: `its environment is production`."""
    subject, operator = attribute_words(condition.attribute), str(condition.operator)
    if operator == "is_true":
        name = condition.attribute.rpartition(".")[2]
        return f"it is {name.replace('_', ' ')}"
    if operator == "is_self":
        name = condition.attribute.rpartition(".")[2]
        return f"they are its {_ROLES.get(name, name.replace('_', ' '))}"
    if operator == "same_department":
        among = "among " if subject.endswith("s") else ""
        return f"their department is {among}{subject}"
    if operator == "names_any":
        verb = "include" if subject.endswith("s") else "is"
        return f"{subject} {verb} {value_words(condition.value)}"
    comparison = _COMPARISONS[operator]
    if subject.endswith("s") and not subject.endswith("ss") and comparison.startswith("is"):
        comparison = f"are{comparison[2:]}"
    return f"{subject} {comparison} {value_words(condition.value)}"


def matcher_words(matcher: Matcher) -> str:
    """Describe a rule's principals: `admins and auditors`, `leads of the department clinical`."""
    departments = f" of {join(matcher.departments)}" if matcher.departments else ""
    if matcher.roles:
        # The matcher requires the specialty with every role, not only with the reviewer role.
        specialties = [each.replace("-", " ") for each in matcher.specialties]
        specialty = f" for {join(specialties)}" if specialties else ""
        who = join([f"{role}s{specialty}" for role in matcher.roles])
    elif roles := matcher.department_roles or matcher.member_roles:
        who = join(["API keys" if role == "key" else f"{role}s" for role in roles])
        scope = "the owning department" if matcher.department_roles else "any department"
        who += departments or f" of {scope}"
        if departments and matcher.department_roles:
            who += ", as the owning department"
    elif matcher.services:
        several = "s" if len(matcher.services) > 1 else ""
        return f"the service{several} {join([text_words(name) for name in matcher.services])}"
    else:
        return join([_KINDS[kind] for kind in matcher.kinds])
    kinds_only = join([_KINDS[kind] for kind in matcher.kinds])
    return f"{who} ({kinds_only} only)" if matcher.kinds else who


def rule_words(rule: Rule) -> str:
    """Describe a rule in one sentence, however long."""
    text = f"{rule_subject(rule)} {actions_words(rule.actions)}"
    if rule.resource_types:
        text += f", on {join([plural(kind) for kind in rule.resource_types])} only"
    if rule.conditions:
        comma = "," if rule.resource_types else ""
        text += f"{comma} if {' and '.join(condition_words(each) for each in rule.conditions)}"
    return f"{text}."


def rule_subject(rule: Rule) -> str:
    """Return the start of a rule's sentence: `Admins and auditors may`."""
    who = matcher_words(rule.principal)
    return f"{who[:1].upper()}{who[1:]} {'may' if str(rule.effect) == 'permit' else 'may never'}"


_KINDS = {
    "person": "people",
    "key": "API keys",
    "service": "services",
    "anonymous": "people who are not signed in",
}
# Attributes that name a person.
_ROLES = {"responsible": "responsible person"}


def actions_words(actions: Sequence[str]) -> str:
    """Describe actions: `create and view models, and stop deployments`."""
    kinds_of: dict[str, list[str]] = {}
    for action in actions:
        kinds_of.setdefault(verb_of(action), []).append(plural(action.partition(":")[0]))
    verbs_on: dict[tuple[str, ...], list[str]] = {}
    for verb, kinds in kinds_of.items():
        verbs_on.setdefault(tuple(kinds), []).append(verb)
    # A verb with a preposition, such as "decide on", is last: the object follows it.
    phrases = [
        f"{join(sorted(verbs, key=lambda verb: ' ' in verb))} {join(kinds)}"
        for kinds, verbs in verbs_on.items()
    ]
    return phrases[0] if len(phrases) == 1 else f"{', '.join(phrases[:-1])}, and {phrases[-1]}"


def join(words: Sequence[str]) -> str:
    """Return `a, b and c`."""
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} and {words[-1]}"
