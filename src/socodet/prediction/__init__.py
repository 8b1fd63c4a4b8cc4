"""Running a fine-tuned detector on new images; detections are written to files and drawn."""
