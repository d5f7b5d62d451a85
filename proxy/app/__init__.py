"""The composition root: the only reader of the settings and the only importer of adapters."""

from proxy.app.composition import Running, build, serve

__all__ = ["Running", "build", "serve"]
