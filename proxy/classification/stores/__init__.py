"""Where verdicts are kept for the class cache, and what was spent; chosen by `store.url`."""
