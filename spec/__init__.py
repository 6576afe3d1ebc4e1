"""What the bytes are: constants and layouts of the virtio text and of this project's own formats.

Nothing here behaves. Every layout is declared once, with construct; `spec.layout` derives numpy dtypes from the
declarations. Imports nothing else of the project.
"""
