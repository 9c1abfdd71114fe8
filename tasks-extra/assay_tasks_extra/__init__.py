"""Tasks that demonstrate the range of Assay, in a separate distribution.

Assay finds them by entry point and treats them like tasks of any other company: they import only
`assay.plugins`.
"""
