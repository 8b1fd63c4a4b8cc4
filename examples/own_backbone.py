"""A backbone of your own: any module that gives four feature maps, of strides 4, 8, 16 and 32.

    python examples/own_backbone.py

On the command line, in this folder:

    socodet pretrain IMAGES --output runs/own_backbone --backbone own_backbone:PlainNet
    socodet finetune SET --init runs/own_backbone --output runs/det --import own_backbone

The run says which backbone it has, but a file never chooses what code runs: --import does.
"""

from torch import nn
from torchvision.ops import Conv2dNormActivation

import socodet

WIDTHS = 16, 32, 64, 128


class PlainNet(nn.Module):
    """Four stages of plain convolutions. Called without arguments; fixed settings are part of the class."""

    def __init__(self):
        super().__init__()
        self.stem = Conv2dNormActivation(3, WIDTHS[0], kernel_size=7, stride=4)
        self.stages = nn.ModuleList(
            nn.Sequential(
                Conv2dNormActivation(inputs, outputs, stride=1 if stage == 0 else 2),
                Conv2dNormActivation(outputs, outputs),
            )
            for stage, (inputs, outputs) in enumerate(zip((WIDTHS[0], *WIDTHS), WIDTHS, strict=False))
        )

    def forward(self, images):
        """(B, 3, H, W) → four maps, (B, 16, H/4, W/4) to (B, 128, H/32, W/32); a dict does as well as a list."""
        maps = [self.stages[0](self.stem(images))]
        for stage in self.stages[1:]:
            maps.append(stage(maps[-1]))
        return maps


if __name__ == "__main__":
    recipe = socodet.recipe("tiny").with_(backbone=socodet.register(PlainNet), epochs=2, batch_size=4)
    print(socodet.pretrain(socodet.photographs(), recipe, "runs/own_backbone", overwrite=True))
    # Pyramid and box head are made to fit, and every detector takes them: two classes and the background.
    detector = socodet.build_detector("runs/own_backbone", num_classes=3, detector="faster_rcnn_fpn")
    print(f"{sum(weights.numel() for weights in detector.backbone.parameters()):,} pretrained weights in its backbone")
