"""Refusals of the API as exceptions."""

from __future__ import annotations

from ..models import Problem


class RequestRefused(Exception):
    """The server refused a request; `problem` says what, why, and how to fix it."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        fields = [f"{error.field}: {error.detail}" for error in problem.errors or ()]
        super().__init__(" ".join([problem.detail, problem.hint or "", *fields]).strip())
