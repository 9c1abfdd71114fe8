"""Room of a department for files: its own ones, and the outputs of its batches under way."""

from __future__ import annotations

from django.conf import settings
from django.db.models import Count, Sum

from governance.database.locks import lock
from governance.errors import WrongState
from governance.people.models import Department
from registry.batches.models import Batch
from registry.batches.states import OPEN
from registry.files.models import FILES_MAX, StoredFile

# The output and the error file.
FILES_OF_BATCH = 2


class NoRoom(WrongState):
    """The department has as many files, or bytes, as it may."""

    code = "too_many_files"


def room_take(department: Department, *, files: int, size: int = 1) -> None:
    """Check the room as `room_check`, one at a time in a department until the transaction ends, so
    that two do not take the same room. Raises NoRoom.
    """
    lock(f"files:{department.pk}")
    room_check(department, files=files, size=size)


def room_check(department: Department, *, files: int, size: int = 1) -> None:
    """Raise if the department has no room for so many more files, of `size` bytes together.

    Raises:
        NoRoom: it has not.
    """
    held = StoredFile.objects.filter(department=department).aggregate(
        count=Count("pk"), size=Sum("size")
    )
    running = Batch.objects.filter(department=department, state__in=OPEN).aggregate(
        count=Count("pk"), size=Sum("output_bytes")
    )
    count = held["count"] + FILES_OF_BATCH * running["count"]
    taken = (held["size"] or 0) + (running["size"] or 0)
    if (files and count + files > FILES_MAX) or taken + size > settings.FILES_DEPARTMENT_BYTES:
        raise NoRoom(
            f"Department {department.slug} has {count:,} files of {taken:,} bytes, with those of "
            f"batches under way; there is no room for more.",
            hint="Delete files, or let them expire sooner with expires_after.",
        )
