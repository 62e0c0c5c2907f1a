//! The builtin `mandelbrot`: rows of a picture of the Mandelbrot set, one item
//! each. The same arguments give the same bytes on every worker, so a row may
//! be asked for again.

mod colour;
mod orbit;
mod picture;

use asynq_proto::{Iter, OnLoss, TaskError};
use base64::{Engine, prelude::BASE64_STANDARD};
use serde::{Deserialize, Serialize};

use self::picture::Picture;
use crate::context::Context;
use crate::limits::{MAX_ITERATIONS, MAX_PICTURE_SIDE};

pub(super) const MANDELBROT: Iter<Tile, Row> = Iter::new("mandelbrot", OnLoss::Replay);

/// Rows of a picture that is `width` by `height` pixels and shows the plane
/// from `x0` (left) to `x1` and from `y0` (top) to `y1`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Tile {
    width: u32,
    height: u32,
    x0: f64,
    x1: f64,
    y0: f64,
    y1: f64,
    /// Iterations after which a point counts as one of the set.
    max_iter: u32,
    /// The first row wanted, counted from the top.
    row0: u32,
    /// How many.
    rows: u32,
}

/// A row of pixels: red, green and blue of each, from left to right.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    y: u32,
    rgb: String,
}

/// Computes row after row, each when the one before has been sent; run again, from
/// the row where it is to go on.
pub(super) fn mandelbrot(context: Context, tile: Tile) -> impl Iterator<Item = Result<Row, TaskError>> {
    let (picture, refused) = match tile.check() {
        Ok(picture) => (Some(picture), None),
        Err(refusal) => (None, Some(Err(TaskError::rejected(refusal)))),
    };
    let rows = picture.map(|picture| {
        let rows = (tile.row0..tile.row0 + tile.rows).skip(context.start_index() as usize);
        rows.map_while(move |y| {
            let rgb = picture.row(y, || context.is_stopped())?;
            let rgb = BASE64_STANDARD.encode(rgb);
            Some(Ok(Row { y, rgb }))
        })
    });
    refused.into_iter().chain(rows.into_iter().flatten())
}

impl Tile {
    /// The picture it is a part of, or what is wrong with it.
    fn check(&self) -> Result<Picture, String> {
        let side = |name, value| match value {
            1..=MAX_PICTURE_SIDE => Ok(()),
            _ => Err(format!("{name} is {value}; it must be 1 to {MAX_PICTURE_SIDE} pixels")),
        };
        let span = |from: (&str, f64), to: (&str, f64)| match from.1.is_finite() && to.1.is_finite() && from.1 != to.1 {
            true => Ok(()),
            false => Err(format!("{} and {} must be two different numbers", from.0, to.0)),
        };
        side("width", self.width)?;
        side("height", self.height)?;
        span(("x0", self.x0), ("x1", self.x1))?;
        span(("y0", self.y0), ("y1", self.y1))?;
        if !(1..=MAX_ITERATIONS).contains(&self.max_iter) {
            let given = self.max_iter;
            return Err(format!("max_iter is {given}; it must be 1 to {MAX_ITERATIONS}"));
        }
        if self.row0.checked_add(self.rows).is_none_or(|end| end > self.height) {
            return Err(format!(
                "row0 {} and rows {} reach beyond the height, {} pixels",
                self.row0, self.rows, self.height
            ));
        }
        Ok(Picture {
            width: self.width,
            height: self.height,
            x0: self.x0,
            x1: self.x1,
            y0: self.y0,
            y1: self.y1,
            max_iter: self.max_iter,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tile() -> Tile {
        Tile {
            width: 30,
            height: 20,
            x0: -2.35,
            x1: 1.15,
            y0: 1.15,
            y1: -1.15,
            max_iter: 200,
            row0: 0,
            rows: 20,
        }
    }

    fn rows(tile: &Tile) -> Vec<Vec<u8>> {
        let picture = tile.check().unwrap();
        (tile.row0..tile.row0 + tile.rows)
            .map(|y| picture.row(y, || false).unwrap())
            .collect()
    }

    #[test]
    fn the_set_lies_across_the_real_axis_and_is_dark() {
        let rows = rows(&tile());
        assert!(rows.iter().all(|row| row.len() == 90));
        let dark = |x: f64, y: f64| {
            let column = ((x + 2.35) / 3.5 * 30.0) as usize;
            let row = ((1.15 - y) / 2.3 * 20.0) as usize;
            rows[row][column * 3..][..3].iter().all(|value| *value < 16)
        };
        assert!(dark(-0.2, 0.0) && dark(-1.0, 0.05) && dark(-0.12, -0.6));
        assert!(!dark(-2.3, 1.1) && !dark(1.1, 0.0) && !dark(-1.0, 0.6));
    }

    #[test]
    fn what_is_above_the_axis_has_its_mirror_below() {
        // All but the light, which comes from one side: so the shape is compared.
        let shape = |row: &[u8]| {
            row.chunks(3)
                .map(|rgb| rgb.iter().all(|value| *value < 4))
                .collect::<Vec<_>>()
        };
        let rows = rows(&tile());
        for y in 0..10 {
            assert_eq!(shape(&rows[y]), shape(&rows[19 - y]), "row {y}");
        }
    }

    #[test]
    fn a_row_is_the_same_in_every_tile() {
        let all = rows(&tile());
        let part = rows(&Tile {
            row0: 7,
            rows: 3,
            ..tile()
        });
        assert_eq!(part[..], all[7..10]);
    }

    #[test]
    fn an_edge_between_dark_and_bright_is_softened() {
        // Where the point −2 is, a thread thinner than a pixel.
        let rows = rows(&Tile {
            width: 300,
            height: 200,
            row0: 100,
            rows: 1,
            ..tile()
        });
        let tip = &rows[0][3 * 30..3 * 45];
        let bright = tip
            .chunks(3)
            .map(|rgb| rgb.iter().map(|v| u32::from(*v)).sum::<u32>())
            .collect::<Vec<_>>();
        assert!(bright.iter().any(|sum| (90..600).contains(sum)), "{bright:?}");
    }

    #[test]
    fn what_makes_no_picture_is_refused_by_name() {
        let refused = |tile: Tile| tile.check().unwrap_err();
        assert!(refused(Tile { width: 0, ..tile() }).starts_with("width is 0;"));
        assert!(
            refused(Tile {
                height: 70_000,
                ..tile()
            })
            .starts_with("height is 70000;")
        );
        assert!(refused(Tile { x1: f64::NAN, ..tile() }).starts_with("x0 and x1"));
        assert!(refused(Tile { y1: 1.15, ..tile() }).starts_with("y0 and y1"));
        assert!(refused(Tile { max_iter: 0, ..tile() }).starts_with("max_iter is 0;"));
        assert!(
            refused(Tile {
                row0: u32::MAX,
                rows: 1,
                ..tile()
            })
            .contains("reach beyond the height")
        );
        assert!(refused(Tile { row0: 1, ..tile() }).contains("row0 1 and rows 20"));
    }
}
