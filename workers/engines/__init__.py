"""Engines hold a model in memory and answer requests, without Django and without a network."""

import os

# Engines load from verified folders only; this keeps libraries from trying the Hugging Face hub.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
