"""What coding does to a model on one batch: measured, judged and told (``CodedSmoothing.diagnose``)."""
