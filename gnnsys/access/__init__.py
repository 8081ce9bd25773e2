"""Rows of a table in host memory for a GPU: copied through page-locked buffers, or read by the GPU itself."""
