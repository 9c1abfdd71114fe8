"""Changes of a row's state: lock the row, check the transition, save and audit it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from django.db.models import Model, TextChoices

from governance.audit.models import AuditEvent
from governance.audit.services import Subject, audit_record
from governance.errors import DomainError, NotFound, WrongState
from governance.policy.decisions import Authorization
from governance.principals import Principal

Row = TypeVar("Row", bound=Model)
State = TypeVar("State", bound=TextChoices)


@dataclass(frozen=True, slots=True)
class StateMachine(Generic[Row, State]):
    """The states of a model's rows, and the transitions between them.

    Args:
        model: Model of the rows; its column `state` holds a value of `State`.
        noun: Word for a row in sentences, such as "review policy".
        table: States that may follow each state.
        hint: Advice for a row in a final state, as a clause.
        related: Relations that are loaded with a locked row.
        key: Unique column that finds a row.
        label: Returns the text that identifies a row after the noun; by default the key.
    """

    model: type[Row]
    noun: str
    table: Mapping[State, frozenset[State]]
    hint: str = ""
    related: tuple[str, ...] = ()
    key: str = "pk"
    label: Callable[[Row], str] | None = None

    def name(self, row: Row) -> str:
        """Return the noun and what identifies the row, such as "release 7"."""
        label = getattr(row, self.key) if self.label is None else self.label(row)
        return f"{self.noun} {label}"

    def title(self, row: Row) -> str:
        """Return the name as a sentence begins with it, such as "Release 7"."""
        name = self.name(row)
        return name[:1].upper() + name[1:]

    def missing(self, error: DomainError | None = None) -> NotFound:
        """Return the error for a row that does not exist, or that `error` must not reveal."""
        # Same sentence as `authorize` has for a hidden object, so that both look alike.
        attempt = error.attempt if error is not None else None
        return NotFound(f"There is no such {self.noun}.", attempt=attempt)

    def locked(self, key: object) -> Row:
        """Return the row, locked until the transaction ends.

        Raises:
            NotFound: it does not exist.
        """
        # Related rows stay unlocked.
        rows = self.model._default_manager.select_for_update(of=("self",))
        if self.related:
            rows = rows.select_related(*self.related)
        row = rows.filter(**{self.key: key}).first()
        if row is None:
            raise self.missing()
        return row

    def require(self, row: Row, to: State) -> State:
        """Check that the row may change to state `to`; return its current state.

        Raises:
            WrongState: the table does not allow it.
        """
        before = type(to)(row.state)  # type: ignore[attr-defined]
        next_states = self.table[before]
        if to in next_states:
            return before
        if next_states:
            hint = f"From there it can become {', '.join(sorted(map(_word, next_states)))}."
        else:
            hint = f"That state is final; {self.hint}." if self.hint else "That state is final."
        raise WrongState(
            f"{self.title(row)} is {_word(before)}; it cannot become {_word(to)}.",
            hint=hint,
        )

    def set_state(self, row: Row, to: State) -> State:
        """Check and set the state of a locked row, which the caller saves; return its old state.

        Raises:
            WrongState: the table does not allow it.
        """
        before = self.require(row, to)
        row.state = to  # type: ignore[attr-defined]
        return before

    def save_state(self, row: Row, to: State, fields: Collection[str] | None = None) -> State:
        """Set the state of a locked row and save it; return its old state.

        The caller records the event. `fields` are the other columns to save; None saves all.

        Raises:
            WrongState: the table does not allow it.
        """
        before = self.set_state(row, to)
        row.save(update_fields=None if fields is None else ["state", *fields])
        return before

    def save_states(self, rows: Iterable[Row], to: State, **values: Any) -> list[Row]:
        """Save `to`, and `values` of other columns, in each locked row whose state allows it.

        Uses one statement for hundreds of rows. Returns the changed rows, whose objects still have
        the old state; the caller records their events.
        """
        moved = [row for row in rows if to in self.table[type(to)(row.state)]]  # type: ignore[attr-defined]
        keys = [row.pk for row in moved]
        self.model._default_manager.filter(pk__in=keys).update(state=to, **values)
        return moved

    def move(
        self,
        row: Row,
        to: State,
        *,
        actor: Principal,
        action: str,
        subject: Subject,
        fields: Collection[str] | None = None,
        reason: str = "",
        department: str = "",
        data: Mapping[str, Any] | None = None,
        decision: Authorization | None = None,
    ) -> AuditEvent:
        """Set the state of a locked row, save it, and record the event.

        `fields` are the other columns to save; None saves all. The event's data names the states
        before and after, in addition to `data`.

        Raises:
            WrongState: the table does not allow it.
        """
        before = self.save_state(row, to, fields)
        return audit_record(
            actor=actor,
            action=action,
            subject=subject,
            reason=reason,
            department=department,
            data=transition(before, to) | dict(data or {}),
            decision=decision,
        )


def transition(before: TextChoices, after: TextChoices) -> dict[str, Any]:
    """Return the data of every transition's event."""
    return {"before": before.value, "after": after.value}


def _word(state: TextChoices) -> str:
    return str(state.label).lower()
