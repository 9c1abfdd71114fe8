"""Trainers, evaluators and the converter: files in, files and numbers out, without Django."""

import os

# Runs load from verified folders only; this keeps libraries from trying the Hugging Face hub.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
