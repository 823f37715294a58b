"""The status line that a durable cell displays, with metadata for programs that read notebooks."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from IPython.display import display

from durable_nb.engine.status import Table, format_duration
from durable_nb.errors import InvalidOption, printable
from durable_nb.errors.redaction import HIDES, SENSITIVE, redacted_message
from durable_nb.notebook.namespace.saved import EXCLUDED

__all__ = [
    "BADGES",
    "SignalLine",
    "check_badge",
    "listed",
    "show_cell",
    "show_made_again",
    "show_run",
    "show_stopped",
    "show_tables",
]

BADGES = ("full", "plain", "off")
# JupyterLab's CSS variables make the line follow its theme; elsewhere the fallback values apply.
_STYLE = "font: 0.85em var(--jp-ui-font-family, system-ui, sans-serif); padding: 2px 5px"
_GREY = "var(--jp-ui-font-color2, #757575)"
_AMBER = "#b26a00"  # legible on white and on black; JupyterLab's warning colour is the red of its errors
_LEFT = 'style="text-align: left"'
_LINE = f'<div style="color: {_GREY}; {_STYLE}">{{mark}}&ensp;<b>{{name}}</b>&ensp;·&ensp;{{text}}</div>'
_WARNING = f'<div style="color: {_AMBER}; {_STYLE}">⚠&ensp;{{}}</div>'


_READ_IT = (
    "Read it in an ordinary cell, from the environment or with getpass.getpass(): "
    "a value that is written in a cell stays in the notebook."
)


def show_cell(
    badge: str,
    *,
    run: str,
    step: str,
    replayed: bool,
    seconds: float,
    names: tuple[str, ...] = (),
    unsaved: Mapping[str, str] | None = None,
    untried: str = "",
    again: Mapping[str, str] | None = None,
    notices: tuple[str, ...] = (),
) -> None:
    """Show the status line of a durable cell.

    Args:
        badge: ``full``, ``plain`` (a text that is equal on every run) or ``off``.
        run: The run id.
        step: The step's id.
        replayed: Whether it was replayed rather than executed.
        seconds: Seconds that its execution took, now or when it was recorded.
        names: The names that were saved or restored.
        unsaved: Names that could not be saved, with the reasons.
        untried: Which names were not loaded for a trial, and why.
        again: What a later cell that reads such a name executes again; by default nothing.
        notices: Further warnings for the user.
    """
    facts = {"run": run, "step": step, "action": "replayed" if replayed else "executed", "seconds": seconds}
    facts["saved"] = seconds if replayed else 0.0
    text = f"replayed · {format_duration(seconds)} saved" if replayed else f"ran {format_duration(seconds)}"
    verb = "restored" if replayed else "saved"
    if names:
        text += f" · {verb} {listed(names)}"
    excluded = [name for name, reason in (unsaved or {}).items() if reason == EXCLUDED]
    if excluded:
        text += f" · excluded {listed(excluded)}"
    if untried:
        text += f" · {untried}"
    warnings = [
        f"{name} is not {verb}: {reason}. {_advice(reason, (again or {}).get(name))}"
        for name, reason in (unsaved or {}).items()
        if reason != EXCLUDED
    ]
    warnings += notices
    if notices:
        facts["notice"] = redacted_message("\n".join(notices))
    plain = f"durable step {step}" + (f" · not saved: {listed(list(unsaved))}" if unsaved else "")
    _display_line(badge, "↺" if replayed else "✓", step, text, plain, warnings, facts)


def _advice(reason: str, again: str | None) -> str:
    if again is None and (SENSITIVE in reason or HIDES in reason):
        return _READ_IT
    if again is None:
        return "Create it in an ordinary cell."
    return f"After a restart, a cell that reads it executes `{again}` again."


def show_stopped(
    badge: str,
    *,
    run: str,
    step: str,
    changed: tuple[str, ...],
    restorable: tuple[str, ...],
    interrupted: bool = False,
) -> None:
    """Show the status line of a durable cell that failed or was interrupted; none if it changed no names.

    Args:
        badge: ``full``, ``plain`` or ``off``.
        run: The run id.
        step: The step's id.
        changed: The names that it had changed before it stopped.
        restorable: Those of them that finished steps wrote, which `%durable_restore` restores.
        interrupted: Whether the user interrupted it, so that `%durable_keep` keeps them.
    """
    if not changed:
        return
    text = f"changed before it stopped: {listed(changed)}"
    if restorable:
        text += f" · to restore {listed(restorable)}: %durable_restore"
    if interrupted:
        text += " · to keep that as its result: %durable_keep"
    facts = {"run": run, "step": step, "action": "stopped"}
    _display_line(badge, "✗", step, text, f"durable step {step} stopped · {text}", [], facts)


def show_made_again(
    badge: str, *, run: str, step: str, name: str, text: str, failure: str, others: Sequence[str]
) -> None:
    """Show the status line of a name that was made again since it could not be restored.

    Args:
        badge: ``full``, ``plain`` or ``off``.
        run: The run id.
        step: The id of the step that made it first.
        name: The name.
        text: The statements that were executed again.
        failure: The exception that they raised; empty if they succeeded.
        others: The other statements that changed its value, which were not executed.
    """
    outcome = f"could not be made again: {failure}" if failure else f"made again by `{text}` of step {step}"
    changes = listed([f"`{each}`" for each in dict.fromkeys(others)])
    warnings = [f"not done again: {changes}"] if others and not failure else []
    facts = {"run": run, "made": name, "of": step}
    _display_line(badge, "✗" if failure else "↻", name, outcome, f"durable name {name}", warnings, facts)


def show_run(badge: str, *, run: str, text: str, warnings: Iterable[str] = ()) -> None:
    """Show the status line of a run."""
    _display_line(badge, "▸", run, text, f"durable run {run}", [*warnings], {"run": run})


class SignalLine:
    """The status line of a signal, shown at once. Its final state is recorded with the cell's outputs.

    Args:
        badge: ``full``, ``plain`` (a text that is equal on every run) or ``off``.
        name: The signal's name.
        text: The text of the line.
        form: The HTML form in which the user can answer, shown for every badge.
        is_over: Whether the signal has been answered.
    """

    def __init__(
        self, badge: str, name: str, text: str, *, form: str | None = None, is_over: bool = False
    ) -> None:
        self._badge, self._name, self._form = badge, name, form
        shown = (
            self._bundle("✓" if is_over else "?", text)
            if form is None
            else {"text/plain": printable(text), "text/html": form}
        )
        self._handle: Any = display(shown, raw=True, display_id=True)  # type: ignore[no-untyped-call]

    def update(self, text: str) -> None:
        """Replace the text of the line."""
        if self._badge == "full" or self._form is not None:
            self._handle.update(self._bundle("✓", text), raw=True)

    def _bundle(self, mark: str, text: str) -> dict[str, str]:
        if self._badge == "off":
            return {}
        if self._badge == "plain":
            return {"text/plain": printable(f"durable signal {self._name}")}
        return _full(mark, self._name, text, [])


def show_tables(badge: str, tables: Sequence[Table]) -> None:
    """Show tables, for every badge; unless it is full, without columns that differ from run to run."""
    bundle = {"text/plain": "\n\n".join(map(str, tables))}
    if badge == "full":
        bundle["text/html"] = "".join(map(_html_table, tables))
    else:
        bundle["text/plain"] = "\n\n".join(str(table.without_volatile()) for table in tables)
    display(bundle, raw=True)  # type: ignore[no-untyped-call]


def _html_table(table: Table) -> str:
    head = "".join(f"<th {_LEFT}>{html.escape(heading)}</th>" for heading in table.headings)
    rows = ("".join(f"<td {_LEFT}>{html.escape(text)}</td>" for text in row) for row in table.rows)
    return f"<table><tr>{head}</tr>{''.join(f'<tr>{row}</tr>' for row in rows)}</table>"


def check_badge(badge: str) -> str:
    """Return a badge if it is valid.

    Raises:
        InvalidOption: The badge is not one of ``BADGES``.
    """
    if badge not in BADGES:
        raise InvalidOption(f"invalid badge {badge!r}: expected 'full', 'plain' or 'off'")
    return badge


def _display_line(
    badge: str, mark: str, name: str, text: str, plain: str, warnings: list[str], facts: dict[str, Any]
) -> None:
    metadata = {"durable_nb": facts}
    text, warnings = redacted_message(text), [redacted_message(each) for each in warnings]
    if badge == "off":
        bundle: dict[str, str] = {}
    elif badge == "plain":
        bundle = {"text/plain": printable(plain)}
    else:
        bundle = _full(mark, name, text, warnings)
    display(bundle, raw=True, metadata=metadata)  # type: ignore[no-untyped-call]


def _full(mark: str, name: str, text: str, warnings: list[str]) -> dict[str, str]:
    line = _LINE.format(mark=mark, name=html.escape(name), text=html.escape(text))
    return {
        "text/plain": printable("\n".join([f"{mark} {name} · {text}", *(f"⚠ {each}" for each in warnings)])),
        "text/html": line + "".join(_WARNING.format(html.escape(warning)) for warning in warnings),
    }


def listed(names: Sequence[str], most: int = 6) -> str:
    """Return the first names as text, and the number of further ones."""
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")
