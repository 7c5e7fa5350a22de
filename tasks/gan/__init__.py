"""A GAN's run."""
