"""Who is in a batch: numba kernels, neighbour and link sampling, negatives, pool writing."""

if __name__ != "gnnsys.samplers":
    raise ImportError("this folder is the package gnnsys.samplers: write `import gnnsys.samplers`")
