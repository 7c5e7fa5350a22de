"""A classifier's run."""
