"""Proposals made when an image is sampled, and not stored."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from socodet.images.decode import decode_image
from socodet.images.reading import PLAIN, PixelReading
from socodet.proposals.image_boxes import image_rng, propose_boxes
from socodet.proposals.settings import ProposalSettings


@dataclass(frozen=True)
class OnlineProposals:
    """Replaces a proposal table; gives the same boxes as a table with these settings."""

    settings: ProposalSettings
    reading: PixelReading = PLAIN
    """As in `decode_image`."""

    def look_up(self, key: str, data: bytes) -> tuple[int, NDArray[np.float32]]:
        """The width of an encoded image, pixels, and its proposals (N, 4) xyxy. UnreadableImageError."""
        image = decode_image(data, reading=self.reading)  # at full size, as for a table, even if the views are small
        return image.shape[1], propose_boxes(image, self.settings, image_rng(self.settings.seed, key), key)
