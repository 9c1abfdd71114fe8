"""Finding events: filters, names, pages with a bound whatever is asked, filters that are kept."""
