"""A hosted model as blocks, as reviewers read it on pages and in exports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from governance.quotas.kinds import MICRO
from governance.usage.units import Unit
from registry.catalog.hosted import OPERATIONS, PARAMETER_TITLES, WIRE_SHAPE_TITLES, Operation
from registry.releases.exports.blocks import Block
from registry.releases.exports.words import NOTHING, worded

# Incidents that Assay opened about a version, in its dossier.
FINDINGS_MAX = 20
# Labels of the fields that only some operations have.
_FIELDS = {
    "context_tokens": "Context length in tokens",
    "max_tokens": "Longest answer in tokens",
    "dimensions": "Length of vectors",
    "max_inputs": "Maximum texts in a request",
    "voices": "Voices",
}
# Every dossier and page with a description shows this to reviewers.
NOT_PINNED = (
    "Assay pins the description, not the model: a provider may change the weights, the software or "
    "the filters behind a name at any time. Assay compares the model and the fingerprint that an "
    "answer states with the description; it cannot notice any other change."
)


def hosted_section(
    description: Mapping[str, Any],
    probe: Mapping[str, Any] | None,
    findings: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """Return the dossier's section on a hosted model. `probe` is the result of intake's call, and
    `findings` are incidents that Assay opened about the version."""
    return {
        "description": dict(description),
        "probe": probe,
        "not_pinned": NOT_PINNED,
        **({"findings": list(findings)} if findings else {}),
    }


def hosted_blocks(description: Mapping[str, Any]) -> Sequence[Block]:
    """Return the whole description; it has the fields of a `HostedDescription`."""
    terms, prices = description["terms"], description["prices"]
    shape = description["shape"]
    rules = OPERATIONS[Operation(description.get("operation", Operation.CHAT))]
    settings = [PARAMETER_TITLES.get(name, name) for name in description["parameters"]]
    return [
        Block(
            facts=(
                ("Provider", description["provider"]),
                ("Model", description["model"]),
                ("Other model names in answers", ", ".join(description["answers_as"]) or "none"),
                ("Fingerprint in answers", description["fingerprint"] or "any"),
                ("URL", description["base_url"]),
                ("API format", WIRE_SHAPE_TITLES.get(shape, shape)),
                ("Operation", rules.title),
                ("Region", description["region"]),
                ("Credential", description["credential"] or "none"),
                ("Shutdown date", description["shutdown_on"] or "not stated"),
                ("Settings that callers may use", ", ".join(settings) or "none"),
                *(
                    (label, _stated(description[name]))
                    for name, label in _FIELDS.items()
                    if name in rules.fields
                ),
                ("Highest classification of evaluation data", description["cleared_for"]),
                *(
                    (label, _amount(prices.get(name, 0)))
                    for name, label in _price_labels(rules.unit).items()
                ),
            )
        ),
        Block(
            title="Terms",
            facts=(
                ("Title", terms["title"]),
                ("URL", terms["url"] or NOTHING),
                ("SHA-256 of the document", terms["sha256"]),
                ("Provider keeps content for", f"{terms['retention_days']:,} days"),
                ("Provider trains on content", worded(terms["trains_on_content"])),
                ("Subprocessors", ", ".join(terms["subprocessors"]) or "none stated"),
            ),
        ),
    ]


def dossier_blocks(dossier: Mapping[str, Any]) -> Sequence[Block]:
    """Return the section of a dossier: limits of the digest, the description, and intake's call."""
    section = dossier["hosted"]
    blocks = [Block(text=section["not_pinned"]), *hosted_blocks(section["description"])]
    if (probe := section["probe"]) is not None:
        blocks.append(Block(title="Call at intake", facts=_probe_facts(probe)))
    # Dossiers of earlier versions have no findings.
    if findings := section.get("findings"):
        blocks.append(Block(title="Findings", facts=tuple(map(_finding_fact, findings))))
    return blocks


def _finding_fact(finding: Mapping[str, Any]) -> tuple[str, str]:
    since = finding["opened_at"][:10]
    name = f"Incident {finding['incident']} of {since}"
    return name, f"{finding['severity']}, {finding['state']}: {finding['happened']}"


def _stated(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else ", ".join(value)


def _price_labels(unit: Unit) -> dict[str, str]:
    if unit is Unit.TOKENS:
        return {
            "prompt": "Price per million prompt tokens",
            "completion": "Price per million completion tokens",
        }
    return {"unit": f"Price per {unit.singular}"}


def _probe_facts(probe: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    return (
        ("Answered in", f"{probe['latency_ms']:,} ms"),
        ("Model in the answer", probe["model"] or "not stated"),
        ("Fingerprint in the answer", probe["fingerprint"] or "not stated"),
        ("In the provider's list", worded(probe["listed"])),
        ("Prompt tokens", worded(probe["prompt_tokens"])),
        ("Completion tokens", worded(probe["completion_tokens"])),
    )


def _amount(micro: int) -> str:
    return f"{micro / MICRO:,.6f}".rstrip("0").rstrip(".") if micro else "not stated"


def provider_in_words(provider: Mapping[str, Any]) -> str:
    """Return the model and the tokens that a provider's answers stated in an evaluation."""
    models = ", ".join(provider["models"]) or "no model"
    fingerprints = ", ".join(provider["fingerprints"]) or "no fingerprint"
    tokens = provider["prompt_tokens"] + provider["completion_tokens"]
    return (
        f"the provider, which stated {models} and {fingerprints}, in {provider['answers']:,} "
        f"answers with {tokens:,} tokens"
    )
