//! The picture: which points of the plane a row of pixels is made of.

use super::colour::{Light, colour, to_srgb};
use super::orbit::{Orbit, follow};

/// Samples along each side of a pixel where one is not enough.
const GRID: u32 = 4;
/// Distance from the set, in pixels, below which one is not enough.
const NEAR: f64 = 2.0;
/// A cycle closes to within this part of a pixel.
const TOLERANCE: f64 = 1e-3;

/// Where the picture lies in the plane, and how exact it is. Rows count from the
/// edge `y0`, pixels from the edge `x0`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Picture {
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) x0: f64,
    pub(super) x1: f64,
    pub(super) y0: f64,
    pub(super) y1: f64,
    pub(super) max_iter: u32,
}

impl Picture {
    /// Row `y` as red, green and blue of each pixel; `None` if it was stopped.
    pub(super) fn row(&self, y: u32, stopped: impl Fn() -> bool) -> Option<Vec<u8>> {
        let mut rgb = Vec::with_capacity(3 * self.width as usize);
        for x in 0..self.width {
            // A pixel may take a second where all of it goes round without a cycle.
            if stopped() {
                return None;
            }
            rgb.extend(self.pixel(x, y).map(to_srgb));
        }
        Some(rgb)
    }

    fn pixel(&self, x: u32, y: u32) -> Light {
        let middle = self.sample(x, y, 0.5, 0.5);
        let plain = match middle {
            Orbit::Outside { distance, .. } => distance > NEAR * self.pixel_width(),
            // The corners tell whether the edge passes through.
            Orbit::Inside => [(0.0, 0.0), (0.0, 1.0), (1.0, 0.0), (1.0, 1.0)]
                .iter()
                .all(|(u, v)| self.sample(x, y, *u, *v) == Orbit::Inside),
        };
        match plain {
            true => colour(middle, self.pixel_width()),
            false => self.average(x, y),
        }
    }

    /// The mean of a grid of samples.
    fn average(&self, x: u32, y: u32) -> Light {
        let part = self.pixel_width() / f64::from(GRID);
        let at = |i: u32| (f64::from(i) + 0.5) / f64::from(GRID);
        let mut sum = [0.0; 3];
        for (u, v) in (0..GRID).flat_map(|u| (0..GRID).map(move |v| (u, v))) {
            let light = colour(self.sample(x, y, at(u), at(v)), part);
            for (sum, light) in sum.iter_mut().zip(light) {
                *sum += light;
            }
        }
        sum.map(|sum| sum / (GRID * GRID) as f32)
    }

    /// What becomes of a point of a pixel, 0 to 1 across and down it.
    fn sample(&self, x: u32, y: u32, u: f64, v: f64) -> Orbit {
        let across = (f64::from(x) + u) / f64::from(self.width);
        let down = (f64::from(y) + v) / f64::from(self.height);
        let point = (
            self.x0 + across * (self.x1 - self.x0),
            self.y0 + down * (self.y1 - self.y0),
        );
        follow(point.0, point.1, self.max_iter, TOLERANCE * self.pixel_width())
    }

    fn pixel_width(&self) -> f64 {
        (self.x1 - self.x0).abs() / f64::from(self.width)
    }
}
