"""Files: radiographs, catalogs, splits, betons, batches. No engine, and torch only where a batch becomes a tensor."""

__version__ = "0.6.0"
