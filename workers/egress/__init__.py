"""The way out to providers: what may be reached, how, and with which credentials."""
