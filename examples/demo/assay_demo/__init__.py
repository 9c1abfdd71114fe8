"""The story that a stranger sees: one company, told through the same APIs a customer would use."""
