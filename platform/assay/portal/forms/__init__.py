"""The portal's forms, by feature: they shape input; the services judge it."""
