"""One measurement each: peers in the same run, JSON results, generated tables."""

if __name__ != "gnnsys.bench":
    raise ImportError("this folder is the package gnnsys.bench: write `import gnnsys.bench`")
