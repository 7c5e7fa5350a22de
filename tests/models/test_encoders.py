import pytest
import torch

from models import CLASSIFIER_NAMES, build_classifier, build_encoder

FEATURES = {
    "cnn_small": 24,
    "cnn_plain": 2 * 4 * 16,
    "mlp": 4,
    "resnet20": 16,
    "preact_resnet18": 32,
    "wrn28_10": 160,
    "vit32": 4,
}


@pytest.mark.parametrize("name", CLASSIFIER_NAMES)
def test_features_are_what_the_classifiers_last_layer_takes(name):
    classifier = build_classifier(name, 2, width=4, image_size=16, channels=1).eval()
    torch.manual_seed(0)
    network = build_encoder(name, projector_width=8, projector_dim=5, width=4, image_size=16, channels=1).eval()
    x, seen = torch.randn(3, 1, 16, 16), []
    last = [part for part in classifier.modules() if isinstance(part, torch.nn.Linear)][-1]
    last.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        classifier(x)
        features = network.encoder(x)
        assert network(x).shape == (3, 5)
    assert features.shape == (3, FEATURES[name])
    assert torch.equal(features, seen[0])


def test_the_projector_has_the_layers_that_are_asked_for():
    def linear(layers):
        network = build_encoder("mlp", projector_layers=layers, projector_width=7, projector_dim=3, width=5)
        return [tuple(p.weight.shape) for p in network.projector if isinstance(p, torch.nn.Linear)]

    assert linear(1) == [(3, 5)]
    assert linear(3) == [(7, 5), (7, 7), (3, 7)]


@pytest.mark.parametrize("wrong", [{"projector_layers": 0}, {"projector_dim": -1}, {"wdth": 3}])
def test_what_can_not_be_built_is_refused_by_name(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        build_encoder("mlp", **wrong)
