"""A transparent proxy in front of Alertmanager that adds AI labels and annotations to alerts."""

__version__ = "1.1.0"
