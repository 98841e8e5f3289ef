//! Paints a scene into two radiance planes, a height map and a label map.
//!
//! A painter's algorithm: each item covers what was painted before it, by how much of the pixel it covers (estimated
//! from the distance to its outline), and takes the label of the pixels whose center lies inside. So the labels are
//! exact, owned by what is on top, and know nothing of blur and noise. An item visits only the pixels of its bounding
//! box.

use super::light::Shader;
use super::scene::{
    Ball, Epoxy, Frame, Plate, Point, Scene, Wedge, Wire, across, add, dot, length, lerp, scale, smoothstep, sub, unit,
};
use super::texture::{Noise, fine};

/// Labels, as in [`super::CLASSES`].
const BACKGROUND: u8 = 0;
const WIRE: u8 = 1;
const BALL: u8 = 2;
const WEDGE: u8 = 3;
const EPOXY: u8 = 4;

/// What a scene looks like before the lens: all planes have `size²` entries.
pub struct Rendered {
    pub radiance: [Vec<f32>; 2],
    pub height: Vec<f32>,
    pub mask: Vec<u8>,
}

pub fn render(scene: &Scene, noise: &Noise, size: usize) -> Rendered {
    let mut canvas = Canvas::new(scene, noise, size);
    canvas.plate(&scene.ground, scene.plates.first());
    scene.under.iter().for_each(|plate| canvas.plate(plate, scene.plates.first()));
    scene.fillets.iter().for_each(|epoxy| canvas.epoxy(epoxy));
    scene.plates.iter().for_each(|plate| canvas.plate(plate, None));
    scene.balls.iter().for_each(|ball| canvas.ball(ball));
    scene.wedges.iter().for_each(|wedge| canvas.wedge(wedge));
    for (number, wire) in scene.wires.iter().enumerate() {
        canvas.wire(wire, number as u32);
    }
    scene.blobs.iter().for_each(|epoxy| canvas.epoxy(epoxy));
    canvas.out
}

/// What an item does to one pixel.
enum Spot {
    /// Nothing.
    Clear,
    /// Darkens it by a share.
    Dim(f32),
    /// Covers it; `distance` to the outline is negative inside.
    Cover { distance: f32, opacity: f32, radiance: [f32; 2], height: f32 },
}

/// The nearest point found so far on the polyline that is being painted.
#[derive(Clone, Copy)]
struct Near {
    /// Which polyline this entry belongs to; entries of earlier ones are stale.
    line: u32,
    squared: f32,
    segment: u16,
    t: f32,
}

struct Canvas<'a> {
    scene: &'a Scene,
    noise: &'a Noise,
    size: usize,
    out: Rendered,
    near: Vec<Near>,
    touched: Vec<u32>,
}

impl<'a> Canvas<'a> {
    fn new(scene: &'a Scene, noise: &'a Noise, size: usize) -> Self {
        let count = size * size;
        let out = Rendered {
            radiance: [vec![0.0; count], vec![0.0; count]],
            height: vec![0.0; count],
            mask: vec![BACKGROUND; count],
        };
        let near = vec![Near { line: u32::MAX, squared: 0.0, segment: 0, t: 0.0 }; count];
        Self { scene, noise, size, out, near, touched: Vec::new() }
    }

    fn pixel(&self) -> f32 {
        1.0 / self.size as f32
    }

    /// The pixels (columns, rows) whose centers lie in a box.
    fn span(&self, low: Point, high: Point) -> [std::ops::Range<usize>; 2] {
        let clip = |x: f32| (x * self.size as f32 + 0.5).clamp(0.0, self.size as f32) as usize;
        [clip(low[0])..clip(high[0]), clip(low[1])..clip(high[1])]
    }

    fn center(&self, x: usize, y: usize) -> Point {
        [(x as f32 + 0.5) * self.pixel(), (y as f32 + 0.5) * self.pixel()]
    }

    /// Calls `spot` with the place, in `frame`, of every pixel whose center lies in the frame's box `±half`.
    fn paint(&mut self, class: u8, frame: Frame, half: Point, mut spot: impl FnMut(Point) -> Spot) {
        let [ax, ay] = frame.axis;
        let extent = [ax.abs() * half[0] + ay.abs() * half[1], ay.abs() * half[0] + ax.abs() * half[1]];
        let [columns, rows] = self.span(sub(frame.origin, extent), add(frame.origin, extent));
        for y in rows {
            // The row enters and leaves the box where one of the two local coordinates passes ±half.
            let down = self.center(0, y)[1] - frame.origin[1];
            let (from, to) = overlap(crossing(ax, down * ay, half[0]), crossing(-ay, down * ax, half[1]));
            let [inside, _] = self.span([frame.origin[0] + from, 0.0], [frame.origin[0] + to, 0.0]);
            for x in inside.start.max(columns.start)..inside.end.min(columns.end) {
                let i = y * self.size + x;
                match spot(frame.to_local(self.center(x, y))) {
                    Spot::Clear => {}
                    Spot::Dim(share) => self.out.radiance.iter_mut().for_each(|plane| plane[i] *= 1.0 - share),
                    Spot::Cover { distance, opacity, radiance, height } => {
                        self.cover(i, class, distance, opacity, radiance, height);
                    }
                }
            }
        }
    }

    fn cover(&mut self, i: usize, class: u8, distance: f32, opacity: f32, radiance: [f32; 2], height: f32) {
        let share = (0.5 - distance * self.size as f32).clamp(0.0, 1.0) * opacity;
        for (plane, value) in self.out.radiance.iter_mut().zip(radiance) {
            plane[i] = lerp(plane[i], value, share);
        }
        self.out.height[i] = lerp(self.out.height[i], height, share);
        if distance < 0.0 {
            self.out.mask[i] = class;
        }
    }

    /// Paints a plate, except where `cover`, which will be painted over it, hides it anyway.
    fn plate(&mut self, plate: &Plate, cover: Option<&Plate>) {
        let (noise, pixel, frame) = (self.noise, self.pixel(), plate.frame);
        let shader = Shader::new(&self.scene.light, plate.material);
        let reach = 0.5 * pixel + if plate.contact > 0.0 { CONTACT } else { 0.0 };
        self.paint(BACKGROUND, frame, add(plate.half, [reach, reach]), |local| {
            let (distance, outward) = box_distance(local, plate.half, plate.corner);
            if distance >= 0.5 * pixel {
                return contact(plate.contact, distance);
            }
            if cover.is_some_and(|cover| covers(cover, frame.to_image(local), pixel)) {
                return Spot::Clear;
            }
            let (mut tilt, gain) = fine(plate, noise, local, pixel);
            if plate.bevel > 0.0 {
                let slope = plate.rise * smoothstep(-plate.bevel, 0.0, distance);
                tilt = add(scale(tilt, 1.0 - slope.abs()), scale(outward, slope));
            }
            let radiance = shader.radiance(frame.turn(tilt)).map(|value| value * gain.max(0.1));
            Spot::Cover { distance, opacity: 1.0, radiance, height: 0.0 }
        });
    }

    fn ball(&mut self, ball: &Ball) {
        let (noise, pixel, frame) = (self.noise, self.pixel(), ball.frame);
        let shader = Shader::new(&self.scene.light, ball.material);
        let (long, short) = (ball.radii[0], ball.radii[1]);
        let reach = CONTACT + pixel;
        self.paint(BALL, frame, add(ball.radii, [reach, reach]), |local| {
            let round = [local[0] / long, local[1] / short];
            let rho = length(round);
            let distance = (rho - 1.0) * short;
            if distance >= 0.5 * pixel {
                return contact(0.55, distance);
            }
            // Out from the middle: the neck of the wire, a pressed plateau, the rim.
            let neck = 0.75 * smoothstep(0.2, 0.34, rho) * (1.0 - smoothstep(0.36, 0.5, rho));
            let pressed = neck + 0.08 * rho + 0.88 * smoothstep(0.68, 1.0, rho);
            let slant = lerp(0.97 * rho, pressed, ball.flatness).min(0.97);
            let rough = 0.07 * noise.at([local[0] / long * 4.0 + frame.origin[0] * 900.0, local[1] / short * 4.0]);
            let tilt = frame.turn(add(scale(unit(round), slant), [rough, -rough]));
            let height = long * (1.0 - 0.5 * rho);
            Spot::Cover { distance, opacity: 1.0, radiance: shader.radiance(tilt), height }
        });
    }

    fn wedge(&mut self, wedge: &Wedge) {
        let (noise, pixel, frame) = (self.noise, self.pixel(), wedge.frame);
        let shader = Shader::new(&self.scene.light, wedge.material);
        let reach = CONTACT + pixel;
        self.paint(WEDGE, frame, [wedge.length + reach, wedge.tail + reach], |local| {
            let along = local[0] / wedge.length;
            // Flares from the heel, bulges where the tool pressed, spreads into the tail.
            let flare = 0.85 * smoothstep(0.0, 0.45, along) + 0.15 * smoothstep(0.6, 1.0, along);
            let width = lerp(wedge.heel, wedge.tail, flare);
            let side = local[1] / width;
            let end = wedge.length - wedge.notch * (1.0 - side * side).max(0.0);
            let distance = (local[1].abs() - width).max(local[0] - end).max(-local[0]);
            if distance >= 0.5 * pixel {
                return contact(0.45, distance);
            }
            let phase = local[0] / wedge.ridge - (local[0] / wedge.ridge).floor();
            let pressed = smoothstep(0.15, 0.35, along);
            let ridges = pressed * wedge.depth * (4.0 * (phase - 0.5).abs() - 1.0);
            let lip = 0.6 * smoothstep(-0.3 * wedge.heel, 0.0, local[0] - end);
            let rough = 0.12 * noise.at([local[0] / wedge.heel * 1.7 + frame.origin[1] * 800.0, side * 2.0]);
            let round = side * lerp(0.9, side * side * 0.8, pressed);
            let tilt = [(ridges + lip + rough + 0.35 * (1.0 - pressed)).clamp(-0.9, 0.9), round.clamp(-0.95, 0.95)];
            let radiance = shader.radiance(frame.turn(tilt));
            Spot::Cover { distance, opacity: 1.0, radiance, height: wedge.heel * (1.0 - 0.7 * pressed) }
        });
    }

    fn wire(&mut self, wire: &Wire, number: u32) {
        self.shadow(wire, 2 * number);
        let pixel = self.pixel();
        self.follow(&wire.points, wire.radius + pixel, 2 * number + 1);
        let shader = Shader::new(&self.scene.light, wire.material);
        for k in 0..self.touched.len() {
            let i = self.touched[k] as usize;
            let Near { squared, segment, t, .. } = self.near[i];
            let distance = squared.sqrt() - wire.radius;
            if distance >= 0.5 * pixel {
                continue;
            }
            let j = segment as usize;
            let (from, to) = (wire.points[j], wire.points[j + 1]);
            let (low, high) = (wire.heights[j], wire.heights[j + 1]);
            let (along, climb) = (unit(sub(to, from)), (high - low) / length(sub(to, from)).max(1e-6));
            let position = self.center(i % self.size, i / self.size);
            let side = (dot(sub(position, from), across(along)) / wire.radius).clamp(-0.98, 0.98);
            let top = (1.0 - side * side).sqrt();
            let lean = -climb / (1.0 + climb * climb).sqrt();
            // Drawing marks along the wire and slow changes of its surface.
            let place = (j as f32 + t) * 0.45 + number as f32 * 13.0;
            let marks = 0.05 * self.noise.at([place * 0.3, side * 3.0 + 5.0]) + 0.04 * self.noise.at([place, 50.0]);
            let tilt = add(scale(along, top * lean + marks), scale(across(along), 0.97 * side + marks));
            let height = lerp(low, high, t) + wire.radius;
            self.cover(i, WIRE, distance, 1.0, shader.radiance(tilt), height);
        }
    }

    /// The shadow of a wire on all that was painted before it: displaced and softened by the wire's height.
    fn shadow(&mut self, wire: &Wire, line: u32) {
        let light = self.scene.light;
        let displaced: Vec<Point> =
            wire.points.iter().zip(&wire.heights).map(|(&p, &height)| add(p, scale(light.shadow, height))).collect();
        let (edge, radius) = (0.5 * self.pixel(), wire.radius);
        let softness = |height: f32| edge + 0.25 * radius + 0.12 * height;
        let widest = softness(wire.peak());
        self.follow(&displaced, wire.radius + widest, line);
        for &pixel in &self.touched {
            let Near { squared, segment, t, .. } = self.near[pixel as usize];
            let height = lerp(wire.heights[segment as usize], wire.heights[segment as usize + 1], t);
            let soft = softness(height);
            let dark = 1.0 - smoothstep(-soft, soft, squared.sqrt() - radius);
            for (plane, shade) in self.out.radiance.iter_mut().zip(light.shade) {
                plane[pixel as usize] *= 1.0 - shade * dark;
            }
        }
    }

    /// Finds the pixels within `reach` of a polyline and the nearest point of it: fills `touched` and `near`.
    fn follow(&mut self, points: &[Point], reach: f32, line: u32) {
        self.touched.clear();
        for (segment, ends) in points.windows(2).enumerate() {
            let (from, step) = (ends[0], sub(ends[1], ends[0]));
            let inverse = 1.0 / dot(step, step).max(1e-12);
            let low = [ends[0][0].min(ends[1][0]) - reach, ends[0][1].min(ends[1][1]) - reach];
            let high = [ends[0][0].max(ends[1][0]) + reach, ends[0][1].max(ends[1][1]) + reach];
            let [columns, rows] = self.span(low, high);
            for y in rows {
                for x in columns.clone() {
                    let offset = sub(self.center(x, y), from);
                    let t = (dot(offset, step) * inverse).clamp(0.0, 1.0);
                    let rest = sub(offset, scale(step, t));
                    let squared = dot(rest, rest);
                    let i = y * self.size + x;
                    let fresh = self.near[i].line != line;
                    if squared < reach * reach && (fresh || squared < self.near[i].squared) {
                        if fresh {
                            self.touched.push(i as u32);
                        }
                        self.near[i] = Near { line, squared, segment: segment as u16, t };
                    }
                }
            }
        }
    }

    fn epoxy(&mut self, epoxy: &Epoxy) {
        let (noise, pixel) = (self.noise, self.pixel());
        let shader = Shader::new(&self.scene.light, epoxy.material);
        let mut low = [f32::MAX; 2];
        let mut high = [f32::MIN; 2];
        for &(center, radius) in &epoxy.bumps {
            for axis in 0..2 {
                low[axis] = low[axis].min(center[axis] - radius);
                high[axis] = high[axis].max(center[axis] + radius);
            }
        }
        let frame = Frame { origin: scale(add(low, high), 0.5), axis: [1.0, 0.0] };
        self.paint(EPOXY, frame, sub(high, frame.origin), |local| {
            let point = add(frame.origin, local);
            let (field, gradient) = epoxy.field(point);
            let steep = length(gradient).max(1e-3);
            let distance = -field / steep;
            if distance >= 0.5 * pixel {
                return contact(0.3, distance);
            }
            // A drop: steep at its edge, level on its back.
            let rim = 1.0 - smoothstep(0.0, epoxy.edge + epoxy.height, -distance);
            let slant = 0.8 * rim + 0.2 * (1.0 - smoothstep(0.0, 1.5, field));
            let at = |period: f32| [point[0] / period, point[1] / period];
            let filler = epoxy.grain * (noise.at(at(0.011)) + 0.6 * noise.at(at(0.0047)));
            let wave = 0.1 * noise.at(at(0.05));
            let tilt = add(scale(gradient, -slant / steep), [filler + wave, wave - filler]);
            let radiance = shader.radiance(tilt).map(|value| value * (1.0 + filler));
            let opacity = epoxy.opacity * lerp(0.35, 1.0, smoothstep(0.0, epoxy.edge, -distance));
            Spot::Cover { distance, opacity, radiance, height: epoxy.height * (1.0 - rim) }
        });
    }
}

/// Where `slope · x + offset` lies in `±half`: the interval of `x`, empty if its start lies after its end.
fn crossing(slope: f32, offset: f32, half: f32) -> (f32, f32) {
    if slope.abs() < 1e-5 {
        return if offset.abs() <= half { (-4.0, 4.0) } else { (1.0, -1.0) };
    }
    let (one, two) = ((-half - offset) / slope, (half - offset) / slope);
    (one.min(two), one.max(two))
}

fn overlap(a: (f32, f32), b: (f32, f32)) -> (f32, f32) {
    (a.0.max(b.0), a.1.min(b.1))
}

/// Width of the dark seam around an item that stands on another, in image sides.
const CONTACT: f32 = 0.012;

fn contact(strength: f32, distance: f32) -> Spot {
    if strength <= 0.0 || distance > CONTACT {
        return Spot::Clear;
    }
    let near = 1.0 - distance / CONTACT;
    Spot::Dim(strength * near * near)
}

/// Whether a plate with sharp corners hides a whole pixel.
fn covers(plate: &Plate, point: Point, pixel: f32) -> bool {
    let local = plate.frame.to_local(point);
    local[0].abs() < plate.half[0] - pixel && local[1].abs() < plate.half[1] - pixel
}

/// Signed distance to a rounded rectangle, negative inside, and the direction straight out of the nearest edge.
fn box_distance(local: Point, half: Point, corner: f32) -> (f32, Point) {
    let over = [local[0].abs() - half[0] + corner, local[1].abs() - half[1] + corner];
    let sign = [local[0].signum(), local[1].signum()];
    if over[0] > 0.0 && over[1] > 0.0 {
        let outside = length(over);
        return (outside - corner, [over[0] / outside * sign[0], over[1] / outside * sign[1]]);
    }
    if over[0] > over[1] { (over[0] - corner, [sign[0], 0.0]) } else { (over[1] - corner, [0.0, sign[1]]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn box_distance_is_signed_and_rounded() {
        let half = [2.0, 1.0];
        assert_eq!(box_distance([0.0, 0.0], half, 0.0).0, -1.0);
        assert_eq!(box_distance([3.0, 0.0], half, 0.5), (1.0, [1.0, 0.0]));
        let (corner, _) = box_distance([2.0, 1.0], half, 1.0);
        assert!((corner - (2f32.sqrt() - 1.0)).abs() < 1e-6);
    }
}
