"""The way out to providers: what may be reached, by which connections and with which credentials."""
