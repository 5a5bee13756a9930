"""The result of a search as notebooks show it: the head of its report."""

from __future__ import annotations

from dataclasses import dataclass, fields

from autoquant.errors import AutoquantError
from autoquant.reports.run_files import RunReader
from autoquant.tuning.result import SearchResult
from autoquant.tuning.study.run_folder import RunFolder


@dataclass(frozen=True, repr=False)
class NotebookResult(SearchResult):
    """A SearchResult that notebooks show as the head of the report."""

    @classmethod
    def of(cls, result: SearchResult) -> NotebookResult:
        """The same result."""
        return cls(**{entry.name: getattr(result, entry.name) for entry in fields(SearchResult)})

    def _repr_html_(self) -> str | None:
        """HTML in one piece, which asks for nothing from anywhere; None where the run is there no more."""
        from autoquant.reports.page import render
        from autoquant.reports.view import head_view

        try:
            return render("notebook.html.j2", **head_view(RunReader(RunFolder(self.run)).read(going_on=False)))
        except AutoquantError:
            return None
