"""Trainers, evaluators and the converter: files in, files and numbers out. They know no Django."""

import os

# Everything is loaded from verified folders; a library that looks for a hub finds it switched off.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
