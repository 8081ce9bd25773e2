"""source -> Store, in bounded memory."""

from gnnsys.ingestion.arrays import ArraySource, ingest_arrays
from gnnsys.ingestion.build import ingest

__all__ = ["ArraySource", "ingest", "ingest_arrays"]
