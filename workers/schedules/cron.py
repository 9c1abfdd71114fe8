"""Times of a schedule: cron expressions of five fields in a time zone, read by `cronsim`.

When clocks are set forward, a time that does not exist is due at the end of the gap. When they are
set back, a time that occurs twice is due once. An expression whose minute or hour starts with `*`
uses elapsed time instead.
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import cache
from itertools import islice
from zoneinfo import ZoneInfo, available_timezones

from cronsim import CronSim, CronSimError

from governance.errors import InvalidInput

LEAST_MINUTES = 15
# Names whose meaning depends on the machine, or that have none.
_NOT_ZONES = {"localtime", "Factory"}
_DAY_MINUTES = 24 * 60


def checked_cron(cron: str) -> str:
    """Return the expression with single spaces.

    Raises:
        InvalidInput: the expression is malformed, never due, or due more often than every
            `LEAST_MINUTES` minutes.
    """
    fields = cron.split()
    if len(fields) != 5:
        raise _refused("A cron expression has five fields: minute, hour, day, month, weekday.")
    normal = " ".join(fields)
    try:
        times = CronSim(normal, datetime.now(UTC))
        next(times)
    except CronSimError as error:
        raise _refused(f"The cron expression is malformed: {error}.") from error
    except StopIteration as error:
        raise _refused("The expression matches no time.") from error
    minutes = sorted(hour * 60 + minute for hour in times.hours for minute in times.minutes)
    following = [*minutes[1:], minutes[0] + _DAY_MINUTES]
    gap = min(after - before for before, after in zip(minutes, following, strict=True))
    if gap < LEAST_MINUTES:
        raise _refused(f"It is due again after {gap} min; at least {LEAST_MINUTES} are needed.")
    return normal


def checked_zone(time_zone: str) -> str:
    """Return the time zone if it exists.

    Raises:
        InvalidInput: the time zone does not exist.
    """
    if time_zone not in time_zones():
        sentence = f"{time_zone[:40]!r} is not a time zone."
        raise InvalidInput(
            sentence, hint="Use a name such as Europe/Berlin.", fields={"time_zone": [sentence]}
        )
    return time_zone


@cache
def time_zones() -> tuple[str, ...]:
    """Return the names of time zones, UTC first."""
    return ("UTC", *sorted(available_timezones() - _NOT_ZONES - {"UTC"}))


def due_times(cron: str, time_zone: str, after: datetime, count: int = 1) -> list[datetime]:
    """Return the next `count` times after a moment, in UTC; fewer if there are no more."""
    times = CronSim(cron, after.astimezone(ZoneInfo(time_zone)))
    return [each.astimezone(UTC) for each in islice(times, count)]


def _refused(sentence: str) -> InvalidInput:
    return InvalidInput(
        sentence,
        hint="For 02:00 every night, write 0 2 * * *.",
        fields={"cron": [sentence]},
    )
