"""Where verdicts are kept for the class cache; chosen by `store.url`."""
