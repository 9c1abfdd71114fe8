"""Search of events: filters, names, pages of bounded cost, and saved filters."""
