"""Forms of knowledge bases and their documents; the services check their content."""

from __future__ import annotations

from typing import Any

from django import forms

from assay.forms import TablerForm
from assay.portal.forms.base import DepartmentScoped, NameField, SlugChoice, titled, unchosen
from governance.bounds import DESCRIPTION_MAX, NAME_MAX
from registry.datasets.models import Classification
from registry.knowledge.chunks import CHUNK_DEFAULT, CHUNK_MAX, CHUNK_MIN, OVERLAP_DEFAULT
from registry.knowledge.extraction import SUFFIXES
from registry.knowledge.models import REASON_MAX, TITLE_MAX


class KnowledgeBaseForm(DepartmentScoped):
    """A new knowledge base."""

    name = NameField(max_length=NAME_MAX)
    title = forms.CharField(max_length=TITLE_MAX)
    description = forms.CharField(
        max_length=DESCRIPTION_MAX, required=False, widget=forms.Textarea(attrs={"rows": 2})
    )
    embedding_version = SlugChoice(
        queryset=None,
        empty_label="Choose…",
        label="Embedding version",
        help_text="Embeds documents and questions. A deployment must serve exactly this version.",
    )
    chunk_characters = forms.IntegerField(
        label="Characters of a passage", initial=CHUNK_DEFAULT, min_value=CHUNK_MIN,
        max_value=CHUNK_MAX,
    )  # fmt: skip
    overlap_characters = forms.IntegerField(
        label="Overlap of passages", initial=OVERLAP_DEFAULT, min_value=0, max_value=CHUNK_MAX // 2
    )

    def __init__(self, *args: Any, embeddings: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["embedding_version"].queryset = embeddings  # type: ignore[attr-defined]


class DocumentForm(TablerForm):
    """A document, or the next version of the document whose version is `replaces`."""

    file = forms.FileField(help_text=f"{', '.join(SUFFIXES)}; text in UTF-8.")
    title = forms.CharField(
        max_length=TITLE_MAX, required=False, help_text="Default: the file's name."
    )
    classification = forms.ChoiceField(choices=unchosen(titled(Classification.choices)))
    replaces = forms.IntegerField(
        required=False, min_value=1, max_value=2**63 - 1, widget=forms.HiddenInput
    )


class ShareForm(TablerForm):
    """Other departments that may search a knowledge base."""

    departments: Any = forms.ModelMultipleChoiceField(
        queryset=None, required=False, widget=forms.CheckboxSelectMultiple,
        label="Departments", help_text="Restricted documents stay in the owning department.",
    )  # fmt: skip

    def __init__(self, *args: Any, departments: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["departments"].queryset = departments  # type: ignore[attr-defined]


class DocumentRecallForm(TablerForm):
    """Reason for a recall."""

    reason = forms.CharField(
        max_length=REASON_MAX,
        help_text="Shown with the document and kept in the audit log. Do not name people.",
        widget=forms.Textarea(attrs={"rows": 3}),
    )
