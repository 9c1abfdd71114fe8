"""The web process: its launcher, and the limits that apply before Django.

`python -m assay.server` starts it everywhere: in the image, in `./demo`, in benchmarks and tests.
"""
