"""References to frameworks in items of review policies, and their validation.

Regulation (EU) 2024/1689 by article and annex; ISO/IEC 42001:2023 by control of its annex A; NIST
AI 100-1 by subcategory, and NIST AI 600-1 by risk. The titles of controls are shortened.
"""

from __future__ import annotations

import re

ARTICLES = 113
ANNEXES = ("I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX", "X", "XI", "XII", "XIII")
ISO_42001 = {
    "A.2.2": "AI policy",
    "A.2.3": "Alignment with other policies",
    "A.2.4": "Review of the AI policy",
    "A.3.2": "Roles and responsibilities",
    "A.3.3": "Reporting of concerns",
    "A.4.2": "Documentation of resources",
    "A.4.3": "Data resources",
    "A.4.4": "Tooling resources",
    "A.4.5": "System and computing resources",
    "A.4.6": "Human resources",
    "A.5.2": "Impact assessment process",
    "A.5.3": "Documentation of impact assessments",
    "A.5.4": "Impact on individuals and groups",
    "A.5.5": "Impact on society",
    "A.6.1.2": "Objectives of responsible development",
    "A.6.1.3": "Processes of responsible design and development",
    "A.6.2.2": "Requirements and specification",
    "A.6.2.3": "Documentation of design and development",
    "A.6.2.4": "Verification and validation",
    "A.6.2.5": "Deployment",
    "A.6.2.6": "Operation and monitoring",
    "A.6.2.7": "Technical documentation",
    "A.6.2.8": "Recording of event logs",
    "A.7.2": "Data for development and enhancement",
    "A.7.3": "Acquisition of data",
    "A.7.4": "Quality of data",
    "A.7.5": "Data provenance",
    "A.7.6": "Data preparation",
    "A.8.2": "Documentation and information for users",
    "A.8.3": "External reporting",
    "A.8.4": "Communication of incidents",
    "A.8.5": "Information for interested parties",
    "A.9.2": "Processes of responsible use",
    "A.9.3": "Objectives of responsible use",
    "A.9.4": "Intended use",
    "A.10.2": "Allocating responsibilities",
    "A.10.3": "Suppliers",
    "A.10.4": "Customers",
}
# Number of subcategories in each category of the AI RMF's core.
NIST_RMF = {
    "GOVERN": (7, 3, 2, 3, 2, 2),
    "MAP": (6, 3, 5, 2, 2),
    "MEASURE": (3, 13, 3, 3),
    "MANAGE": (4, 4, 2, 3),
}
NIST_600_1 = (
    "CBRN Information or Capabilities",
    "Confabulation",
    "Dangerous, Violent, or Hateful Content",
    "Data Privacy",
    "Environmental Impacts",
    "Harmful Bias or Homogenization",
    "Human-AI Configuration",
    "Information Integrity",
    "Information Security",
    "Intellectual Property",
    "Obscene, Degrading, and/or Abusive Content",
    "Value Chain and Component Integration",
)
_POINT = r"(?:\([0-9a-z]{1,4}\)){0,4}"
_ARTICLE = re.compile(rf"Article ([1-9][0-9]{{0,2}}){_POINT}")
_ANNEX = re.compile(rf"Annex ([IVX]{{1,4}}){_POINT}")
_SUBCATEGORY = re.compile(r"([A-Z]{1,7}) ([1-9])\.([1-9][0-9]?)")


def eu_ai_act(reference: str) -> str:
    """Return the reference if it is such as `Article 9(2)(a)` or `Annex IV(2)(d)`.

    Raises:
        ValueError: the Act has no such article or annex.
    """
    article, annex = _ARTICLE.fullmatch(reference), _ANNEX.fullmatch(reference)
    exists = (article and int(article[1]) <= ARTICLES) or (annex and annex[1] in ANNEXES)
    if not exists:
        raise ValueError("is not an article or annex; write, for example, Article 9(2) or Annex IV")
    return reference


def iso_42001(reference: str) -> str:
    """Return the reference if it is a control of annex A.

    Raises:
        ValueError: it is not.
    """
    if reference not in ISO_42001:
        raise ValueError("is not a control of annex A; write, for example, A.6.2.4")
    return reference


def nist_rmf(reference: str) -> str:
    """Return the reference if it is a subcategory such as `MEASURE 2.3`.

    Raises:
        ValueError: it is not.
    """
    match = _SUBCATEGORY.fullmatch(reference)
    counts = NIST_RMF.get(match[1], ()) if match else ()
    if not match or int(match[2]) > len(counts) or int(match[3]) > counts[int(match[2]) - 1]:
        raise ValueError("is not a subcategory of the AI RMF; write, for example, MEASURE 2.3")
    return reference


def nist_600_1(reference: str) -> str:
    """Return the reference if it is a risk of the generative AI profile.

    Raises:
        ValueError: it is not.
    """
    if reference not in NIST_600_1:
        raise ValueError(f"is not a risk of AI 600-1; they are: {'; '.join(NIST_600_1)}")
    return reference
