"""Batches from a Pack, a Pool or a Store: order, reading ahead, assembly."""
