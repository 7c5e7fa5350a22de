"""Attacks on a trained classifier."""
