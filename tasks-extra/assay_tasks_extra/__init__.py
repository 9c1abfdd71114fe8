"""Tasks that demonstrate what Assay can carry, as a distribution of its own.

Assay finds them by entry point and treats them as it treats another company's: they import
`assay.plugins` alone.
"""
