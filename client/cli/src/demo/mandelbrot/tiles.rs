//! The tiles of a picture: each a task whose items are rows. All are read at
//! once, a bounded number ahead, and given out from top to bottom.

use std::{cell::Cell, ops::Range};

use asynq_client::{Client, DeadReason, Error, Iter};
use base64::{Engine, prelude::BASE64_STANDARD};
use futures_util::{Stream, StreamExt, stream};
use serde::{Deserialize, Serialize};

use super::view::View;
use crate::{failure::Failure, progress::Progress};

pub(super) const TASK: Iter<Tile, Row> = Iter::new("mandelbrot");

/// The demo takes turns with other work and does not stand before it.
const SERIES: &str = "demo";
/// So many tiles make a picture …
const TILES: u32 = 128;
/// … or more, so that no tile has more bytes of pixels than this.
const TILE_BYTES: usize = 1024 * 1024;
/// How often a tile is lost in a row, without a row coming in between, before it is given up.
const LOSSES: u32 = 10;

/// What a worker is asked.
#[derive(Serialize)]
pub(super) struct Tile {
    #[serde(flatten)]
    view: View,
    row0: u32,
    rows: u32,
}

/// What it answers, row by row.
#[derive(Deserialize)]
pub(super) struct Row {
    y: u32,
    rgb: String,
}

/// All tiles of a picture.
pub(super) struct Tiles<'a> {
    client: &'a Client,
    view: &'a View,
    progress: &'a Progress,
    /// Rows of a tile.
    height: u32,
    lost: Cell<u32>,
}

impl<'a> Tiles<'a> {
    pub(super) fn new(client: &'a Client, view: &'a View, progress: &'a Progress) -> Self {
        let most = u32::try_from(TILE_BYTES / view.row_bytes()).unwrap_or(u32::MAX);
        Self {
            client,
            view,
            progress,
            height: view.height.div_ceil(TILES).min(most).max(1),
            lost: Cell::new(0),
        }
    }

    pub(super) fn count(&self) -> u32 {
        self.view.height.div_ceil(self.height)
    }

    /// How many were asked for again.
    pub(super) fn lost(&self) -> u32 {
        self.lost.get()
    }

    /// The pixels of each tile, from top to bottom.
    pub(super) fn stream(&self, look_ahead: usize) -> impl Stream<Item = Result<Vec<u8>, Failure>> {
        let tops = (0..self.view.height).step_by(self.height as usize);
        stream::iter(tops.map(|top| self.tile(top))).buffered(look_ahead)
    }

    /// A tile, whatever becomes of the workers that compute it. What has come of
    /// it stays: only the rest is asked for again.
    async fn tile(&self, top: u32) -> Result<Vec<u8>, Failure> {
        let mut left = top..(top + self.height).min(self.view.height);
        let mut pixels = Vec::with_capacity(left.len() * self.view.row_bytes());
        let mut losses = 0;
        while left.start < left.end {
            let next = left.start;
            let Err(failure) = self.read(&mut left, &mut pixels).await else {
                continue;
            };
            losses = if left.start == next { losses + 1 } else { 1 };
            match failure {
                Broken::Lost(_) if losses < LOSSES => self.lost.set(self.lost.get() + 1),
                Broken::Lost(error) => return Err(Failure::from(error).at(&format!("rows {left:?}"))),
                Broken::Wrong(failure) => return Err(failure),
            }
        }
        Ok(pixels)
    }

    /// Reads what is left of a tile and takes off what has come.
    async fn read(&self, left: &mut Range<u32>, pixels: &mut Vec<u8>) -> Result<(), Broken> {
        let tile = Tile {
            view: *self.view,
            row0: left.start,
            rows: left.end - left.start,
        };
        let iterate = self.client.iterate(TASK, &tile).series(SERIES).window(tile.rows);
        let mut rows = iterate.await?;
        while let Some(row) = rows.try_next().await? {
            let before = pixels.len();
            let decoded = BASE64_STANDARD.decode_vec(&row.rgb, pixels);
            if row.y != left.start || decoded.is_err() || pixels.len() - before != self.view.row_bytes() {
                return Err(wrong(left.start));
            }
            left.start += 1;
            self.progress.step();
        }
        match left.start < left.end {
            true => Err(wrong(left.start)),
            false => Ok(()),
        }
    }
}

/// Why a tile has not come to its end.
enum Broken {
    /// Its worker died or could not be heard.
    Lost(Error),
    /// Asking again would not help.
    Wrong(Failure),
}

impl From<Error> for Broken {
    fn from(error: Error) -> Self {
        match error {
            Error::StreamBroken { .. }
            | Error::Dead {
                reason: DeadReason::WorkerLost,
                ..
            } => Self::Lost(error),
            _ => Self::Wrong(error.into()),
        }
    }
}

fn wrong(row: u32) -> Broken {
    let message = format!("what came from the worker is not row {row} of this picture; is it of another version?");
    Broken::Wrong(Failure::new(1, "UNEXPECTED", message))
}
