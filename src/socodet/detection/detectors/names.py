"""Names of the detectors, separate from their networks, so that a name can be checked without importing torch."""

NAMES = ("mask_rcnn_fpn", "mask_rcnn_c4", "faster_rcnn_c4", "faster_rcnn_fpn", "retinanet_fpn", "fcos_fpn", "rt_detr")
ALIASES = {
    "mask_rcnn_r50_fpn": "mask_rcnn_fpn",
    "mask_rcnn_r50_c4": "mask_rcnn_c4",
    "faster_rcnn_r50_c4": "faster_rcnn_c4",
    "faster_rcnn_r50_fpn": "faster_rcnn_fpn",
    "retinanet_r50_fpn": "retinanet_fpn",
    "fcos_r50_fpn": "fcos_fpn",
}
"""Other accepted names, from the paper's tables, where the backbone is a ResNet-50."""
