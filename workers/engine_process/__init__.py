"""The process in which an engine worker runs Assay's own engines: client, server, frames."""
