"""Conditions of approvals: the strictest of each applies to the release.

The gateway enforces the conditions that a machine can check; obligations of people are displayed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from django.utils import timezone

from governance.errors import InvalidInput, WrongState
from governance.reviews.models import Decision, Review, Verdict
from registry.releases.models import Release
from registry.releases.terms import terms_of
from registry.validation import checked_text
from registry.versions.models import VersionKind
from registry.versions.weights import weights_version

T = TypeVar("T", int, datetime)
RATE_MAX = 1_000_000
OBLIGATIONS_MAX, OBLIGATION_MAX = 10, 300
MEMBERS = (
    "departments",
    "until",
    "requests_per_minute",
    "requests_per_minute_of",
    "obligations",
    "shadow_only",
    "reviewers_read_content",
    "suspend_on_difference",
)


@dataclass(frozen=True, slots=True)
class Conditions:
    """Conditions of an approval. Empty `departments` mean all that the release names.

    `requests_per_minute` is for all callers of the deployment together, `requests_per_minute_of`
    for each department by its slug. `obligations` are for people to keep. With `shadow_only`, it
    gets copies of requests, and its answers reach no client. With `reviewers_read_content`,
    reviewers may read logged content of the department's requests (`logged_requests.py`). With
    `suspend_on_difference`, it is suspended when an answer states another model or fingerprint than
    the hosted version.
    """

    departments: tuple[str, ...] = ()
    until: datetime | None = None
    requests_per_minute: int | None = None
    requests_per_minute_of: Mapping[str, int] = field(default_factory=dict)
    obligations: tuple[str, ...] = ()
    shadow_only: bool = False
    reviewers_read_content: bool = False
    suspend_on_difference: bool = False

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Conditions:
        until = stored.get("until")
        return cls(
            departments=tuple(stored.get("departments", ())),
            until=datetime.fromisoformat(until) if until else None,
            requests_per_minute=stored.get("requests_per_minute"),
            requests_per_minute_of=dict(stored.get("requests_per_minute_of", {})),
            obligations=tuple(stored.get("obligations", ())),
            shadow_only=stored.get("shadow_only") is True,
            reviewers_read_content=stored.get("reviewers_read_content") is True,
            suspend_on_difference=stored.get("suspend_on_difference") is True,
        )

    def to_json(self) -> dict[str, Any]:
        """Return the form of the column: only requested conditions, in a fixed order."""
        whole = {
            "departments": sorted(self.departments),
            "until": self.until and self.until.astimezone(UTC).isoformat(),
            "requests_per_minute": self.requests_per_minute,
            "requests_per_minute_of": dict(sorted(self.requests_per_minute_of.items())),
            "obligations": list(self.obligations),
            "shadow_only": self.shadow_only,
            "reviewers_read_content": self.reviewers_read_content,
            "suspend_on_difference": self.suspend_on_difference,
        }
        return {name: value for name, value in whole.items() if value}

    def words(self) -> list[str]:
        """Return each condition as a phrase; those that the gateway enforces come first."""
        phrases = []
        if self.shadow_only:
            phrases.append("only as a shadow, whose answers reach no client")
        if self.departments:
            phrases.append(f"only {_listed(self.departments)}")
        if self.until is not None:
            phrases.append(f"until {self.until.astimezone(UTC):%-d %B %Y, %H:%M} UTC")
        if self.requests_per_minute is not None:
            phrases.append(
                f"at most {rate_words(self.requests_per_minute)}, of all callers together"
            )
        phrases += [
            f"at most {rate_words(rate)} of department {slug}"
            for slug, rate in sorted(self.requests_per_minute_of.items())
        ]
        if self.reviewers_read_content:
            phrases.append("compliance reviewers may read logged prompts and answers")
        if self.suspend_on_difference:
            phrases.append("suspended when the provider answers as another model")
        return [*phrases, *self.obligations]


def _listed(slugs: Iterable[str]) -> str:
    *first, last = sorted(slugs)
    return f"{', '.join(first)} and {last}" if first else last


def rate_words(rate: int) -> str:
    return f"{rate:,} request{'' if rate == 1 else 's'} per minute"


def conditions_words(stored: Mapping[str, Any]) -> list[str]:
    """Describe stored conditions in words."""
    return Conditions.from_json(stored).words()


def conditions_checked(conditions: Mapping[str, Any], release: Release) -> Conditions:
    """Validate the conditions that an approver of `release` sets.

    Raises:
        InvalidInput: a condition is unknown, malformed, or no narrower than the release.
    """
    if unknown := sorted(set(conditions) - set(MEMBERS)):
        raise _refused(str(unknown[0])[:40], "is not a condition", f"Known: {', '.join(MEMBERS)}.")
    named = {each.slug for each in release.departments.all()}
    departments = _departments(conditions.get("departments"), named)
    return Conditions(
        departments=departments,
        until=_until(conditions.get("until"), release),
        requests_per_minute=_rate(conditions.get("requests_per_minute"), "requests_per_minute"),
        requests_per_minute_of=_rates(
            conditions.get("requests_per_minute_of"), set(departments) or named
        ),
        obligations=_obligations(conditions.get("obligations")),
        shadow_only=_flag(conditions.get("shadow_only"), "shadow_only"),
        reviewers_read_content=_flag(
            conditions.get("reviewers_read_content"), "reviewers_read_content"
        ),
        suspend_on_difference=_of_hosted(conditions.get("suspend_on_difference"), release),
    )


def _refused(name: str, sentence: str, hint: str = "") -> InvalidInput:
    return InvalidInput(
        f"The condition {name.replace('_', ' ')} {sentence}.",
        hint=hint,
        fields={f"conditions.{name}": [sentence]},
    )


def _departments(slugs: Any, named: set[str]) -> tuple[str, ...]:
    if not slugs:
        return ()
    if not isinstance(slugs, list) or not all(isinstance(each, str) for each in slugs):
        raise _refused("departments", "is a list of departments")
    if outside := sorted(set(slugs) - named):
        raise _refused(
            "departments",
            f"names {outside[0][:40]}, which the release does not",
            f"It names {_listed(named)}.",
        )
    # Naming all of them is not a restriction.
    return () if set(slugs) == named else tuple(sorted(set(slugs)))


def _until(value: Any, release: Release) -> datetime | None:
    if not value:
        return None
    try:
        moment = value if isinstance(value, datetime) else datetime.fromisoformat(str(value)[:40])
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise _refused("until", "is a date and time with its offset from UTC")
    now = timezone.now()
    latest = now + timedelta(days=terms_of(release).valid_days)
    if not now < moment < latest:
        raise _refused(
            "until",
            f"must lie between now and {latest:%Y-%m-%d}, when the approval ends anyway",
        )
    return moment.astimezone(UTC)


def _rate(value: Any, name: str) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= RATE_MAX:
        raise _refused(name, f"is a whole number from 1 to {RATE_MAX:,}")
    return value


def _flag(value: Any, name: str) -> bool:
    if value is not None and not isinstance(value, bool):
        raise _refused(name, "is true or false")
    return bool(value)


def _of_hosted(value: Any, release: Release) -> bool:
    name = "suspend_on_difference"
    if _flag(value, name) and weights_version(release.version).kind != VersionKind.HOSTED:
        raise _refused(name, "is only for models that a provider runs")
    return bool(value)


def _rates(rates: Any, named: set[str]) -> dict[str, int]:
    if not rates:
        return {}
    name = "requests_per_minute_of"
    if not isinstance(rates, Mapping):
        raise _refused(name, "maps each department to a number")
    if outside := sorted(str(each) for each in set(rates) - named):
        raise _refused(name, f"names {outside[0][:40]}, which may not use it")
    return {slug: rate for slug in sorted(rates) if (rate := _rate(rates[slug], name)) is not None}


def _obligations(sentences: Any) -> tuple[str, ...]:
    if not sentences:
        return ()
    if not isinstance(sentences, list) or len(sentences) > OBLIGATIONS_MAX:
        raise _refused("obligations", f"is a list of at most {OBLIGATIONS_MAX} sentences")
    texts = [checked_text(each, field="obligation", limit=OBLIGATION_MAX) for each in sentences]
    return tuple(dict.fromkeys(texts))


def requested_conditions(review: Review) -> list[tuple[Decision, Conditions]]:
    """Return the approvals of the present round with conditions, in order."""
    return [
        (vote, Conditions.from_json(vote.conditions))
        for vote in review.decisions.all()
        if vote.conditions
        and vote.verdict == Verdict.APPROVE
        and vote.round == review.round
        and vote.digest == review.digest
    ]


def conditions_agreed(review: Review) -> Conditions:
    """Combine the conditions of all approvals: the strictest of each.

    Raises:
        WrongState: no department is left, or the requested end has passed.
    """
    whole = Conditions.from_json(conditions_recorded(review))
    if whole.until is not None and whole.until <= timezone.now():
        raise WrongState(
            f"An approval was given until {whole.until:%Y-%m-%d %H:%M} UTC, which has passed.",
            hint="Request changes; the department's answer opens another round.",
        )
    return whole


def conditions_recorded(review: Review) -> dict[str, Any]:
    """Return the combined conditions as stored, even if their end has passed.

    Raises:
        WrongState: no department is left.
    """
    whole = Conditions()
    for _, each in requested_conditions(review):
        whole = _stricter(whole, each)
    return whole.to_json()


def _stricter(one: Conditions, other: Conditions) -> Conditions:
    departments = one.departments or other.departments
    if one.departments and other.departments:
        departments = tuple(sorted(set(one.departments) & set(other.departments)))
        if not departments:
            raise WrongState(
                f"One approval allows only {_listed(one.departments)}, another only "
                f"{_listed(other.departments)}; together they leave no department.",
                hint="Agree first, or request changes.",
            )
    rates = dict(one.requests_per_minute_of)
    for slug, rate in other.requests_per_minute_of.items():
        rates[slug] = min(rate, rates.get(slug, rate))
    if departments:
        rates = {slug: rate for slug, rate in rates.items() if slug in departments}
    return Conditions(
        departments=departments,
        until=_least(one.until, other.until),
        requests_per_minute=_least(one.requests_per_minute, other.requests_per_minute),
        requests_per_minute_of=rates,
        obligations=tuple(dict.fromkeys((*one.obligations, *other.obligations))),
        shadow_only=one.shadow_only or other.shadow_only,
        # An approver who alone set it cannot read under it (`logged_requests.py`).
        reviewers_read_content=one.reviewers_read_content or other.reviewers_read_content,
        suspend_on_difference=one.suspend_on_difference or other.suspend_on_difference,
    )


def _least(one: T | None, other: T | None) -> T | None:
    present = [each for each in (one, other) if each is not None]
    return min(present, default=None)
