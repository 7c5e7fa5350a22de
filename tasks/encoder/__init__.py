"""An encoder's run, without labels."""
