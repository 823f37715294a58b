"""The current run, for the code that is part of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from durable_nb.engine import scopes
from durable_nb.errors import NoOpenRun

if TYPE_CHECKING:
    from durable_nb.stores.base import Journal

__all__ = ["CurrentRun"]


@dataclass(frozen=True, slots=True)
class CurrentRun:
    """The run that the current code is part of.

    Attributes:
        run_id: Its id.
        workflow_id: The id of its workflow, such as ``orders.process``.
        store: The journal that keeps it.

    Example:
        >>> async def log_run() -> None:
        ...     print(CurrentRun.current().run_id)
    """

    run_id: str
    workflow_id: str
    store: Journal
    _scope: scopes.Scope

    @classmethod
    def current(cls) -> CurrentRun:
        """Return the run that the caller is part of.

        Raises:
            NoOpenRun: The caller is part of no run.
        """
        scope = scopes.current_scope()
        if scope is None:
            raise NoOpenRun(
                "this code is not part of a run",
                remedy="Call it in a @wf.workflow function.",
            )
        return cls(scope.run.run_id, scope.run.run.workflow, scope.run.journal, scope)

    def next_step_id(self, name: str) -> str:
        """Take and return the next id of a step of that name, as a call would."""
        return self._scope.step_id(name, "")
