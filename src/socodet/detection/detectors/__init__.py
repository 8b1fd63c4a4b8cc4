"""The detectors, by name: a file per family, whose classes say all that differs between them (`Detector`)."""
