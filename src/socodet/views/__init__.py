"""From an image and its proposals to the views of section 3.2: geometry, rendering, samples, batches."""
