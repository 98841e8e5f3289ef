//! Draws a scene: where the die, its pads, the leads, the wires between them and the epoxy lie.
//!
//! The die is a rectangle in a coordinate system that is turned against the image. Along each of its edges that can be
//! seen, pads stand in a row, leads face them across a gap, and wires connect pad to lead; some go to a neighbor's lead
//! and so cross others, some start in the middle of the die. Sizes follow from the pads' pitch.

use super::scene::{
    Ball, Frame, Plate, Point, Scene, Wedge, Wire, across, add, dot, lerp, scale, smoothstep, sub, unit,
};
use super::setting;
use crate::random::Rng;

/// Segments per wire.
const SEGMENTS: usize = 36;

/// What all parts of one layout share; lengths in image sides.
struct Plan {
    /// The die's middle, x along one of its edges.
    die: Frame,
    half: Point,
    pitch: f32,
    /// Of a typical wire, and of a ball on it.
    wire: f32,
    ball: f32,
    /// From the die's edge to the leads.
    gap: f32,
    /// How much further apart leads are than pads.
    fan: f32,
    /// Share of wires that go to another lead than the one that faces their pad.
    crossing: f32,
    sweep: f32,
    loop_height: f32,
    flatness: f32,
    metals: setting::Metals,
    leads: LeadStyle,
}

#[derive(Clone, Copy, PartialEq)]
enum LeadStyle {
    /// Long fingers that leave the picture.
    Fingers,
    /// Short lands from which a trace leads on.
    Lands,
}

pub fn draw(rng: &mut Rng) -> Scene {
    let complete = |scene: &Scene| {
        let balls = scene.balls.iter().filter(|ball| visible(ball.frame.origin, -0.03)).count();
        let wedges = scene.wedges.iter().filter(|wedge| visible(wedge.frame.origin, -0.03)).count();
        balls.min(wedges) >= 4
    };
    // Some views show hardly a bond; a few attempts almost always give one that does.
    let mut scene = attempt(rng);
    for _ in 0..5 {
        if complete(&scene) {
            break;
        }
        scene = attempt(rng);
    }
    scene
}

fn attempt(rng: &mut Rng) -> Scene {
    let plan = plan(rng);
    let mut scene = setting::empty(rng, plan.loop_height);
    let mut targets = Vec::new();
    let mut pads = Vec::new();
    let first_tier = plan.pitch * uniform(rng, 0.5, 1.0);
    let second_tier = if chance(rng, 0.3) { plan.pitch * uniform(rng, 0.9, 1.2) } else { 0.0 };
    let ring = chance(rng, 0.3).then(|| plan.gap * uniform(rng, 0.25, 0.45));
    for quarter in 0..4 {
        let edge = Edge::of(&plan, quarter);
        if let Some(offset) = ring {
            scene.under.push(setting::ring(
                rng,
                edge.frame(0.0, offset),
                edge.half + offset,
                0.1 * plan.gap,
                &plan.metals,
            ));
        }
        edge.populate(rng, &plan, [first_tier, second_tier], &mut scene, &mut pads, &mut targets);
    }
    setting::traces(rng, &mut scene.under);
    if chance(rng, 0.55) {
        fillet(rng, &plan, &mut scene);
    }
    setting::die(rng, plan.die, plan.half, plan.wire, &mut scene.plates);
    scene.plates.append(&mut pads);
    wires(rng, &plan, &targets, &mut scene);
    blobs(rng, &mut scene);
    scene
}

fn plan(rng: &mut Rng) -> Plan {
    let turn = if chance(rng, 0.7) { uniform(rng, -0.3, 0.3) } else { uniform(rng, -0.8, 0.8) };
    let quarters = rng.below(4) as f32;
    let angle = turn + quarters * std::f32::consts::FRAC_PI_2;
    let axis = [angle.cos(), angle.sin()];
    let view = Frame { origin: [0.5, 0.5], axis };
    let kind = rng.below(4);
    // The whole die, a corner of it, or an edge.
    let (half, middle) = match kind {
        0 => (
            [uniform(rng, 0.17, 0.27), uniform(rng, 0.17, 0.27)],
            [uniform(rng, -0.08, 0.08), uniform(rng, -0.08, 0.08)],
        ),
        1 => {
            let half = [uniform(rng, 0.45, 0.8), uniform(rng, 0.45, 0.8)];
            (half, sub([uniform(rng, 0.0, 0.22), uniform(rng, 0.0, 0.22)], half))
        }
        _ => {
            let half = [uniform(rng, 0.6, 0.9), uniform(rng, 0.6, 0.9)];
            (half, [uniform(rng, -0.3, 0.3), uniform(rng, -0.2, 0.1) - half[1]])
        }
    };
    let whole = kind == 0;
    let pitch = if whole { uniform(rng, 0.06, 0.095) } else { uniform(rng, 0.075, 0.16) };
    let wire = (pitch * uniform(rng, 0.1, 0.17)).clamp(0.008, 0.021);
    Plan {
        die: Frame { origin: view.to_image(middle), axis },
        half,
        pitch,
        wire,
        ball: (wire * uniform(rng, 1.8, 2.5)).min(0.42 * pitch),
        gap: if whole { uniform(rng, 0.06, 0.12) } else { uniform(rng, 0.08, 0.24) },
        fan: if whole { uniform(rng, 1.2, 1.7) } else { uniform(rng, 1.0, 1.4) },
        crossing: if chance(rng, 0.6) { uniform(rng, 0.1, 0.45) } else { 0.0 },
        sweep: uniform(rng, 0.03, 0.16),
        loop_height: uniform(rng, 0.03, 0.095),
        flatness: uniform(rng, 0.35, 1.0),
        metals: setting::metals(rng),
        leads: if chance(rng, 0.6) { LeadStyle::Fingers } else { LeadStyle::Lands },
    }
}

/// Where a wire may go: from a pad to one of its edge's leads.
struct Target {
    pad: Point,
    /// Ends of the leads' near sides along this edge, with the direction away from the die.
    leads: Vec<(Point, Point)>,
    own: usize,
}

/// One edge of the die: x along it, y away from the die.
struct Edge {
    middle: Point,
    along: Point,
    outward: Point,
    half: f32,
}

impl Edge {
    fn of(plan: &Plan, quarter: usize) -> Self {
        let local = [[0.0, 1.0], [1.0, 0.0], [0.0, -1.0], [-1.0, 0.0]][quarter];
        let outward = plan.die.turn(local);
        let (depth, half) =
            if quarter.is_multiple_of(2) { (plan.half[1], plan.half[0]) } else { (plan.half[0], plan.half[1]) };
        Self { middle: add(plan.die.origin, scale(outward, depth)), along: across(outward), outward, half }
    }

    fn at(&self, along: f32, outward: f32) -> Point {
        add(self.middle, add(scale(self.along, along), scale(self.outward, outward)))
    }

    fn frame(&self, along: f32, outward: f32) -> Frame {
        Frame { origin: self.at(along, outward), axis: self.along }
    }

    /// Places pads and leads, and balls without a wire.
    fn populate(
        &self,
        rng: &mut Rng,
        plan: &Plan,
        tiers: [f32; 2],
        scene: &mut Scene,
        pads: &mut Vec<Plate>,
        targets: &mut Vec<Target>,
    ) {
        let room = 2.0 * (self.half - tiers[0]);
        let count = (room / plan.pitch).max(0.0) as usize;
        let pad_half = (plan.ball * uniform(rng, 1.1, 1.5)).min(0.46 * plan.pitch);
        let lead_half = plan.pitch * plan.fan * uniform(rng, 0.26, 0.4);
        let reach = if plan.leads == LeadStyle::Fingers { 0.6 } else { plan.pitch * uniform(rng, 0.6, 1.1) };
        let spread = uniform(rng, 0.1, 0.7);
        let mut leads = Vec::new();
        let mut own = Vec::new();
        for i in 0..count {
            let along = (i as f32 - 0.5 * (count as f32 - 1.0)) * plan.pitch;
            let lead = [along * plan.fan, plan.gap + plan.pitch * uniform(rng, -0.08, 0.08)];
            let near = self.at(lead[0], lead[1]);
            let direction = unit(add(self.outward, scale(self.along, spread * along / self.half.max(0.1))));
            if visible(near, 0.35) {
                let frame = Frame { origin: add(near, scale(direction, reach)), axis: direction };
                scene.under.push(setting::lead(rng, frame, [reach, lead_half], &plan.metals));
                if plan.leads == LeadStyle::Lands {
                    let away = Frame { origin: add(near, scale(direction, 2.0 * reach + 0.45)), axis: direction };
                    scene.under.push(setting::lead(rng, away, [0.47, plan.wire * 1.2], &plan.metals));
                }
            }
            leads.push((near, direction));
            let tier = tiers[0] + if !i.is_multiple_of(2) { tiers[1] } else { 0.0 };
            let pad = self.at(along, -tier);
            if !visible(pad, 0.3) || chance(rng, 0.1) {
                continue;
            }
            let frame = Frame { origin: pad, axis: self.along };
            pads.push(setting::pad(rng, frame, pad_half, &plan.metals));
            if chance(rng, 0.5) {
                pads.push(setting::probe_mark(rng, frame, pad_half));
            }
            match rng.below(20) {
                0 => {}
                1 => scene.balls.push(ball(rng, plan, pad)),
                _ => own.push((pad, i)),
            }
        }
        targets.extend(own.into_iter().map(|(pad, own)| Target { pad, leads: leads.clone(), own }));
    }
}

fn wires(rng: &mut Rng, plan: &Plan, targets: &[Target], scene: &mut Scene) {
    let heavy = if chance(rng, 0.2) { uniform(rng, 1.3, 1.7) } else { 1.0 };
    for target in targets {
        let mut chosen = target.own;
        if chance(rng, plan.crossing) {
            let shift = 1 + rng.below(3) as usize;
            chosen = if chance(rng, 0.5) { chosen.saturating_sub(shift) } else { chosen + shift };
        }
        let (near, direction) = target.leads[chosen.min(target.leads.len() - 1)];
        // Now and then a wire starts far inside the die and passes over its neighbors.
        let inside = if chance(rng, 0.06) { uniform(rng, 0.08, 0.25) } else { 0.0 };
        let start = sub(target.pad, scale(direction, inside));
        let end = add(near, scale(direction, plan.pitch * uniform(rng, 0.2, 0.6)));
        let end = add(end, scale(across(direction), plan.pitch * uniform(rng, -0.1, 0.1)));
        if !visible(start, 0.12) && !visible(end, 0.12) {
            continue;
        }
        let thick = if chance(rng, 0.3) { heavy } else { 1.0 };
        let radius = plan.wire * thick * uniform(rng, 0.88, 1.15);
        if inside > 0.0 {
            scene.plates.push(setting::pad(
                rng,
                Frame { origin: start, axis: plan.die.axis },
                plan.ball * 1.2,
                &plan.metals,
            ));
        }
        let ball = ball(rng, plan, start);
        let wire = wire(rng, plan, ball.frame.origin, end, radius);
        let last = wire.points.len() - 1;
        scene.wedges.push(wedge(
            rng,
            plan,
            wire.points[last],
            unit(sub(wire.points[last], wire.points[last - 1])),
            radius,
        ));
        scene.balls.push(ball);
        scene.wires.push(wire);
    }
    scene.wires.sort_by(|a, b| a.peak().total_cmp(&b.peak()));
}

fn ball(rng: &mut Rng, plan: &Plan, pad: Point) -> Ball {
    let turn = uniform(rng, 0.0, std::f32::consts::TAU);
    let off = plan.ball * 0.15;
    let radius = plan.ball * uniform(rng, 0.9, 1.1);
    Ball {
        frame: Frame {
            origin: add(pad, [uniform(rng, -off, off), uniform(rng, -off, off)]),
            axis: [turn.cos(), turn.sin()],
        },
        radii: [radius, radius * uniform(rng, 0.88, 1.0)],
        flatness: plan.flatness,
        material: setting::vary(rng, plan.metals.wire),
    }
}

/// A cubic Bézier curve seen from above; its height rises fast at the ball and falls slowly toward the wedge.
fn wire(rng: &mut Rng, plan: &Plan, start: Point, end: Point, radius: f32) -> Wire {
    let way = sub(end, start);
    let sideways = across(way);
    let sway = plan.sweep * rng.normal() as f32;
    let control = [
        add(add(start, scale(way, 0.3)), scale(sideways, sway)),
        add(add(start, scale(way, 0.7)), scale(sideways, 0.6 * sway + 0.4 * plan.sweep * rng.normal() as f32)),
    ];
    let peak = plan.loop_height * uniform(rng, 0.75, 1.25);
    let kink = uniform(rng, 0.1, 0.25);
    let bow = uniform(rng, 0.0, 1.0);
    let (mut points, mut heights) = (Vec::with_capacity(SEGMENTS + 1), Vec::with_capacity(SEGMENTS + 1));
    for k in 0..=SEGMENTS {
        let t = k as f32 / SEGMENTS as f32;
        let s = 1.0 - t;
        let weights = [s * s * s, 3.0 * s * s * t, 3.0 * s * t * t, t * t * t];
        let corners = [start, control[0], control[1], end];
        points.push(
            corners.iter().zip(weights).fold([0.0, 0.0], |sum, (&corner, weight)| add(sum, scale(corner, weight))),
        );
        let fall = ((t - kink) / (1.0 - kink)).max(0.0);
        let down = 1.0 - lerp(fall, fall * fall * (3.0 - 2.0 * fall), bow);
        heights.push(peak * smoothstep(-0.3 * kink, kink, t) * down);
    }
    Wire { points, heights, radius, material: setting::vary(rng, plan.metals.wire) }
}

fn wedge(rng: &mut Rng, plan: &Plan, end: Point, axis: Point, radius: f32) -> Wedge {
    let tail = radius * uniform(rng, 1.5, 2.1);
    Wedge {
        frame: Frame { origin: sub(end, scale(axis, 1.2 * radius)), axis },
        length: radius * uniform(rng, 4.2, 6.0),
        heel: radius * 1.03,
        tail,
        notch: tail * uniform(rng, 0.4, 0.8),
        ridge: radius * uniform(rng, 0.9, 1.8),
        depth: uniform(rng, 0.03, 0.25),
        material: setting::vary(rng, plan.metals.wire),
    }
}

/// Epoxy that came out from under the die along one of its visible edges.
fn fillet(rng: &mut Rng, plan: &Plan, scene: &mut Scene) {
    for quarter in 0..4 {
        let edge = Edge::of(plan, quarter);
        let mut bumps = Vec::new();
        let step = uniform(rng, 0.035, 0.05);
        let deep = uniform(rng, 0.02, 0.05).min(0.3 * plan.gap);
        let count = (2.0 * edge.half / step) as usize + 1;
        for i in 0..count {
            let point = edge.at(i as f32 * step - edge.half, deep * uniform(rng, 0.0, 0.5));
            if visible(point, 0.1) {
                bumps.push((point, 0.035 + deep * uniform(rng, 0.5, 1.2)));
            }
        }
        if !bumps.is_empty() && chance(rng, 0.75) {
            let drop = setting::epoxy(rng, bumps, 0.01);
            scene.fillets.push(drop);
        }
    }
}

/// Drops of epoxy on top: near a wedge, or anywhere.
fn blobs(rng: &mut Rng, scene: &mut Scene) {
    let count = 1 + rng.below(3);
    for _ in 0..count {
        let reach = uniform(rng, 0.045, 0.115);
        let mut middle = [uniform(rng, 0.12, 0.88), uniform(rng, 0.12, 0.88)];
        let near = scene.wedges.get(rng.below(scene.wedges.len() as u64) as usize).map(|wedge| wedge.frame.origin);
        let beside = [uniform(rng, -0.08, 0.08), uniform(rng, -0.08, 0.08)];
        if let Some(place) = near.filter(|&place| visible(place, -0.05) && chance(rng, 0.5)) {
            middle = add(place, beside);
        }
        let stretch = Frame { origin: middle, axis: unit([uniform(rng, -1.0, 1.0), uniform(rng, -1.0, 1.0)]) };
        let long = uniform(rng, 1.0, 1.8);
        let mut bumps = vec![(middle, reach)];
        for _ in 0..3 + rng.below(5) {
            let mut local = [uniform(rng, -1.0, 1.0), uniform(rng, -1.0, 1.0)];
            local = scale(local, 0.9 / dot(local, local).sqrt().max(0.9));
            let place = stretch.to_image(scale([local[0] * long, local[1] / long], reach));
            bumps.push((place, reach * uniform(rng, 0.4, 0.95)));
        }
        let drop = setting::epoxy(rng, bumps, 0.35 * reach);
        scene.blobs.push(drop);
    }
}

/// Whether a point lies in the image or at most `margin` outside.
fn visible(point: Point, margin: f32) -> bool {
    point.iter().all(|&x| x > -margin && x < 1.0 + margin)
}

pub(super) fn uniform(rng: &mut Rng, low: f32, high: f32) -> f32 {
    lerp(low, high, rng.uniform())
}

pub(super) fn chance(rng: &mut Rng, probability: f32) -> bool {
    rng.uniform() < probability
}
