//! How a tilted surface looks under the two light settings.
//!
//! Channel 0 is bright field: light comes through the lens, so that a level mirror is bright and a tilted one dark.
//! Channel 1 is dark field: light comes from a ring around the lens, so that a mirror is bright where its tilt sends
//! the ring into the lens, and level metal is dark. Both share a diffuse part, and each holds some of the other by
//! reflections in the housing. The lobes are rational, not exponential: cheap, and the same on every machine.

use super::scene::{Light, Material, Point, dot};

/// The answer of one material to the light; what does not depend on the tilt is worked out once.
pub struct Shader<'a> {
    light: &'a Light,
    material: Material,
    coaxial: f32,
    ring: f32,
}

impl<'a> Shader<'a> {
    pub fn new(light: &'a Light, material: Material) -> Self {
        let rough = material.roughness;
        Self { light, material, coaxial: 1.0 / (rough * rough), ring: 1.0 / (0.1 + 0.6 * rough) }
    }

    /// Radiance in the two channels of a surface whose unit normal has the horizontal part `tilt`.
    #[inline]
    pub fn radiance(&self, tilt: Point) -> [f32; 2] {
        let (light, material) = (self.light, &self.material);
        let squared = dot(tilt, tilt).min(0.98);
        let slant = squared.sqrt();
        let upright = (1.0 - squared).sqrt();
        let toward = light.sided * dot(tilt, light.toward);
        let off = (slant - light.ring_tilt) * self.ring;
        let ring = lobe(off * off) * light.ring_gain * (1.0 + toward / slant.max(0.05)).max(0.0);
        let diffuse = material.albedo * upright;
        let bright = diffuse * light.diffuse[0] + material.gloss * lobe(squared * self.coaxial);
        let dark = diffuse * light.diffuse[1] * (1.0 + toward) + material.gloss * ring;
        [bright + light.leak[0] * dark, dark + light.leak[1] * bright]
    }
}

/// 1 at 0, falling to 1/4 at 1.
fn lobe(squared: f32) -> f32 {
    let inverse = 1.0 / (1.0 + squared);
    inverse * inverse
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn level_metal_is_bright_in_one_channel_and_tilted_metal_in_the_other() {
        let light = Light {
            diffuse: [0.3, 0.3],
            leak: [0.0, 0.0],
            ring_tilt: 0.5,
            ring_gain: 1.0,
            toward: [1.0, 0.0],
            sided: 0.4,
            shadow: [0.0, 0.0],
            shade: [0.0, 0.0],
        };
        let metal = Material { albedo: 0.1, gloss: 0.9, roughness: 0.3 };
        let shader = Shader::new(&light, metal);
        let level = shader.radiance([0.0, 0.0]);
        let tilted = shader.radiance([0.5, 0.0]);
        let away = shader.radiance([-0.5, 0.0]);
        assert!(level[0] > 3.0 * tilted[0]);
        assert!(tilted[1] > 3.0 * level[1]);
        assert!(tilted[1] > away[1] && tilted[0] == away[0]);
    }
}
