"""Deputies of reviewers who are away."""
