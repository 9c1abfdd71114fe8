"""Images, audio and short videos: checked by content, named by SHA-256, stored briefly."""
