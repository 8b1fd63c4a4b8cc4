"""SoCo in a training loop of your own: socodet gives samples, networks and loss; the loop is yours.

python examples/own_loop.py
"""

import numpy as np
import torch

import socodet

STEPS, BATCH = 6, 4

# Everything that is learned from is in a recipe; `with_` changes it.
recipe = socodet.recipe("tiny").with_(boxes_per_image=4)
# A folder, a list, a COCO file, tar shards: what `socodet pretrain` takes.
images = socodet.open_images(socodet.photographs())
samples = socodet.SampleDataset(
    images, socodet.OnlineProposals(recipe.proposals), np.arange(len(images)), recipe.sample, seed=recipe.training.seed
)

# Online and target network, projectors and predictor. The objective is `soco.objective`.
soco = socodet.build_soco(recipe.model, seed=0, objective=recipe.objective)
learned = [parameter for parameter in soco.parameters() if parameter.requires_grad]  # the target has no gradient
optimizer = torch.optim.AdamW(learned, lr=1e-3)
random = np.random.default_rng(0)

for step in range(STEPS):
    chosen = random.choice(len(images), BATCH, replace=False)
    # A sample is a function of the seed, the epoch and the image. Here each step is an epoch of its own.
    batch = samples.batch([(step, int(index)) for index in chosen])
    output = soco(batch.views)  # batch.to("cuda").views on a GPU
    optimizer.zero_grad()
    output.loss.backward()
    optimizer.step()
    soco.update_target(momentum=0.99)
    spread = output.embeddings.std(dim=0).mean() * recipe.model.embedding_size**0.5
    print(f"step {step}: loss {output.loss:.3f} of at least -8, spread {spread:.2f} of 1 (0 is collapse)")

# The networks are made of the modules of torchvision's detectors, which take them by name.
detector = socodet.new_detector("faster_rcnn_fpn", recipe.model, num_classes=3)
socodet.load_pretrained(detector, soco.state_dict())
torch.save(detector.state_dict(), "detector.pth")
