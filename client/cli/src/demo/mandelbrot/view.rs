//! What is to be seen: a part of the plane, 3:2, and how closely it is looked at.

use serde::Serialize;

/// How much of the plane the whole picture shows from left to right without zoom.
const WIDTH: f64 = 3.6;
/// Where neighbouring pixels are no longer different numbers.
const MAX_ZOOM: f64 = 1e12;
/// Iterations without zoom, and how many more for each factor of ten.
const ITERATIONS: (f64, f64) = (1000.0, 600.0);

/// A picture as the workers take it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct View {
    pub(super) width: u32,
    pub(super) height: u32,
    x0: f64,
    x1: f64,
    y0: f64,
    y1: f64,
    max_iter: u32,
}

impl View {
    /// `size` pixels wide and two thirds of that high; pixels are square.
    pub(super) fn new(size: u32, (x, y): (f64, f64), zoom: f64, max_iter: Option<u32>) -> Self {
        let height = (size * 2 + 1) / 3;
        let half_width = WIDTH / zoom / 2.0;
        let half_height = half_width * f64::from(height) / f64::from(size);
        Self {
            width: size,
            height,
            x0: x - half_width,
            x1: x + half_width,
            // The first row is at the top, where i is.
            y0: y + half_height,
            y1: y - half_height,
            max_iter: max_iter.unwrap_or_else(|| (ITERATIONS.0 + ITERATIONS.1 * zoom.log10()) as u32),
        }
    }

    pub(super) fn pixels(&self) -> u64 {
        u64::from(self.width) * u64::from(self.height)
    }

    /// Bytes of a row: red, green and blue of each pixel.
    pub(super) fn row_bytes(&self) -> usize {
        3 * self.width as usize
    }
}

/// Reads `X,Y`.
pub(super) fn center(text: &str) -> Result<(f64, f64), String> {
    let number = |text: &str| text.trim().parse().ok().filter(|number: &f64| number.abs() <= 4.0);
    let (x, y) = text.split_once(',').ok_or("write two numbers, as -0.65,0")?;
    let both = number(x).zip(number(y));
    both.ok_or_else(|| "write two numbers between -4 and 4, as -0.65,0".to_owned())
}

/// Reads the zoom.
pub(super) fn zoom(text: &str) -> Result<f64, String> {
    let zoom = text.parse().ok().filter(|zoom| (1.0..=MAX_ZOOM).contains(zoom));
    zoom.ok_or_else(|| format!("write a number between 1 and {MAX_ZOOM:e}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pixels_are_square_at_any_size() {
        for size in [16, 17, 18, 1000, 1920, 32_768] {
            let view = View::new(size, (-0.65, 0.0), 3.0, None);
            let across = (view.x1 - view.x0) / f64::from(view.width);
            let down = (view.y0 - view.y1) / f64::from(view.height);
            assert!((across / down - 1.0).abs() < 1e-9, "{view:?}");
            assert!(
                (f64::from(view.height) * 1.5 - f64::from(size)).abs() <= 0.75,
                "{view:?}"
            );
        }
    }

    #[test]
    fn the_whole_set_fits() {
        let view = View::new(1920, (-0.65, 0.0), 1.0, None);
        assert!(
            view.x0 < -2.0 && view.x1 > 0.48 && view.y0 > 1.13 && view.y1 < -1.13,
            "{view:?}"
        );
        assert_eq!(view.max_iter, 1000);
    }

    #[test]
    fn what_is_no_place_is_refused() {
        assert_eq!(center("-0.5, 1e-3"), Ok((-0.5, 0.001)));
        for text in ["", "1", "1,", "a,b", "5,0", "NaN,0", "0,inf", "1,2,3"] {
            assert!(center(text).is_err(), "{text}");
        }
        assert_eq!(zoom("2.5"), Ok(2.5));
        for text in ["", "0", "0.9", "1e13", "NaN", "x"] {
            assert!(zoom(text).is_err(), "{text}");
        }
    }
}
