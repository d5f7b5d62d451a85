"""The data listener: everything Alertmanager offers, and the one request that is enriched on its way."""
