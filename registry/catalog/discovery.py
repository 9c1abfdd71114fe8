"""Discover tasks: the packages that register them, and the tasks that can be used.

Assay's own tasks are imported at once. A separate process first tries those of other packages
(`registry.catalog.probe`): a module that raises, hangs or ends its process, or a declaration with
faults, leaves out only that task. Two packages that claim one name or path are both left out, so
that the order of Python's path never matters.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from importlib.metadata import Distribution, EntryPoint, distributions
from pathlib import Path

from registry.catalog.checks.faults import Fault, raised
from registry.catalog.code import CODE, CODES, NO_PACKAGES, TaskCode, code_take, point_code
from registry.catalog.declaration import Task
from registry.catalog.endpoints import Endpoint
from registry.catalog.packages import ASSAY, OWN_MODULES, CodeUnknown
from registry.catalog.probe import probe

GROUP = "assay.tasks"
_PROBES_AT_ONCE = 4

logger = logging.getLogger(__name__)
_importing: list[bool] = []
# Set in a process that tries a declaration, so that it does not try others.
only_own = False
# Takes a path, and whether a deployment's name follows it; returns its other owner, or "".
PathCheck = Callable[[str, bool], str]


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry point of the group, and the installed distribution that registers it."""

    point: EntryPoint
    distribution: Distribution | None = None

    @property
    def name(self) -> str:
        return self.point.name

    @property
    def is_own(self) -> bool:
        """Return whether the task ships with Assay. A foreign distribution may also be called
        `assay`, but its entry point names other modules."""
        module = self.point.value.partition(":")[0].partition(".")[0]
        return self.distribution_name == ASSAY and module in OWN_MODULES

    def code(self) -> TaskCode:
        """Return the packages of the task; none for a task that ships with Assay.

        Raises:
            CodeUnknown: the list of their files is unknown, or one was imported already.
            OSError: a file cannot be read.
        """
        if self.is_own or self.distribution is None:
            return NO_PACKAGES
        return point_code(self.point, self.distribution)

    def copies(self) -> dict[str, Path]:
        """Return the private copy of each package of the task, by its name. Raises as `code`."""
        return CODE.folders(self.code())

    @property
    def distribution_name(self) -> str:
        """Name of the distribution; empty for none."""
        return "" if self.distribution is None else str(self.distribution.name)

    @property
    def package(self) -> str:
        """Name and version of the distribution; empty for none."""
        dist = self.distribution
        return "" if dist is None else f"{dist.name} {dist.version}"

    @property
    def place(self) -> str:
        """Name of the distribution, and its installation folder."""
        dist = self.distribution
        return "no package" if dist is None else f"{self.package} in {_folder(dist)}"


@dataclass(frozen=True, slots=True)
class RejectedEntry:
    """An entry point that is left out, and its faults."""

    entry: Entry
    faults: tuple[Fault, ...]

    @property
    def reason(self) -> str:
        """All faults as one text."""
        return " ".join(map(str, self.faults))


@dataclass(frozen=True, slots=True)
class TaskCatalog:
    """Tasks by name, their entry points, and the entry points that were left out."""

    tasks: dict[str, Task] = field(default_factory=dict)
    entries: dict[str, Entry] = field(default_factory=dict)
    refused: list[RejectedEntry] = field(default_factory=list)

    @property
    def unavailable(self) -> dict[str, str]:
        """Return the reason for each name whose task cannot be used."""
        return {
            each.entry.name: each.reason
            for each in self.refused
            if each.entry.name not in self.tasks
        }


def installed() -> list[Entry]:
    """Return all entry points of the group, Assay's own first, without importing them.

    `importlib.metadata.entry_points` would skip a second distribution of the same name.
    """
    entries: dict[tuple[str, str, str, str], Entry] = {}
    for distribution in distributions():
        for point in distribution.entry_points.select(group=GROUP):
            key = (_folder(distribution), distribution.name, point.name, point.value)
            entries.setdefault(key, Entry(point, distribution))
    usable = [each for each in entries.values() if each.is_own or not only_own]
    return sorted(usable, key=lambda each: (not each.is_own, each.name))


def claims(entries: Iterable[Entry]) -> tuple[dict[str, Entry], list[RejectedEntry]]:
    """Return each name's entry point, and those that are left out, without importing them.

    A name belongs to Assay's own task, if there is one. Otherwise it belongs to the one package
    that claims it, and to none if there are several.
    """
    by_name: defaultdict[str, list[Entry]] = defaultdict(list)
    for entry in entries:
        by_name[entry.name].append(entry)
    accepted: dict[str, Entry] = {}
    refused = []
    for name, rivals in by_name.items():
        own = next((each for each in rivals if each.is_own), None)
        others = [each for each in rivals if not each.is_own]
        if own is not None:
            accepted[name] = own
            refused += [RejectedEntry(each, (_own_name(name),)) for each in others]
        elif len(others) > 1:
            places = " and ".join(each.place for each in others)
            fault = Fault(
                "name",
                f"Several packages provide {name}: {places}. None of them is used.",
                "Uninstall all but one, or rename a task.",
            )
            refused += [RejectedEntry(each, (fault,)) for each in others]
        elif shadowed := _shadowed(others[0].distribution):
            fault = Fault(
                "package",
                f"It installs files into Assay's own package {', '.join(shadowed)}.",
                "Put its modules into a package with a name of its own.",
            )
            refused.append(RejectedEntry(others[0], (fault,)))
        else:
            accepted[name] = others[0]
    return accepted, refused


def discover(entries: Iterable[Entry], answered: PathCheck | None = None) -> TaskCatalog:
    """Return the tasks of these entry points. `answered` returns other owners of a path."""
    accepted, refused = claims(entries)
    own = [entry for entry in accepted.values() if entry.is_own]
    catalog = TaskCatalog(refused=refused)
    with ThreadPoolExecutor(_PROBES_AT_ONCE, "task-probes") as threads:
        probes = [threads.submit(_trials, entries) for entries in by_package(accepted.values())]
        for entry in own:
            _load(catalog, entry)
    for entry, faults in (each for probed in probes for each in probed.result()):
        if faults:
            catalog.refused.append(RejectedEntry(entry, tuple(faults)))
        else:
            _load(catalog, entry)
    _settle_paths(catalog, answered)
    _settle_names(catalog, set(accepted))
    for each in catalog.refused:
        logger.error(
            "Task %s of %s is left out. %s", each.entry.name, each.entry.place, each.reason
        )
    return catalog


@contextmanager
def importing() -> Iterator[None]:
    """Mark a declaration as being imported, for `refuse_while_importing`."""
    _importing.append(True)
    try:
        yield
    finally:
        _importing.pop()


def refuse_while_importing() -> None:
    """Raise RuntimeError during the import of a declaration: the catalog is not complete yet."""
    if _importing:
        raise RuntimeError("A declaration cannot look at the catalog while it is imported.")


def load(entry: Entry) -> Task:
    """Import a declaration into this process, from a private copy if another package provides it,
    and record its code.

    Raises:
        ImportError: its code is unknown, or it cannot be imported or is not a `Task`; the exception
            of its module, if any, is the cause.
    """
    try:
        code = entry.code()
        with importing(), CODE.limited() if code.packages else nullcontext():
            task = entry.point.load()
        if isinstance(task, Task):
            code_take(task, code)
            return task
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        # The code of a plug-in can raise anything, `SystemExit` included.
        raise ImportError(raised(error)) from error
    raise ImportError(f"{entry.point.value} is not a Task.")


def _load(catalog: TaskCatalog, entry: Entry) -> None:
    try:
        task = load(entry)
    except ImportError as error:
        logger.exception("Task %s cannot be loaded", entry.name)
        fault = Fault("import", str(error), f"Reinstall or correct {entry.package}.")
        catalog.refused.append(RejectedEntry(entry, (fault,)))
    else:
        catalog.tasks[entry.name] = task
        catalog.entries[entry.name] = entry


def by_package(entries: Iterable[Entry]) -> list[list[Entry]]:
    """Return the entry points of packages other than Assay, grouped by package."""
    packages: defaultdict[str, list[Entry]] = defaultdict(list)
    for entry in entries:
        if not entry.is_own:
            packages[entry.place].append(entry)
    return list(packages.values())


def tried_together(
    entries: Sequence[Entry], test: Callable[[Sequence[Entry]], list[Fault]]
) -> Iterator[tuple[Entry, list[Fault]]]:
    """Yield each entry point of one package with the faults that `test` finds.

    One process tests all of them, because they share most imports. If it finds a fault, one process
    per entry point repeats the test, so that a fault harms only its own task.
    """
    if len(entries) > 1 and not test(entries):
        yield from ((entry, []) for entry in entries)
        return
    for entry in entries:
        yield entry, test([entry])


def _trials(entries: Sequence[Entry]) -> list[tuple[Entry, list[Fault]]]:
    return list(tried_together(entries, _probe_faults))


def _probe_faults(entries: Sequence[Entry]) -> list[Fault]:
    """Return the faults of a trial in a process that imports this process's private copies."""
    try:
        copies = {name: copy for entry in entries for name, copy in entry.copies().items()}
    except (CodeUnknown, OSError) as error:
        return [Fault("package", str(error), f"Reinstall or correct {entries[0].package}.")]
    return probe([entry.point for entry in entries], copies)


def _settle_paths(catalog: TaskCatalog, answered: PathCheck | None) -> None:
    """Leave out tasks of other packages whose paths are taken.

    Assay keeps its own paths. If several other packages claim a path, all of them are left out.
    """
    faults: defaultdict[str, list[Fault]] = defaultdict(list)
    own = [catalog.tasks[name] for name, entry in catalog.entries.items() if entry.is_own]
    # The gateway answers some of these paths, too, for other HTTP methods.
    shared = {endpoint.path for task in own for endpoint in task.endpoints}
    for name, endpoint in _foreign_endpoints(catalog):
        if endpoint.path in shared or answered is None:
            continue
        if owner := answered(endpoint.path, endpoint.named):
            faults[name].append(_taken_path(name, f"{endpoint.path} is a path of {owner}."))
    _settle_between(catalog, faults, own=True)
    _settle_between(catalog, defaultdict(list), own=False)


def _settle_between(catalog: TaskCatalog, faults: dict[str, list[Fault]], *, own: bool) -> None:
    """Leave out tasks with faults, or with the paths of Assay's tasks (`own`) or of others."""
    rivals = [name for name, entry in catalog.entries.items() if entry.is_own is own]
    for name, endpoint in _foreign_endpoints(catalog):
        for other in rivals:
            if other != name and any(_collide(endpoint, e) for e in catalog.tasks[other].endpoints):
                collision = f"{endpoint.path} already serves {other}."
                faults[name].append(_taken_path(name, collision))
    _leave_out(catalog, faults)


def _foreign_endpoints(catalog: TaskCatalog) -> list[tuple[str, Endpoint]]:
    """Return the endpoints of packages other than Assay, each with the name of its task."""
    foreign = [name for name, entry in catalog.entries.items() if not entry.is_own]
    return [(name, endpoint) for name in foreign for endpoint in catalog.tasks[name].endpoints]


def _taken_path(name: str, what: str) -> Fault:
    return Fault("endpoints", what, f"Use a path of its own, such as /v1/tasks/{name}.")


def _settle_names(catalog: TaskCatalog, provided: set[str]) -> None:
    """Leave out tasks of other packages that refer to tasks without a package."""
    faults: defaultdict[str, list[Fault]] = defaultdict(list)
    for name in [name for name, entry in catalog.entries.items() if not entry.is_own]:
        task = catalog.tasks[name]
        references = {("recipes", base) for recipe in task.recipes for base in recipe.bases}
        if task.evaluation is not None and task.evaluation.judge:
            references.add(("evaluation.judge", task.evaluation.judge))
        for where, other in sorted(references):
            if other not in provided:
                missing = f"No installed package provides the task {other}."
                faults[name].append(Fault(where, missing, "Install it, or name another task."))
    _leave_out(catalog, faults)


def _leave_out(catalog: TaskCatalog, faults: dict[str, list[Fault]]) -> None:
    for name, task_faults in faults.items():
        del catalog.tasks[name], CODES[name]
        catalog.refused.append(RejectedEntry(catalog.entries.pop(name), tuple(task_faults)))


def _collide(one: Endpoint, other: Endpoint) -> bool:
    """Return whether a request could reach both endpoints. JSON bodies that name a deployment may
    share a path, because the deployment determines the task."""
    if one.path == other.path:
        shares = [
            not each.named and each.content_types == ("application/json",) for each in (one, other)
        ]
        return not all(shares)
    return (one.named and other.path.rpartition("/")[0] == one.path) or (
        other.named and one.path.rpartition("/")[0] == other.path
    )


def _own_name(name: str) -> Fault:
    return Fault("name", f"{name} is a task of Assay, which serves it.", "Rename the task.")


def _folder(distribution: Distribution) -> str:
    return str(Path(str(distribution.locate_file(""))).resolve())


def _shadowed(distribution: Distribution | None) -> list[str]:
    """Return those of Assay's packages into which a distribution installs files."""
    files = (distribution.files if distribution else None) or ()
    return sorted({each.parts[0] for each in files if len(each.parts) > 1} & OWN_MODULES)
