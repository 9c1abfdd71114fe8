"""Template filters and tags of the portal, available in every template."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from datetime import datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from typing import Any

from django import template
from django.conf import settings
from django.templatetags.static import static
from django.utils import timezone
from django.utils.html import escape, format_html, format_html_join
from django.utils.safestring import SafeString, mark_safe

from assay.portal.markdown import render_markdown
from governance.quotas.kinds import KINDS, MICRO, amount_words
from governance.quotas.kinds import subject_words as quotas_subject_words
from registry.datasets.cells import Piece

register = template.Library()
_CODE = re.compile(r"`([^`]+)`")

PROOFS = {
    "webauthn": "a passkey",
    "totp": "an authenticator app",
    "recovery_codes": "a recovery code",
    "local": "a click in the demonstration (local)",
}
TONES = {
    "ok": (
        "active approved current justified resolved serving ready succeeded trusted satisfied "
        "allowed passed completed enrolled started made answered"
    ),
    "bad": (
        "rejected refused failed dead recalled suspended denied reject revoked voided "
        "critical not_justified"
    ),
    "warn": (
        "changes_requested awaiting_sign_off expired request_changes high waived withdrawn "
        "cordoned draining skipped paused"
    ),
    "info": (
        "open in_review running finishing pending loading checking probing quarantined queued "
        "comment draft proposed validating in_progress finalizing cancelling invited"
    ),
}
ICONS = {
    "ok": "circle-check",
    "bad": "circle-x",
    "warn": "alert-triangle",
    "info": "clock",
    "": "circle",
}
DAY = timedelta(days=1)
STATE_ICONS = {
    "running": "activity",
    "in_review": "eye",
    "open": "eye",
    "paused": "player-pause",
    "stopped": "player-stop",
}


@register.filter
def tone(state: object) -> str:
    """Return the tone of a state: `ok`, `bad`, `warn`, `info` or empty."""
    return next((name for name, states in TONES.items() if str(state) in states.split()), "")


@register.simple_tag
def icon(name: str, css: str = "") -> SafeString:
    """Return one Tabler icon, hidden from assistive technology because the label says the same."""
    return _icon(name, css)


@lru_cache(maxsize=512)
def _icon(name: str, css: str) -> SafeString:
    """Cache the element: a page has dozens of icons; formatting each took 8 % of its time, and
    finding the address of their file 2%. The address is the same while the process runs."""
    return format_html(
        '<svg class="icon {}" aria-hidden="true" focusable="false"><use href="{}#{}"/></svg>',
        css,
        static("assay/vendor/tabler-icons/icons.svg"),
        name,
    )


@register.simple_block_tag
def empty_state(content: str, picture: str, title: str) -> SafeString:
    """Return the content of an empty list: an icon, a title, and the text in the block."""
    return format_html(
        '<div class="empty">{}<p><strong>{}</strong></p><p>{}</p></div>',
        icon(picture),
        title,
        mark_safe(content.strip()),  # noqa: S308 (the block was rendered with escaping)
    )


@register.simple_tag
def state_tag(state: object, label: str = "") -> SafeString:
    """Return a state as a colored tag with an icon and its words."""
    color = tone(state)
    words = label or str(state).replace("_", " ")
    picture = STATE_ICONS.get(str(state), ICONS[color])
    return format_html(
        '<span class="tag tag-{}">{}{}</span>', color, icon(picture), words[:1].upper() + words[1:]
    )


@register.simple_tag
def outcome_tag(outcome: str) -> SafeString:
    """Return the outcome of a request as a tag."""
    return state_tag("answered" if outcome == "ok" else outcome)


@register.simple_tag
def digest(value: str, length: int = 12) -> SafeString:
    """Return a shortened digest with a button that copies all of it."""
    if not value:
        return SafeString('<span class="is-muted">none</span>')
    return format_html(
        '<span class="digest"><code title="{0}">{1}</code><button type="button" class="copy" '
        'data-copy="{0}" aria-label="Copy the digest {1}">{2}{3}</button></span>',
        value,
        value[:length],
        icon("copy", "todo"),
        icon("check", "done is-ok"),
    )


def _distance(delta: timedelta) -> str:
    seconds = abs(int(delta.total_seconds()))
    for size, unit, least in ((86400, "day", 172800), (3600, "h", 3600), (60, "min", 60)):
        if seconds >= least:
            count = seconds // size
            return f"{count} {unit}{'s' if unit == 'day' and count > 1 else ''}"
    return f"{seconds} s"


@register.filter
def ago(moment: datetime | None) -> SafeString | str:
    """Return `5 min ago` or `in 26 h`, with the exact time on hovering."""
    if moment is None:
        return "never"
    delta = timezone.now() - moment
    # Future times are rounded (29 days 23 hours: in 30 days), past times are cut (29 days ago).
    ahead = timedelta(days=round(-delta / DAY)) if -delta > 2 * DAY else -delta
    words = f"{_distance(delta)} ago" if delta >= timedelta(0) else f"in {_distance(ahead)}"
    if abs(delta) < timedelta(seconds=5):
        words = "just now"
    return format_html(
        '<time datetime="{}" title="{} UTC">{}</time>',
        moment.isoformat(timespec="seconds"),
        moment.strftime("%-d %b %Y, %H:%M:%S"),
        words,
    )


@register.filter
def span(job: Any) -> str:
    """Return the duration of a job."""
    if not job.started_at:
        return "–"
    elapsed = (job.finished_at or timezone.now()) - job.started_at
    return _distance(elapsed) if elapsed >= timedelta(seconds=1) else "under 1 s"


@register.filter
def is_past(moment: datetime | None) -> bool:
    return moment is not None and moment < timezone.now()


@register.filter
def measured(value: object) -> str:
    """Return a number with as many digits as a reader can use."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return "–" if value is None else str(value)
    if isinstance(value, int) or float(value).is_integer():
        return f"{int(value):,}" if abs(value) >= 1 or value == 0 else f"{value:g}"
    if abs(value) >= 100:
        return f"{value:,.1f}"
    if abs(value) >= 10:
        return f"{value:.2f}"
    return f"{value:.3f}" if abs(value) >= 0.001 else f"{value:.2e}"


@register.filter
def metric_title(name: str, task: Any) -> str:
    """Return the task's title of a metric; `validation_macro_f1` as `Validation macro-F1`."""
    titles = {metric.name: metric.title for metric in (task.metrics if task else ())}
    measured_in = name.removeprefix("validation_")
    title = titles.get(measured_in) or sentence(measured_in)
    return title if measured_in == name else f"Validation {title[:1].lower()}{title[1:]}"


@register.filter
def bytes_size(value: int | None) -> str:
    """Return bytes in a readable unit (powers of 1,000)."""
    size = float(value or 0)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


@register.filter
def histogram_bars(value: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the bars of a histogram for an SVG of 200 by 40 units."""
    counts = value["counts"]
    tallest, width = max(counts, default=0) or 1, 200 / max(len(counts), 1)
    step = (value["to"] - value["from"]) / max(len(counts), 1)
    bars = []
    for index, count in enumerate(counts):
        # Bars of few files stay visible.
        height = max(round(40 * count / tallest, 1), 1) if count else 0
        least = value["from"] + index * step
        bars.append(
            {
                "x": round(index * width + 1, 1),
                "y": 40 - height,
                "width": round(width - 2, 1),
                "height": height,
                "title": f"{measured(least)}–{measured(least + step)}: {count:,}",
            }
        )
    return bars


@register.filter
def share_bars(value: dict[str, int]) -> list[dict[str, Any]]:
    """Return the 20 largest counts with the width of their bars, for an SVG of 100 units."""
    largest = sorted(value.items(), key=lambda item: (-item[1], item[0]))[:20]
    maximum = max((count for _, count in largest), default=0) or 1
    return [
        {"name": name, "count": count, "width": max(round(100 * count / maximum, 1), 0.5)}
        for name, count in largest
    ]


@register.filter
def words(value: object) -> str:
    """Return `request_changes` as `request changes`."""
    return str(value).replace("_", " ").replace("-", " ")


@register.filter
def sentence(value: object) -> str:
    """Return the words with an initial capital."""
    text = words(value)
    return text[:1].upper() + text[1:]


@register.filter
def coded(text: str) -> SafeString:
    """Return the text; parts between backticks are shown as code."""
    return mark_safe(_CODE.sub(r"<code>\1</code>", escape(text)))  # noqa: S308 (escaped)


@register.filter
def tier_words(tier: str) -> str:
    """Return a tier's title: `high` as `High risk`, `general-purpose` as `General-purpose`."""
    name = tier[:1].upper() + tier[1:]
    return name if "-" in tier else f"{name} risk"


@register.filter
def initials(name: str) -> str:
    parts = [part for part in str(name).split() if part[:1].isalnum()]
    return "".join(
        part[0] for part in (parts[:1] + parts[-1:] if len(parts) > 1 else parts)
    ).upper()


@register.filter
def markdown(text: str) -> SafeString:
    """Return Markdown as sanitized HTML."""
    return render_markdown(text)


@register.filter
def pretty_json(value: object) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False, sort_keys=True, default=str)


@register.filter
def subject_words(subject: str) -> str:
    """Return `department:clinical` as `Department clinical`."""
    return quotas_subject_words(subject)


@register.filter
def subject(event: Any) -> str:
    """Return the subject of an audit event: kind, name, and the number unless the name has it."""
    kind, name = words(event.subject_type), event.subject_name
    text = name if name.startswith(f"{kind} ") else f"{kind} {name}".strip()
    return text if event.subject_id in text.split() else f"{text} ({event.subject_id})"


@register.filter
def seconds(milliseconds: int | None) -> str:
    """Return milliseconds as seconds."""
    return f"{(milliseconds or 0) / 1000:,.1f} s"


@register.filter
def duration(milliseconds: float | None) -> str:
    """Return a mean time, such as `712 ms` or `117.8 s`."""
    value = milliseconds or 0
    return f"{value:,.0f} ms" if value < 10_000 else seconds(int(value))


@register.filter
def percent(share: float) -> str:
    """Return a share from 0 to 1 as percent, with a digit after the point below 10%."""
    digits = 0 if share == 0 or share >= 0.1 else 1
    return f"{100 * share:.{digits}f}%"


@register.filter
def about_seconds(value: float) -> str:
    """Return a time that is not known exactly: `40 s`, `5 min`, `2.5 h`."""
    if value < 90:
        return f"{max(1, round(value))} s"
    if value < 90 * 60:
        return f"{round(value / 60)} min"
    return f"{value / 3600:,.1f} h"


@register.filter
def range_of_time(seconds_range: tuple[float, float]) -> str:
    """Return two times in seconds as `about 2 min to 5 min`."""
    low, high = map(about_seconds, seconds_range)
    return f"about {low}" if low == high else f"about {low} to {high}"


@register.filter
def range_of_rates(seconds_range: tuple[float, float]) -> str:
    """Return two times in seconds with two digits, as `0.012 to 0.15 s`."""
    low, high = (f"{each:.2g}" for each in seconds_range)
    return f"{low} s" if low == high else f"{low} to {high} s"


@register.filter
def range_of_money(micro: tuple[int, int]) -> str:
    """Return two amounts of micro-units as `0.02 EUR to 0.05 EUR`."""
    if not any(micro):
        return "no price is set"
    low, high = (about(each, "money_per_month") for each in micro)
    return f"about {low}" if low == high else f"about {low} to {high}"


@register.filter
def money(micro: int | None) -> str:
    """Return micro-units of the currency to four places, so that a column lines up."""
    return f"{(micro or 0) / MICRO:,.4f}"


@register.filter
def about(amount: int, kind: str) -> str:
    """Return a counted amount rounded for comparison: money to two places, below 1 to four."""
    if KINDS[kind].unit == "money" and amount >= MICRO // 100:
        amount = round(amount, -4 if amount >= MICRO else -2)
    text = amount_words(kind, amount, settings.CURRENCY)
    return text.removesuffix("s") if text.startswith("1 ") else text


@register.filter
def exhausted(alerts: list[Any]) -> bool:
    """True when any budget of these alerts is used up."""
    return any(alert.threshold >= 100 for alert in alerts)


@register.filter
def normal(amount: Decimal) -> str:
    """Return a decimal without trailing zeros."""
    return f"{amount:,.6f}".rstrip("0").rstrip(".")


@register.filter
def proof_words(method: str) -> str:
    """Return the words for the factor with which a voter verified their identity."""
    return PROOFS.get(method, method)


@register.filter
def split(text: str) -> list[str]:
    """Return the words of a text."""
    return text.split()


@register.filter
def ready_count(deployment: Any) -> str:
    """Return the ready replicas out of those that have not stopped."""
    replicas = [replica for replica in deployment.replicas.all() if replica.state != "stopped"]
    ready = sum(replica.state == "ready" for replica in replicas)
    return f"{ready} of {len(replicas)}"


@register.filter
def lookup(mapping: Any, key: object) -> Any:
    """Return `mapping[key]`, or None."""
    return mapping.get(key) if hasattr(mapping, "get") else None


@register.filter
def at(items: Any, place: int) -> Any:
    """Return `items[place]`, or None without items."""
    return items[place] if items else None


@register.simple_tag
def passages(pieces: Iterable[Piece]) -> SafeString:
    """Show a text with marked passages. A tag, because a template would add spaces."""
    return format_html_join(
        "",
        "{}",
        ((_marked(piece) if piece.marked else piece.text,) for piece in pieces),
    )


def _marked(piece: Piece) -> SafeString:
    label = format_html('<span class="passage-label">{}</span>', piece.label) if piece.label else ""
    return format_html('<mark class="passage">{}{}</mark>', piece.text, label)


@register.simple_tag(takes_context=True)
def comment_place(context: dict[str, Any], kind: str, key: object, label: str = "") -> Any:
    """Return the `reviewing.threads.Place` for comments on part of a review page, or None."""
    places = context.get("places")
    return places.at(kind, key, label) if places is not None else None


@register.simple_tag(takes_context=True)
def query_with(context: dict[str, Any], **changes: Any) -> str:
    """Return the page's query string with some parameters changed."""
    query = context["request"].GET.copy()
    for name, value in changes.items():
        query[name] = value
    return f"?{query.urlencode()}"
