"""source -> Store, in bounded memory."""

from gnnsys.ingestion.adding import add
from gnnsys.ingestion.arrays import ArraySource
from gnnsys.ingestion.build import ingest

__all__ = ["ArraySource", "add", "ingest"]
