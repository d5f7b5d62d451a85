"""Where decisions are kept; chosen by `store.url`."""
