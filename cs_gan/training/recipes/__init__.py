"""Recipes: the keys of each script (GANs, classifiers, encoders), read from YAML and the command line, and checked."""
