"""The demo page, the smoke test and a private Cyrus: run by `bin/run`, never installed."""
