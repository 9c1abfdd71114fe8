"""Changes that are new to a person, since they last looked."""
