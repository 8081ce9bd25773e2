"""Torch modules: aggregation on blocks, layers and the networks built from them."""

if __name__ != "gnnsys.models":
    raise ImportError("this folder is the package gnnsys.models: write `import gnnsys.models`")
