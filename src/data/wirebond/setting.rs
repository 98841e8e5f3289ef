//! Draws what surrounds the wires: materials, substrate, die surface, leads and pads, light and camera.
//!
//! Much of it is there to be mistaken for a wire or a ball: traces and leads of the same metal, conductors on the die
//! as wide as wires, round vias and bumps. By brightness alone they cannot be told apart.

use super::layout::{chance, uniform};
use super::scene::{Camera, Epoxy, Frame, Light, Material, Pattern, Plate, Point, Scene, scale};
use crate::random::Rng;

/// The metals of one package.
#[derive(Clone, Copy)]
pub struct Metals {
    pub wire: Material,
    pub pad: Material,
    pub lead: Material,
    lead_pattern: Pattern,
    bevel: f32,
}

pub fn metals(rng: &mut Rng) -> Metals {
    let lead_depth = uniform(rng, 0.06, 0.2);
    Metals {
        wire: metal(rng, [0.5, 1.0], [0.3, 0.55]),
        pad: metal(rng, [0.35, 0.9], [0.3, 0.6]),
        lead: metal(rng, [0.3, 0.8], [0.3, 0.6]),
        lead_pattern: if chance(rng, 0.6) {
            Pattern::Brushed { period: uniform(rng, 0.006, 0.014), depth: lead_depth }
        } else {
            Pattern::Grain { period: uniform(rng, 0.006, 0.02), depth: 1.2 * lead_depth }
        },
        bevel: uniform(rng, 0.006, 0.014),
    }
}

fn metal(rng: &mut Rng, gloss: [f32; 2], roughness: [f32; 2]) -> Material {
    let gloss = uniform(rng, gloss[0], gloss[1]);
    let albedo = uniform(rng, 0.15, 0.35) + 0.45 * gloss;
    Material { albedo, gloss, roughness: uniform(rng, roughness[0], roughness[1]) }
}

/// The same material on another piece: a little brighter or duller.
pub fn vary(rng: &mut Rng, material: Material) -> Material {
    Material {
        albedo: material.albedo * uniform(rng, 0.85, 1.15),
        gloss: material.gloss * uniform(rng, 0.75, 1.2),
        roughness: material.roughness * uniform(rng, 0.9, 1.1),
    }
}

fn flat(frame: Frame, half: Point, material: Material, pattern: Pattern) -> Plate {
    Plate { frame, half, corner: 0.0, bevel: 0.0, rise: 0.0, contact: 0.0, material, pattern }
}

/// A substrate without anything on it, and how it is lit and photographed.
pub fn empty(rng: &mut Rng, loop_height: f32) -> Scene {
    let turn = uniform(rng, 0.0, std::f32::consts::TAU);
    let frame = Frame { origin: [0.5, 0.5], axis: [turn.cos(), turn.sin()] };
    let (material, pattern) = match rng.below(3) {
        // Metal paddle, brushed.
        0 => (
            metal(rng, [0.2, 0.6], [0.3, 0.6]),
            Pattern::Brushed { period: uniform(rng, 0.006, 0.018), depth: uniform(rng, 0.1, 0.25) },
        ),
        // Ceramic or etched metal.
        1 => (
            Material { albedo: uniform(rng, 0.2, 0.55), gloss: uniform(rng, 0.05, 0.3), roughness: 0.5 },
            Pattern::Grain { period: uniform(rng, 0.005, 0.014), depth: uniform(rng, 0.1, 0.3) },
        ),
        // Solder resist: dark, with coarse waves.
        _ => (
            Material { albedo: uniform(rng, 0.12, 0.4), gloss: uniform(rng, 0.05, 0.2), roughness: 0.4 },
            Pattern::Grain { period: uniform(rng, 0.012, 0.03), depth: uniform(rng, 0.1, 0.25) },
        ),
    };
    Scene {
        ground: flat(frame, [0.75, 0.75], material, pattern),
        under: Vec::new(),
        fillets: Vec::new(),
        plates: Vec::new(),
        balls: Vec::new(),
        wedges: Vec::new(),
        wires: Vec::new(),
        blobs: Vec::new(),
        light: light(rng),
        camera: camera(rng, loop_height),
    }
}

fn light(rng: &mut Rng) -> Light {
    let turn = uniform(rng, 0.0, std::f32::consts::TAU);
    let toward = [turn.cos(), turn.sin()];
    Light {
        diffuse: [uniform(rng, 0.4, 0.8), uniform(rng, 0.6, 1.0)],
        leak: [uniform(rng, 0.0, 0.3), uniform(rng, 0.1, 0.35)],
        ring_tilt: uniform(rng, 0.35, 0.65),
        ring_gain: uniform(rng, 0.25, 0.6),
        toward,
        sided: uniform(rng, 0.1, 0.7),
        shadow: scale(toward, -uniform(rng, 0.3, 0.8)),
        shade: [uniform(rng, 0.15, 0.45), uniform(rng, 0.3, 0.7)],
    }
}

fn camera(rng: &mut Rng, loop_height: f32) -> Camera {
    // Both lamps sit on the same side of the stage, never quite in the same place.
    let side = uniform(rng, 0.0, std::f32::consts::TAU);
    let mut slope = || {
        let turn = side + uniform(rng, -0.8, 0.8);
        scale([turn.cos(), turn.sin()], uniform(rng, 0.5, 1.2))
    };
    let slope = [slope(), slope()];
    Camera {
        sharp: uniform(rng, 0.0012, 0.0042),
        soft: uniform(rng, 0.005, 0.011),
        focus: loop_height * uniform(rng, -0.1, 0.9),
        depth: uniform(rng, 0.05, 0.12),
        slope,
        vignette: [uniform(rng, 0.0, 0.6), uniform(rng, 0.0, 0.5)],
        exposure: [uniform(rng, 0.28, 0.5), uniform(rng, 0.2, 0.42)],
        black: [uniform(rng, 0.0, 0.06), uniform(rng, 0.0, 0.04)],
        shot: [uniform(rng, 0.0003, 0.0015), uniform(rng, 0.0004, 0.002)],
        read: [uniform(rng, 0.003, 0.009), uniform(rng, 0.005, 0.014)],
        row: [uniform(rng, 0.0, 0.003), uniform(rng, 0.0, 0.006)],
    }
}

pub fn lead(rng: &mut Rng, frame: Frame, half: Point, metals: &Metals) -> Plate {
    Plate {
        frame,
        half,
        corner: half[1] * uniform(rng, 0.3, 0.95),
        bevel: metals.bevel.min(0.6 * half[1]),
        rise: 0.75,
        contact: 0.5,
        material: vary(rng, metals.lead),
        pattern: metals.lead_pattern,
    }
}

/// The ground ring around a die: one bar of it.
pub fn ring(rng: &mut Rng, frame: Frame, half_length: f32, half_width: f32, metals: &Metals) -> Plate {
    lead(rng, frame, [half_length + half_width, half_width.max(0.006)], metals)
}

pub fn pad(rng: &mut Rng, frame: Frame, half: f32, metals: &Metals) -> Plate {
    Plate {
        frame,
        half: [half, half * uniform(rng, 0.95, 1.15)],
        corner: half * uniform(rng, 0.05, 0.3),
        bevel: 0.006,
        rise: -0.6,
        contact: 0.0,
        material: vary(rng, metals.pad),
        pattern: Pattern::Grain { period: 0.006, depth: uniform(rng, 0.08, 0.3) },
    }
}

/// The scratch that a test needle left on a pad.
pub fn probe_mark(rng: &mut Rng, pad: Frame, half: f32) -> Plate {
    let at = [uniform(rng, -0.6, 0.6) * half, uniform(rng, -0.8, 0.8) * half];
    let size = half * uniform(rng, 0.12, 0.22);
    Plate {
        frame: Frame { origin: pad.to_image(at), axis: pad.axis },
        half: [size * uniform(rng, 1.0, 2.0), size],
        corner: size,
        bevel: size,
        rise: -0.7,
        contact: 0.0,
        material: Material { albedo: 0.2, gloss: 0.3, roughness: 0.5 },
        pattern: Pattern::Plain,
    }
}

/// Traces and vias on the substrate: straight pieces with bends of 45°, as wide and as bright as wires.
pub fn traces(rng: &mut Rng, plates: &mut Vec<Plate>) {
    if chance(rng, 0.4) {
        return;
    }
    let material = metal(rng, [0.2, 0.8], [0.3, 0.6]);
    let pattern = Pattern::Grain { period: 0.01, depth: uniform(rng, 0.05, 0.25) };
    for _ in 0..2 + rng.below(6) {
        let mut point = [uniform(rng, 0.0, 1.0), uniform(rng, 0.0, 1.0)];
        let mut eighth = rng.below(8) as f32;
        let width = uniform(rng, 0.007, 0.018);
        let mut line = |frame: Frame, half: Point| {
            let mut plate = flat(frame, half, material, pattern);
            (plate.corner, plate.bevel, plate.rise, plate.contact) = (width, 0.7 * width, 0.55, 0.2);
            plates.push(plate);
        };
        for _ in 0..1 + rng.below(3) {
            let turn = eighth * std::f32::consts::FRAC_PI_4;
            let half = uniform(rng, 0.05, 0.2);
            let frame = Frame { origin: point, axis: [turn.cos(), turn.sin()] };
            line(Frame { origin: frame.to_image([half, 0.0]), ..frame }, [half + width, width]);
            point = frame.to_image([2.0 * half, 0.0]);
            eighth += if chance(rng, 0.5) { 1.0 } else { -1.0 };
        }
        let via = width * uniform(rng, 1.5, 2.4);
        let mut plate = flat(Frame { origin: point, axis: [1.0, 0.0] }, [via, via], material, pattern);
        (plate.corner, plate.bevel, plate.rise, plate.contact) = (via, 0.4 * via, 0.7, 0.3);
        plates.push(plate);
    }
}

/// The die: its body, a mosaic of circuit blocks, power rails and a guard ring.
pub fn die(rng: &mut Rng, frame: Frame, half: Point, wire: f32, plates: &mut Vec<Plate>) {
    let silicon = Material {
        albedo: uniform(rng, 0.12, 0.45),
        gloss: uniform(rng, 0.1, 0.45),
        roughness: uniform(rng, 0.25, 0.5),
    };
    let mut body = flat(frame, half, silicon, Pattern::Plain);
    (body.bevel, body.rise, body.contact) = (0.006, 0.8, 0.6);
    plates.push(body);
    let margin = uniform(rng, 0.012, 0.03);
    let inner = [half[0] - margin, half[1] - margin];
    mosaic(rng, frame, [scale(inner, -1.0), inner], silicon, 0, plates);
    // Rails cross the whole die, as wide as wires, and wider ones run along its edge.
    let rail = Material { roughness: silicon.roughness, ..metal(rng, [0.25, 0.8], [0.3, 0.5]) };
    let pattern = Pattern::Grain { period: 0.008, depth: uniform(rng, 0.05, 0.2) };
    for _ in 0..2 + rng.below(7) {
        let upright = chance(rng, 0.5);
        let (long, wide) = if upright { (inner[1], inner[0]) } else { (inner[0], inner[1]) };
        let reach = long * uniform(rng, 0.15, 0.95);
        let place = [uniform(rng, reach - long, long - reach), uniform(rng, -0.95, 0.95) * wide];
        let width = wire * uniform(rng, 0.5, 1.3);
        let axis = if upright { [-frame.axis[1], frame.axis[0]] } else { frame.axis };
        let local = Frame { origin: frame.origin, axis };
        let mut bar = flat(Frame { origin: local.to_image(place), axis }, [reach, width], vary(rng, rail), pattern);
        (bar.bevel, bar.rise) = (0.6 * width, 0.4);
        plates.push(bar);
    }
    for quarter in 0..4 {
        let (long, at) = if quarter % 2 == 0 { (inner[0], inner[1]) } else { (inner[1], inner[0]) };
        let axis = if quarter % 2 == 0 { frame.axis } else { [-frame.axis[1], frame.axis[0]] };
        let side = if quarter < 2 { at } else { -at };
        let local = Frame { origin: frame.origin, axis };
        plates.push(flat(Frame { origin: local.to_image([0.0, side]), axis }, [long, 0.3 * margin], rail, pattern));
    }
}

/// Splits a rectangle of the die, `[low, high]` in its frame, into blocks of circuits.
fn mosaic(rng: &mut Rng, die: Frame, area: [Point; 2], silicon: Material, depth: u32, plates: &mut Vec<Plate>) {
    let size = [area[1][0] - area[0][0], area[1][1] - area[0][1]];
    let longer = if size[0] > size[1] { 0 } else { 1 };
    if depth < 5 && size[longer] > 0.16 && (depth < 3 || chance(rng, 0.7)) {
        let cut = area[0][longer] + size[longer] * uniform(rng, 0.3, 0.7);
        let (mut first, mut second) = (area, area);
        first[1][longer] = cut;
        second[0][longer] = cut;
        mosaic(rng, die, first, silicon, depth + 1, plates);
        mosaic(rng, die, second, silicon, depth + 1, plates);
        return;
    }
    let middle = die.to_image([0.5 * (area[0][0] + area[1][0]), 0.5 * (area[0][1] + area[1][1])]);
    let gap = uniform(rng, 0.002, 0.008);
    let half = [0.5 * size[0] - gap, 0.5 * size[1] - gap];
    if half[0] < 0.01
        || half[1] < 0.01
        || middle.iter().any(|&x| x < -half[0].max(half[1]) || x > 1.0 + half[0].max(half[1]))
    {
        return;
    }
    let upright = chance(rng, 0.5);
    let pattern = match rng.below(4) {
        0 => Pattern::Grain { period: uniform(rng, 0.004, 0.02), depth: uniform(rng, 0.05, 0.25) },
        1 => Pattern::Cells { pitch: uniform(rng, 0.008, 0.02), contrast: uniform(rng, 0.15, 0.45) },
        _ => Pattern::Lines {
            pitch: uniform(rng, 0.016, 0.06),
            duty: uniform(rng, 0.25, 0.6),
            contrast: uniform(rng, 0.2, 0.8),
        },
    };
    let material = {
        let tone = uniform(rng, 0.6, 1.7);
        Material { albedo: silicon.albedo * tone, gloss: silicon.gloss * tone, ..silicon }
    };
    let axis = if upright { [-die.axis[1], die.axis[0]] } else { die.axis };
    plates.push(flat(
        Frame { origin: middle, axis },
        if upright { [half[1], half[0]] } else { half },
        material,
        pattern,
    ));
}

/// Epoxy of one of the usual kinds: black, silver-filled, or clear.
pub fn epoxy(rng: &mut Rng, bumps: Vec<(Point, f32)>, height: f32) -> Epoxy {
    let (material, opacity, grain) = match rng.below(3) {
        0 => {
            (Material { albedo: uniform(rng, 0.05, 0.15), gloss: uniform(rng, 0.25, 0.6), roughness: 0.25 }, 0.93, 0.02)
        }
        1 => (Material { albedo: uniform(rng, 0.4, 0.8), gloss: uniform(rng, 0.1, 0.3), roughness: 0.4 }, 0.97, 0.3),
        _ => (Material { albedo: uniform(rng, 0.15, 0.5), gloss: uniform(rng, 0.3, 0.7), roughness: 0.22 }, 0.62, 0.02),
    };
    let grain = grain * uniform(rng, 0.5, 1.0);
    Epoxy { bumps, material, opacity, edge: uniform(rng, 0.006, 0.022), grain, height }
}
