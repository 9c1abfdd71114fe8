"""A dossier as sections to read, the same in the page, the PDF and the portal.

Sections that were not filled in are shown as not stated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from registry.catalog.engines import ENGINE_TITLES
from registry.evaluations.drift import drift_in_words
from registry.releases.engines import Precision
from registry.releases.equivalence.services import versions_in_words
from registry.releases.exports.blocks import Block, Section
from registry.releases.exports.hosted import dossier_blocks, provider_in_words
from registry.releases.exports.prompts import prompt_blocks
from registry.releases.exports.shadow import shadow_blocks
from registry.releases.exports.software import software_blocks
from registry.releases.exports.words import NOTHING, facts, moment, titled, worded
from registry.releases.risk import RiskAnswers

MAX_FILES = 500
_PRECISIONS: dict[str, str] = dict(Precision.choices)
_IDENTITY = ("model", "version", "kind", "task", "license", "digest", "size_bytes")
_NOT_STATED = "Not stated."
# Members that the sections show; other members of the dossier come last, unformatted.
_SHOWN = {"release", "purpose", "identity", "risk", "training", "data", "evaluations", "risks"}
_SHOWN |= {"oversight", "logging", "operation", "conformity", "replaces", "card", "code", "serving"}
_SHOWN |= {"software", "hosted", "shadow"}
# Sections that are left out if the dossier has no such member.
_OPTIONAL = {"hosted", "shadow"}


def dossier_sections(dossier: Mapping[str, Any]) -> list[Section]:
    """Return the whole dossier as sections, in reading order."""
    composed = [
        Section(code, title, tuple(compose(dossier)) or (Block(text=_NOT_STATED),))
        for code, title, compose in _SECTIONS
        if (code != "prompt" or _is_prompt(dossier)) and (code not in _OPTIONAL or code in dossier)
    ]
    rest = {name: value for name, value in dossier.items() if name not in _SHOWN}
    if rest:
        composed.append(Section("rules", "Rules", (Block(facts=facts(rest)),)))
    return composed


def _request(dossier: Mapping[str, Any]) -> Sequence[Block]:
    release = dossier.get("release") or {}
    return [
        Block(
            facts=(
                ("Purpose", worded(dossier.get("purpose"))),
                ("Department", worded(release.get("department"))),
                ("Environment", worded(release.get("environment"))),
                ("Model name in API calls", worded(release.get("deployment_name"))),
                ("For", ", ".join(release.get("departments") or ()) or NOTHING),
                ("Visible to", worded(release.get("visibility"))),
                ("Submitted by", worded(release.get("submitted_by"))),
            )
        )
    ]


def _identity(dossier: Mapping[str, Any]) -> Sequence[Block]:
    identity = dossier.get("identity") or {}
    if not identity:
        return []
    blocks = [Block(facts=facts(identity, first=_IDENTITY, without=("files", "bases")))]
    if bases := identity.get("bases"):
        blocks.append(
            Block(
                title="Bases",
                heads=("Model", "Kind", "License", "Digest"),
                rows=tuple(
                    (f"{b['model']} v{b['version']}", b["kind"], worded(b["license"]), b["digest"])
                    for b in bases
                ),
            )
        )
    return blocks


def _serving(dossier: Mapping[str, Any]) -> Sequence[Block]:
    serving = dossier.get("serving")
    if not serving:
        return []
    engine = str(serving.get("engine", ""))
    precision = str(serving.get("precision", ""))
    title = ENGINE_TITLES.get(engine, engine)  # type: ignore[call-overload]
    return [
        Block(
            facts=(
                ("Engine", title),
                ("Precision", _PRECISIONS.get(precision, worded(precision))),
                ("Quantization", str(serving.get("quantization") or "none")),
            )
        )
    ]


def _classification(dossier: Mapping[str, Any]) -> Sequence[Block]:
    risk = dossier.get("risk") or {}
    data = dossier.get("data") or {}
    levels = (
        ("Risk tier", worded(risk.get("tier"))),
        ("Training data", worded(data.get("classification"))),
    )
    answers = facts(risk.get("answers") or {}, first=RiskAnswers.model_fields)
    return [Block(facts=(*levels, *answers))]


def _is_prompt(dossier: Mapping[str, Any]) -> bool:
    return (dossier.get("identity") or {}).get("kind") == "prompt"


def _prompt(dossier: Mapping[str, Any]) -> Sequence[Block]:
    return prompt_blocks(dossier["training"]["parameters"])


def _development(dossier: Mapping[str, Any]) -> Sequence[Block]:
    if _is_prompt(dossier) or "hosted" in dossier:
        # The parameters are the prompt or the description, which have sections of their own.
        training = dossier["training"]
        return [Block(facts=facts(training, first=("started_by", "job"), without=("parameters",)))]
    return _facts_or(dossier.get("training"), first=("started_by", "job", "parameters", "metrics"))


def _data(dossier: Mapping[str, Any]) -> Sequence[Block]:
    return _facts_or(
        dossier.get("data"),
        first=("dataset", "version", "rows", "classification", "license", "uploaded_by", "digest"),
        otherwise="It was not trained on data registered here.",
    )


def _testing(dossier: Mapping[str, Any]) -> Sequence[Block]:
    blocks = [block for each in dossier.get("evaluations") or () for block in _evaluation(each)]
    return blocks or [Block(text="It was not evaluated.")]


def _alike(each: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    alike = each.get("rows_alike_in_training_data")
    return () if alike is None else (("Images like one of the training data", worded(alike)),)


def _marks(each: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if each.get("on_training_data"):
        yield (
            "Training data",
            "Trained on exactly this data; the result says nothing about new data.",
        )
    if cut := each.get("rows_cut"):
        yield (
            "Rows cut",
            f"{cut} are longer than the model reads; only a part of each was measured.",
        )


def _evaluation(each: Mapping[str, Any]) -> list[Block]:
    intervals = (each.get("intervals") or {}).get("metrics") or {}
    baseline, baseline_name = each.get("baseline") or {}, each.get("baseline_name") or "Baseline"
    blocks = [
        Block(
            title=f"On {each['dataset']} v{each['dataset_version']}",
            facts=(
                ("Rows measured", f"{each['sample_size']} of {each['rows']}"),
                ("Of these in the training data", worded(each["rows_in_training_data"])),
                *_alike(each),
                *_marks(each),
                ("Started", f"{moment(each['started_at'])} by {each['started_by']}"),
                ("Data digest", each["dataset_digest"]),
                ("Result digest", each["digest"]),
                *_measured_with(each),
            ),
        ),
        Block(
            heads=("Metric", "Value", "95% interval", titled(baseline_name)),
            rows=tuple(
                (name, worded(value), _interval(intervals.get(name)), worded(baseline.get(name)))
                for name, value in each["metrics"].items()
            ),
        ),
    ]
    if baselines := each.get("baselines"):
        measured = list(dict.fromkeys(name for entry in baselines for name in entry["metrics"]))
        blocks.append(
            Block(
                title="Baselines on the same rows",
                heads=("Baseline", *map(titled, measured), "Trained on rows"),
                rows=tuple(
                    (
                        str(entry["name"]),
                        *(worded(entry["metrics"].get(name)) for name in measured),
                        worded(entry["trained_on"]),
                    )
                    for entry in baselines
                ),
            )
        )
    if gates := each.get("gates"):
        blocks.append(
            Block(
                title="Gates, set beforehand",
                heads=("Gate", "Value", "Result", "Reason"),
                rows=tuple(
                    (
                        f"{gate['metric']} {gate['comparator']} {worded(gate['threshold'])}",
                        "not measured" if gate["value"] is None else worded(gate["value"]),
                        "passed" if gate["passed"] else "failed",
                        worded(gate["why"]),
                    )
                    for gate in gates
                ),
            )
        )
    if slices := each.get("slices"):
        blocks.append(
            Block(
                title="By slice, worst first",
                heads=("Slice", "Rows", "Metric", "Value", "95% interval", titled(baseline_name)),
                rows=tuple(
                    (
                        f"{part['by']}: {part['name']}",
                        worded(part["n"]),
                        part["metric"],
                        worded(part["value"]),
                        _interval(part),
                        worded(part.get("baseline")),
                    )
                    for part in slices
                ),
            )
        )
    return blocks


def _measured_with(each: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """Return the software that measured, as far as the evaluation names it."""
    pairs = []
    if provider := each.get("provider"):
        pairs.append(("Answered by", provider_in_words(provider)))
        if drift := drift_in_words(each.get("drift", {})):
            pairs.append(("Drift", drift))
    elif environment := each.get("environment"):
        pairs.append(("Measured with", versions_in_words(environment)))
    if code := each.get("code"):
        pairs.append(("Code of the task", str(code)))
    return tuple(pairs)


def _interval(interval: Mapping[str, Any] | None) -> str:
    if not interval or interval.get("low") is None:
        return NOTHING
    return f"{interval['low']:.4g} to {interval['high']:.4g}"


def _risks(dossier: Mapping[str, Any]) -> Sequence[Block]:
    rows = tuple(
        (
            risk["hazard"],
            risk["likelihood"],
            risk["severity"],
            risk["mitigation"],
            risk["residual"],
            risk["accepter_role"]
            + (f", person {risk['accepter_person']}" if risk.get("accepter_person") else ""),
        )
        for risk in dossier.get("risks") or ()
    )
    heads = ("Hazard", "Likelihood", "Severity", "Mitigation", "Residual", "Accepted by")
    return [Block(heads=heads, rows=rows)] if rows else []


def _oversight(dossier: Mapping[str, Any]) -> Sequence[Block]:
    oversight = dossier.get("oversight")
    if not oversight:
        return []
    tested = oversight.get("stop_tested_on") or "never, or not stated"
    return [
        Block(
            facts=(
                ("Who", worded(oversight["overseers"])),
                ("How to stop it", worded(oversight["stop_procedure"])),
                ("Stop procedure tested on", tested),
                ("Further measures", worded(oversight.get("measures"))),
            )
        )
    ]


def _operation(dossier: Mapping[str, Any]) -> Sequence[Block]:
    operation = dossier.get("operation") or {}
    if not any(operation.values()):
        return []
    rollback = operation.get("rollback")
    target = "Nothing served under this name."
    if rollback:
        target = (
            f"{rollback['model']} v{rollback['version']}, release {rollback['release']}, "
            f"{rollback['digest']}"
        )
    return [
        Block(
            facts=(
                ("Monitors", worded(operation.get("monitors"))),
                ("Incident contact", worded(operation.get("incident_contact"))),
                ("Next review", worded(operation.get("review_date"))),
                ("Roll back to", target),
            )
        )
    ]


def _replaces(dossier: Mapping[str, Any]) -> Sequence[Block]:
    replaces = dossier.get("replaces")
    if not replaces:
        return [Block(text="Nothing was live under this name.")]
    named = ("model", "version", "release", "digest")
    blocks = [Block(facts=facts(replaces, first=named, without=("evaluations",)))]
    rows = tuple(
        (
            name,
            worded(value),
            f"{each['dataset_digest']}{' (training data)' if each.get('on_training_data') else ''}",
        )
        for each in replaces.get("evaluations") or ()
        for name, value in each["metrics"].items()
    )
    if rows:
        blocks.append(
            Block(title="Its evaluations", heads=("Metric", "Value", "On data"), rows=rows)
        )
    return blocks


def _files(dossier: Mapping[str, Any]) -> Sequence[Block]:
    files = (dossier.get("identity") or {}).get("files") or []
    rows = tuple((file["path"], f"{file['size']:,}", file["sha256"]) for file in files[:MAX_FILES])
    blocks = [Block(heads=("Path", "Bytes", "SHA-256"), rows=rows)] if rows else []
    if len(files) > MAX_FILES:
        blocks.append(Block(text=f"And {len(files) - MAX_FILES} more, in the dossier's JSON."))
    return blocks


def _code(dossier: Mapping[str, Any]) -> Sequence[Block]:
    code = dossier.get("code")
    if code is None:
        return []
    if not code:
        return [Block(text="It contains no chat template and no tokenizer pattern.")]
    blocks = []
    for each in code:
        name = each["known"] or "not a known one"
        blocks.append(
            Block(
                title=f"{each['kind']} of {each['model']} v{each['version']}: {name}".capitalize(),
                facts=(("File", each["path"]), ("SHA-256", each["sha256"])),
            )
        )
        blocks.append(Block(text=each["shown"], verbatim=True))
        if (left := each["characters"] - len(each["shown"])) > 0:
            blocks.append(Block(text=f"And {left:,} more characters, under the same SHA-256."))
    return blocks


def _card(dossier: Mapping[str, Any]) -> Sequence[Block]:
    card = dossier.get("card")
    return [Block(text=card, verbatim=True)] if card else [Block(text="There is no model card.")]


def _facts_or(
    value: Mapping[str, Any] | None,
    *,
    first: Iterable[str] = (),
    otherwise: str = _NOT_STATED,
) -> Sequence[Block]:
    return [Block(facts=facts(value, first=first))] if value else [Block(text=otherwise)]


def _logging(dossier: Mapping[str, Any]) -> Sequence[Block]:
    return _facts_or(dossier.get("logging"), first=("log", "events", "retention"))


def _conformity(dossier: Mapping[str, Any]) -> Sequence[Block]:
    return _facts_or(dossier.get("conformity"), first=("route", "standards", "declaration"))


_SECTIONS: tuple[tuple[str, str, Callable[[Mapping[str, Any]], Sequence[Block]]], ...] = (
    ("asked", "Request", _request),
    ("identity", "Identity", _identity),
    ("serving", "Engine", _serving),
    ("hosted", "Hosted model", dossier_blocks),
    ("software", "Software", software_blocks),
    ("prompt", "Prompt", _prompt),
    ("classification", "Classification", _classification),
    ("development", "Development", _development),
    ("data", "Data", _data),
    ("testing", "Testing", _testing),
    ("shadow", "Answers as a shadow", shadow_blocks),
    ("risks", "Risks", _risks),
    ("oversight", "Human oversight", _oversight),
    ("logging", "Logging", _logging),
    ("operation", "Operation", _operation),
    ("conformity", "Conformity", _conformity),
    ("replaces", "Replaced release", _replaces),
    ("code", "Code in this model", _code),
    ("files", "Files", _files),
    ("card", "Model card", _card),
)
