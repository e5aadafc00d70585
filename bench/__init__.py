"""Benchmarks of the pusher beside its peers; run with bin/bench, described in bench/README.md."""
