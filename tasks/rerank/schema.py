"""Types of reranking: dataset rows and inputs. A result is a score from 0 to 1."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

from assay.plugins import declare

MAX_DOCUMENTS = 1_000


class RankedDocuments(BaseModel):
    """A query, its candidates in the order of a search, and the indexes of those that answer it."""

    model_config = ConfigDict(extra="forbid", strict=True)

    query: str = Field(min_length=1, max_length=10_000)
    documents: list[Annotated[str, Field(min_length=1, max_length=20_000)]] = Field(
        min_length=2, max_length=200
    )
    relevant: list[Annotated[int, Field(ge=0, le=199)]] = Field(min_length=1, max_length=200)

    @model_validator(mode="after")
    def _check_relevant(self) -> RankedDocuments:
        if len(set(self.relevant)) != len(self.relevant):
            raise ValueError("relevant names a document twice")
        if max(self.relevant) >= len(self.documents):
            raise ValueError(
                f"relevant names document {max(self.relevant)}; "
                f"there are {len(self.documents)}, counted from 0"
            )
        return self


class RerankInputs(declare.Inputs):
    """A query and the documents to score."""

    query: declare.TextInput
    documents: Annotated[list[declare.TextInput], Field(min_length=1, max_length=MAX_DOCUMENTS)]
