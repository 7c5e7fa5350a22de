"""``CodedSmoothing.diagnose``: measure what coding does to a model on one batch, and report signs of failure."""
