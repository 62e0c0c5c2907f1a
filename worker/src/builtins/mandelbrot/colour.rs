//! The colours: what an orbit looks like.

use std::f64::consts::SQRT_2;

use super::orbit::Orbit;

/// Light, red to blue, in proportion to its energy: what may be averaged.
pub(super) type Light = [f32; 3];

/// The way round the colours, each with its place on a circle of 1: sRGB, as designers write it.
const STOPS: [(f32, [u8; 3]); 6] = [
    (0.00, [0x05, 0x0a, 0x2c]),
    (0.18, [0x1a, 0x4a, 0x9e]),
    (0.38, [0xbf, 0xe6, 0xf2]),
    (0.50, [0xff, 0xf6, 0xd6]),
    (0.66, [0xf2, 0x9a, 0x1f]),
    (0.84, [0x6e, 0x16, 0x2a]),
];
/// How often they come round while the iterations grow by the factor e.
const TURNS: f64 = 0.45;
/// Where they begin, at the far end of the plane.
const BEGIN: f64 = -0.42;
/// The light comes from the upper left, as people expect it.
const LIGHT: (f64, f64) = (-1.0 / SQRT_2, 1.0 / SQRT_2);
/// How high it stands: the higher, the flatter it all looks.
const HEIGHT: f64 = 2.0;
/// The colour of the set itself.
const SET: Light = [0.0012, 0.0012, 0.0030];

/// The colour of a point; `pixel` is the width of one in the plane.
pub(super) fn colour(orbit: Orbit, pixel: f64) -> Light {
    let Orbit::Outside {
        count,
        distance,
        uphill,
    } = orbit
    else {
        return SET;
    };
    let place = BEGIN + TURNS * (count + 1.0).ln();
    let lit = (uphill.0 * LIGHT.0 + uphill.1 * LIGHT.1 + HEIGHT) / (1.0 + HEIGHT);
    // Threads thinner than a pixel darken it and do not make it flicker.
    let near = (distance / pixel).min(1.0).sqrt();
    let strength = ((0.45 + 0.65 * lit) * near) as f32;
    around(place).map(|light| light * strength)
}

/// The colour at a place on the circle.
fn around(place: f64) -> Light {
    let place = place.rem_euclid(1.0) as f32;
    let after = STOPS.iter().position(|(at, _)| *at > place).unwrap_or(STOPS.len());
    let (from, left) = STOPS[after - 1];
    let (to, right) = STOPS.get(after).copied().unwrap_or((1.0, STOPS[0].1));
    let t = (place - from) / (to - from);
    // Smooth at the stops, where a straight way would show as a ridge.
    let t = t * t * (3.0 - 2.0 * t);
    let (left, right) = (left.map(to_light), right.map(to_light));
    [0, 1, 2].map(|i| {
        // Between the cube roots of light, steps look even to the eye.
        let root = left[i].cbrt() * (1.0 - t) + right[i].cbrt() * t;
        root * root * root
    })
}

/// The energy of an sRGB value.
fn to_light(value: u8) -> f32 {
    let value = f32::from(value) / 255.0;
    match value <= 0.04045 {
        true => value / 12.92,
        false => ((value + 0.055) / 1.055).powf(2.4),
    }
}

/// The sRGB value of an energy.
pub(super) fn to_srgb(light: f32) -> u8 {
    let value = match light <= 0.003_130_8 {
        true => light * 12.92,
        false => 1.055 * light.powf(1.0 / 2.4) - 0.055,
    };
    (value * 255.0).round() as u8
}
