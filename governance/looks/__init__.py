"""Times of people's last looks at objects, to show the changes since then."""
