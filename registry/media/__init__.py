"""Images and audio: checked by content, named by SHA-256, held for a short time for inference."""
