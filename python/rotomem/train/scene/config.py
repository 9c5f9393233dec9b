"""Every knob of the generator, and the named mixes of it."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class ComposeConfig:
    """Every knob of the generator. Probabilities are per clip or per layer, pairs are least and most.

    What there is
    layers            most layers before the background, objects included
    region            the first object is a part of the background picture, moving and bending with it
    superpixel        ... found by the picture's own colours rather than taken from its mask
    region_shape      ... or of a shape of our own
    footage           the background is real footage
    cutout, shape, patch, figure, vehicle, thin   how often a layer is a cut-out object, a shape filled with a
                      photograph, a superpixel of one, an articulated figure, a vehicle, a thin structure; relative
    distractor        every further free layer is used with this probability
    copy              a distractor is a copy of an object
    crossing          a distractor crosses an object's path in the midst of the clip
    occluded          ... and is large enough to hide it then
    reentry           an object leaves the frame and comes back

    Shape
    patchwork         a shape is filled with two pictures instead of one
    limbs             a shape is made of limbs rather than one outline
    limb_radius       of a limb, before the shape is fitted into its square, whose side is 2
    hole              a shape has a hole
    line              half width of thin lines, share of half the layer's square
    hung              a thin structure hangs on a body
    wild              how far a figure's joints swing; 1 as in walking

    Motion
    size              half side of a layer's square, screen units, log-uniform
    speed             screen units per frame, log-uniform
    still             a layer does not move
    spin, growth      most turn (radians) and log scale per frame
    turning           a cut-out, shape or patch is a body that turns in depth; figures and vehicles always may
    yaw               how fast a body turns in depth, radians per frame, log-uniform
    hinge             a layer folds about a joint; most radians per frame
    bend              most displacement of the low-frequency warp per frame, texture units
    perspective       most perspective term per frame
    with_camera       a layer is carried by the camera's move
    zoom              half width of the screen on the background's short side
    camera            camera speed, background units per frame, log-uniform
    region_bend       as bend, for region clips

    Light and camera
    tint              strength of the colour changes of a layer against the rest
    relight           a layer changes brightness on its own while it moves
    shadow            layers throw soft shadows
    lighting          a soft light field moves over the picture; its strength
    drift             exposure and white balance drift; their strength per frame
    exposure          stops, most, either way
    scene             the clip is a scene-linear plate, encoded with the soft shoulder of inference; others are cut
                      at white like photographs
    defocus           a layer is out of focus, some of them changing; most blur (sigma), share of
                      half the screen
    soft              the whole clip is; most blur, likewise
    shutter           the clip has motion blur; most share of the frame time that is open, sub-frames
    grain             noise is added; its standard deviation
    compression       the clip is compressed like JPEG; least and most quality

    What is followed
    least_area        an object smaller than this share of the first frame is not followed in this clip
    most_area         nor one larger than this
    """

    layers: int = 4
    region: float = 0.25
    superpixel: float = 0.5
    region_shape: float = 0.1
    footage: float = 0.2
    cutout: float = 0.26
    shape: float = 0.16
    patch: float = 0.12
    figure: float = 0.28
    vehicle: float = 0.06
    thin: float = 0.12
    distractor: float = 0.5
    copy: float = 0.3
    crossing: float = 0.3
    occluded: float = 0.35
    reentry: float = 0.08

    patchwork: float = 0.35
    limbs: float = 0.5
    limb_radius: tuple[float, float] = (0.05, 0.33)
    hole: float = 0.12
    line: tuple[float, float] = (0.008, 0.05)
    hung: float = 0.5
    wild: float = 1.0

    size: tuple[float, float] = (0.25, 1.05)
    speed: tuple[float, float] = (0.004, 0.22)
    still: float = 0.1
    spin: float = 0.25
    growth: float = 0.18
    turning: float = 0.4
    yaw: tuple[float, float] = (0.01, 0.7)
    hinge: tuple[float, float] = (0.25, 0.3)
    bend: float = 0.07
    perspective: float = 0.12
    with_camera: float = 0.4
    zoom: tuple[float, float] = (0.35, 0.95)
    camera: tuple[float, float] = (0.002, 0.2)
    region_bend: float = 0.045

    tint: float = 0.35
    relight: float = 0.4
    shadow: float = 0.25
    lighting: tuple[float, float] = (0.4, 0.3)
    drift: tuple[float, float] = (0.6, 0.05)
    exposure: float = 0.7
    scene: float = 0.4
    defocus: tuple[float, float] = (0.12, 0.025)
    soft: tuple[float, float] = (0.25, 0.008)
    shutter: tuple[float, float, int] = (0.05, 0.7, 8)
    grain: tuple[float, float] = (0.5, 0.04)
    compression: tuple[float, float, float] = (0.3, 20, 90)

    least_area: float = 0.003
    most_area: float = 0.8


_ONE_KIND = ComposeConfig(
    region=0, footage=0, cutout=0, shape=0, patch=0, figure=0, vehicle=0, thin=0, distractor=0.2
)  # fmt: skip

KINDS: dict[str, ComposeConfig] = {
    "mixed": ComposeConfig(),
    "regions": replace(_ONE_KIND, region=1, layers=1, cutout=1, distractor=0),
    "cutouts": replace(_ONE_KIND, cutout=1, turning=0),
    "shapes": replace(_ONE_KIND, shape=1, patch=0.7, turning=0),
    "articulated": replace(_ONE_KIND, figure=1),
    "vehicles": replace(_ONE_KIND, vehicle=1),
    "turning": replace(_ONE_KIND, cutout=0.6, shape=0.2, patch=0.2, turning=1, yaw=(0.2, 0.7)),
    "thin": replace(_ONE_KIND, thin=1),
    "footage": replace(ComposeConfig(), region=0, footage=1),
    "occlusion": replace(ComposeConfig(), region=0, distractor=1, crossing=1, occluded=0.6, reentry=0.3),
}
"""Mixes that show one thing each, for looking at; "mixed" is what training uses."""


def motion_blur() -> ComposeConfig:
    """Sharp objects that move fast under an open shutter of 16 sub-frames, for measuring alpha."""
    return replace(
        ComposeConfig(),
        region=0, footage=0, thin=0, speed=(0.06, 0.25), still=0, defocus=(0, 0), soft=(0, 0), reentry=0,
        shutter=(1, 0.9, 16), grain=(0.5, 0.01), compression=(0, 50, 90),
    )  # fmt: skip


def defocused() -> ComposeConfig:
    """Objects that are all out of focus before a sharp background, for measuring alpha."""
    return replace(
        ComposeConfig(),
        region=0, footage=0, thin=0, speed=(0.004, 0.06), defocus=(1, 0.04), soft=(0, 0), reentry=0,
        shutter=(0, 0.5, 4), grain=(0.5, 0.01), compression=(0, 50, 90),
    )  # fmt: skip


def thin_structures() -> ComposeConfig:
    """Lines, straps, strands, wheels and frames, half of them on bodies, for measuring alpha."""
    return replace(
        _ONE_KIND,
        thin=1, distractor=0.3, speed=(0.004, 0.06), size=(0.5, 0.95), line=(0.006, 0.03), shutter=(0, 0.5, 4),
        grain=(0.5, 0.01), compression=(0, 50, 90), reentry=0, least_area=0.001,
    )  # fmt: skip
