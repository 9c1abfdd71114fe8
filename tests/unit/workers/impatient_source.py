"""The process from which runs fork, with a short idle time."""

from __future__ import annotations

from workers.run import forked

if __name__ == "__main__":
    forked.IDLE_S = 2.0
    forked.main()
