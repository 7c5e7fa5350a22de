"""The commands of evaluate.py and the parts of the training scripts. Only scripts import this package."""
