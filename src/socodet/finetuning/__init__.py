"""From pretrained weights and an annotated dataset to a detector and its scores."""
