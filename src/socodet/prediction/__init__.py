"""A fine-tuned detector in use: what it finds in new images, as files and as drawings."""
