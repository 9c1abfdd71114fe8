"""Exception for refused requests."""

from __future__ import annotations

from ..models import Problem


class RequestRefused(Exception):
    """Refusal of a request by the server; `problem` has its status, sentence and hint."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        fields = [f"{error.field}: {error.detail}" for error in problem.errors or ()]
        super().__init__(" ".join([problem.detail, problem.hint or "", *fields]).strip())
