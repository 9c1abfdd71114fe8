"""The web process: one launcher, and the bounds that hold in front of Django.

`python -m assay.server` starts it everywhere: in the image, in `./demo`, in benchmarks and tests.
"""
