"""Kinds of runs: what each trains, its recipe, its scores and its commands. Only scripts import this package."""
