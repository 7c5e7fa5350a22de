"""Benchmarks: speed compared with lower bounds and with other libraries, one command each."""
