"""The demo of Assay: one company's story, played through the APIs that customers use."""
