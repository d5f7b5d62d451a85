"""The admin listener: health, metrics, the mode switch, status."""
