"""source -> Store, in bounded memory."""

from gnnsys.ingestion.arrays import ArraySource
from gnnsys.ingestion.build import ingest

__all__ = ["ArraySource", "ingest"]
