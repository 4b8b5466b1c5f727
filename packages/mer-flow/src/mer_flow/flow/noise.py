"""How much flow is found where nothing moves: what cannot be told from noise."""

from __future__ import annotations

import numpy as np

#: Side of the face that the floors are stated for.
REFERENCE_SIZE = 224
#: Flow that noise alone gives, px of a 224 px face. Measured with the default pipeline on still pairs of
#: synthetic portraits (mer_flow.synthetic: noise of 1 grey level, flicker of 0.1 %, JPEG): `strongest` is .04
#: to .06, up to 0.12 where the head moved and that was removed; a movement of 0.5 px gives 0.25 to 0.28.
NOISE_FLOOR = 0.12
#: Least end of a colour scale, px of a 224 px face and strain: noise (strain: .018) stays
#: below two fifths of full colour.
COLOUR_FLOOR = 0.5
STRAIN_COLOUR_FLOOR = 0.05


def strongest(flow: np.ndarray) -> float:
    """Return the 99.5th percentile of a flow's length, so that one bad pixel does not count.

    Args:
        flow: (2 or 3, S, S): u, v in px of the face, strain.

    Returns:
        In px of a 224 px face.
    """
    return float(np.percentile(np.hypot(flow[0], flow[1]), 99.5)) * REFERENCE_SIZE / flow.shape[-1]
