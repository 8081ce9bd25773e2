"""Report: what a run did, as one HTML page without anything to fetch, and as TensorBoard events."""
