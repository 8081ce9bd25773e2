"""Bytes only: atomic files, manifests, checksums, tables, topology, pools and packs."""

if __name__ != "gnnsys.storage":
    raise ImportError("this folder is the package gnnsys.storage: write `import gnnsys.storage`")
