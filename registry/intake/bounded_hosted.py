"""Process that checks the delivery of a hosted model: `bounded`, with the schema of descriptions
imported before the process is confined. It takes longer to import than other checks to run.
"""

from __future__ import annotations

import registry.catalog.hosted  # noqa: F401
from registry.intake.bounded import main

if __name__ == "__main__":
    main()
