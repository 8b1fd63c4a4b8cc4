"""The detectors, one file per family; their classes define everything that differs between them (`Detector`)."""
