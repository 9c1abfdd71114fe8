"""`python -m assay.cli` is the `assay` command."""

from assay.cli.main import main

main()
