"""From images without labels to pretrained modules."""
