"""An office, made once for the tests of one file."""

from tests.unit.registry.office import office, office_built

__all__ = ["office", "office_built"]
