"""Self-supervised training: losses, views, one step, and scores of frozen features."""

from cs_gan.ssl.embedding_losses import barlow_twins, cross_correlation, nt_xent
from cs_gan.ssl.scores import knn_accuracy, linear_probe
from cs_gan.ssl.steps import ssl_step
from cs_gan.ssl.views import Views

__all__ = ["Views", "barlow_twins", "cross_correlation", "knn_accuracy", "linear_probe", "nt_xent", "ssl_step"]
