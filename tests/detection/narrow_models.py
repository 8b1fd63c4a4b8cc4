"""Networks as small as they may be, for tests of everything around them."""

from socodet.models.settings import ModelSettings

NARROW = ModelSettings(
    backbone="resnet18",
    fpn_channels=16,
    head_convs=1,
    head_channels=16,
    representation_size=24,
    hidden_size=8,
    embedding_size=4,
)
