//! What can lie under the microscope: plain data, in units of the image's side, with the origin at the top left.
//!
//! Everything flat (substrate, leads, die, circuit blocks, traces, pads) is a [`Plate`]; what carries a label of its
//! own (wires, balls, wedges, epoxy) has a type of its own. Lists are in painting order: a later item covers an earlier
//! one.

/// A position or a direction, `[x, y]`, `y` downward.
pub type Point = [f32; 2];

pub fn add(a: Point, b: Point) -> Point {
    [a[0] + b[0], a[1] + b[1]]
}

pub fn sub(a: Point, b: Point) -> Point {
    [a[0] - b[0], a[1] - b[1]]
}

pub fn scale(a: Point, factor: f32) -> Point {
    [a[0] * factor, a[1] * factor]
}

pub fn dot(a: Point, b: Point) -> f32 {
    a[0] * b[0] + a[1] * b[1]
}

pub fn length(a: Point) -> f32 {
    dot(a, a).sqrt()
}

/// `a` at length 1; a zero vector becomes `[1, 0]`.
pub fn unit(a: Point) -> Point {
    let norm = length(a);
    if norm > 1e-9 { scale(a, 1.0 / norm) } else { [1.0, 0.0] }
}

/// A quarter turn from the x axis toward the y axis.
pub fn across(a: Point) -> Point {
    [-a[1], a[0]]
}

pub fn lerp(a: f32, b: f32, t: f32) -> f32 {
    a + (b - a) * t
}

/// 0 below `low`, 1 above `high`, a cubic between.
pub fn smoothstep(low: f32, high: f32, x: f32) -> f32 {
    let t = ((x - low) / (high - low)).clamp(0.0, 1.0);
    t * t * (3.0 - 2.0 * t)
}

/// A rotated and shifted coordinate system; `axis` is its unit x axis.
#[derive(Clone, Copy, Debug)]
pub struct Frame {
    pub origin: Point,
    pub axis: Point,
}

impl Frame {
    pub fn to_local(self, point: Point) -> Point {
        let from = sub(point, self.origin);
        [dot(from, self.axis), dot(from, across(self.axis))]
    }

    pub fn to_image(self, local: Point) -> Point {
        add(self.origin, self.turn(local))
    }

    /// A direction of this frame as one of the image.
    pub fn turn(self, local: Point) -> Point {
        add(scale(self.axis, local[0]), scale(across(self.axis), local[1]))
    }
}

/// How a surface answers light; see [`super::light`].
#[derive(Clone, Copy, Debug)]
pub struct Material {
    /// Share of light scattered in all directions.
    pub albedo: f32,
    /// Strength of the mirror-like part.
    pub gloss: f32,
    /// Width of the mirror-like lobe, as the sine of a tilt.
    pub roughness: f32,
}

/// Structure finer than a plate: it tilts the surface or changes how much it reflects.
#[derive(Clone, Copy, Debug)]
pub enum Pattern {
    Plain,
    /// Isotropic grain; `period` in image sides, `depth` the sine of the largest tilt.
    Grain {
        period: f32,
        depth: f32,
    },
    /// Streaks along the plate's x axis.
    Brushed {
        period: f32,
        depth: f32,
    },
    /// Parallel conductors along the plate's x axis; `duty` is their share of the pitch, `contrast` their extra gain.
    Lines {
        pitch: f32,
        duty: f32,
        contrast: f32,
    },
    /// Standard cells: small rectangles of random gain.
    Cells {
        pitch: f32,
        contrast: f32,
    },
}

/// A flat rounded rectangle with beveled edges; a disc if `corner` equals both halves.
#[derive(Clone, Copy, Debug)]
pub struct Plate {
    pub frame: Frame,
    pub half: Point,
    pub corner: f32,
    pub bevel: f32,
    /// Sine of the bevel's tilt: above 0 the plate stands out, below 0 it is sunk.
    pub rise: f32,
    /// How far it darkens what lies around it.
    pub contact: f32,
    pub material: Material,
    pub pattern: Pattern,
}

/// A ball bond: a squashed ball from whose top the wire leaves.
#[derive(Clone, Copy, Debug)]
pub struct Ball {
    /// The x axis is the longer one.
    pub frame: Frame,
    pub radii: Point,
    /// 0 is a dome, 1 a flat top with a neck in the middle.
    pub flatness: f32,
    pub material: Material,
}

/// A wedge bond: the wire pressed flat, ending in two tips like a fish's tail. The x axis points away from the wire.
#[derive(Clone, Copy, Debug)]
pub struct Wedge {
    pub frame: Frame,
    pub length: f32,
    /// Half widths where the wire comes in and at the tail.
    pub heel: f32,
    pub tail: f32,
    /// Depth of the notch between the tips.
    pub notch: f32,
    /// Spacing of the marks that the tool leaves, and the sine of their tilt.
    pub ridge: f32,
    pub depth: f32,
    pub material: Material,
}

/// A wire from ball to wedge, as a polyline fine enough to look smooth.
#[derive(Clone, Debug)]
pub struct Wire {
    pub points: Vec<Point>,
    /// Height above the ground at each point.
    pub heights: Vec<f32>,
    pub radius: f32,
    pub material: Material,
}

impl Wire {
    pub fn peak(&self) -> f32 {
        self.heights.iter().copied().fold(0.0, f32::max)
    }
}

/// A blob of epoxy: where a sum of smooth bumps (center, radius) exceeds [`Epoxy::LEVEL`].
#[derive(Clone, Debug)]
pub struct Epoxy {
    pub bumps: Vec<(Point, f32)>,
    pub material: Material,
    /// How much of what lies below is hidden where the blob is thick.
    pub opacity: f32,
    /// Depth over which it becomes that opaque.
    pub edge: f32,
    /// Depth of the filler's grain.
    pub grain: f32,
    pub height: f32,
}

impl Epoxy {
    pub const LEVEL: f32 = 0.35;

    /// The field at `point` and its gradient; it is positive inside the blob and 0 on its edge.
    pub fn field(&self, point: Point) -> (f32, Point) {
        let (mut sum, mut gradient) = (-Self::LEVEL, [0.0, 0.0]);
        for &(center, radius) in &self.bumps {
            let from = sub(point, center);
            let inverse = 1.0 / (radius * radius);
            let rest = 1.0 - dot(from, from) * inverse;
            if rest > 0.0 {
                sum += rest * rest;
                gradient = add(gradient, scale(from, -4.0 * rest * inverse));
            }
        }
        (sum, gradient)
    }
}

/// The two light settings; see [`super::light`].
#[derive(Clone, Copy, Debug)]
pub struct Light {
    /// Diffuse share in each channel.
    pub diffuse: [f32; 2],
    /// Share of the other channel's light.
    pub leak: [f32; 2],
    /// Sine of the tilt that mirrors the ring light into the lens.
    pub ring_tilt: f32,
    pub ring_gain: f32,
    /// Where the ring is brightest, and by how much.
    pub toward: Point,
    pub sided: f32,
    /// Displacement of a shadow per unit of height, and its darkness in each channel.
    pub shadow: Point,
    pub shade: [f32; 2],
}

/// The lens and the sensor; pairs are per channel.
#[derive(Clone, Copy, Debug)]
pub struct Camera {
    /// Blur in focus and far out of it, standard deviations in image sides.
    pub sharp: f32,
    pub soft: f32,
    /// Height in focus, and the distance from it at which the blur is `soft`.
    pub focus: f32,
    pub depth: f32,
    /// Illumination: relative change across the image, and loss in the corners.
    pub slope: [Point; 2],
    pub vignette: [f32; 2],
    /// Mean brightness aimed at (1 saturates), and offset of black.
    pub exposure: [f32; 2],
    pub black: [f32; 2],
    /// Noise variance per unit of signal, standard deviation without signal, and of a whole row.
    pub shot: [f32; 2],
    pub read: [f32; 2],
    pub row: [f32; 2],
}

/// Everything in one photograph.
#[derive(Clone, Debug)]
pub struct Scene {
    pub ground: Plate,
    /// Under the die and the epoxy that holds it.
    pub under: Vec<Plate>,
    pub fillets: Vec<Epoxy>,
    pub plates: Vec<Plate>,
    pub balls: Vec<Ball>,
    pub wedges: Vec<Wedge>,
    /// Lowest loop first.
    pub wires: Vec<Wire>,
    pub blobs: Vec<Epoxy>,
    pub light: Light,
    pub camera: Camera,
}
