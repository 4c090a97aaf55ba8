"""ddtl: deep transfer learning on small chest-CT datasets, with results that can be defended."""

__version__ = "0.1.0"
