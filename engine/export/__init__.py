"""Out of the engine: what stands, in the forms that others read. A shard at a time, resumable, with its provenance.

    shard ──► flat tables ──► Selection ──► Split ──► Images ──► a Format writes its part ──► ... ──► it finishes

A format is declared in the entry points `engine.formats`; `engine.export.format.Format` is what it has to have.
"""

from engine.export.format import Format, Part, Whole
from engine.export.run import export

__all__ = ["Format", "Part", "Whole", "export"]
