"""From pretrained weights and an annotated set to a detector and its scores."""
