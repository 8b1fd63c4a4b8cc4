"""How much a network knows about annotated objects before fine-tuning.

`probe.py` is the command. `scores.py` probes an encoder: `samples.py` makes the views that it sees, `features.py`
encodes their objects, `classifiers.py` and `retrieval.py` evaluate the features.
"""
