"""Limits on a department's files, including the outputs of its open batches."""

from __future__ import annotations

from django.conf import settings
from django.db.models import Count, Sum

from governance.database.locks import lock
from governance.errors import WrongState
from governance.people.models import Department
from registry.batches.models import Batch
from registry.batches.states import OPEN
from registry.files.models import FILES_MAX, StoredFile

# The output file and the error file.
FILES_OF_BATCH = 2


class NoRoom(WrongState):
    """The department has reached its limit of files or bytes."""

    code = "too_many_files"


def room_take(department: Department, *, files: int, size: int = 1) -> None:
    """Run `room_check` under the department's lock until the transaction ends, so that concurrent
    additions cannot exceed the limits together. Raises NoRoom.
    """
    lock(f"files:{department.pk}")
    room_check(department, files=files, size=size)


def room_check(department: Department, *, files: int, size: int = 1) -> None:
    """Check that the department may add this many files, with `size` bytes in total.

    Raises:
        NoRoom: the addition would exceed a limit.
    """
    stored = StoredFile.objects.filter(department=department).aggregate(
        count=Count("pk"), size=Sum("size")
    )
    running = Batch.objects.filter(department=department, state__in=OPEN).aggregate(
        count=Count("pk"), size=Sum("output_bytes")
    )
    count = stored["count"] + FILES_OF_BATCH * running["count"]
    used = (stored["size"] or 0) + (running["size"] or 0)
    if (files and count + files > FILES_MAX) or used + size > settings.FILES_DEPARTMENT_BYTES:
        raise NoRoom(
            f"Department {department.slug} has {count:,} files with {used:,} bytes, including "
            "the outputs of open batches; the limit is reached.",
            hint="Delete files, or let them expire sooner with expires_after.",
        )
