//! The tiles of a picture: each a task whose items are rows. All are read at
//! once, a bounded number ahead, and given out from top to bottom.

use asynq_client::{Client, Iter, OnLoss};
use base64::{Engine, prelude::BASE64_STANDARD};
use futures_util::{Stream, StreamExt, stream};
use serde::{Deserialize, Serialize};

use super::view::View;
use crate::{failure::Failure, progress::Progress, running::UnderWay};

pub(super) const TASK: Iter<Tile, Row> = Iter::new("mandelbrot", OnLoss::Replay);

/// The demo takes turns with other work and does not stand before it.
const SERIES: &str = "demo";
/// So many tiles make a picture …
const TILES: u32 = 128;
/// … or more, so that no tile has more bytes of pixels than this.
const TILE_BYTES: usize = 1024 * 1024;

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
    under_way: &'a UnderWay,
    /// Rows of a tile.
    height: u32,
}

impl<'a> Tiles<'a> {
    pub(super) fn new(client: &'a Client, view: &'a View, progress: &'a Progress, under_way: &'a UnderWay) -> Self {
        let most = u32::try_from(TILE_BYTES / view.row_bytes()).unwrap_or(u32::MAX);
        Self {
            client,
            view,
            progress,
            under_way,
            height: view.height.div_ceil(TILES).min(most).max(1),
        }
    }

    pub(super) fn count(&self) -> u32 {
        self.view.height.div_ceil(self.height)
    }

    /// The pixels of each tile, from top to bottom.
    pub(super) fn stream(&self, look_ahead: usize) -> impl Stream<Item = Result<Vec<u8>, Failure>> {
        let tops = (0..self.view.height).step_by(self.height as usize);
        stream::iter(tops.map(|top| self.tile(top))).buffered(look_ahead)
    }

    /// A tile. Its stream outlives the workers that compute it, and the broker.
    async fn tile(&self, top: u32) -> Result<Vec<u8>, Failure> {
        let bottom = (top + self.height).min(self.view.height);
        let tile = Tile {
            view: *self.view,
            row0: top,
            rows: bottom - top,
        };
        let mut pixels = Vec::with_capacity(tile.rows as usize * self.view.row_bytes());
        let iterate = self.client.iterate(TASK, &tile).series(SERIES).window(tile.rows);
        let id = iterate.id();
        self.under_way.begun(id);
        let (mut rows, mut due) = (iterate.await?, top);
        while let Some(row) = rows.try_next().await? {
            let before = pixels.len();
            let decoded = BASE64_STANDARD.decode_vec(&row.rgb, &mut pixels);
            if row.y != due || decoded.is_err() || pixels.len() - before != self.view.row_bytes() {
                return Err(wrong(due));
            }
            due += 1;
            self.progress.step();
        }
        self.under_way.ended(id);
        match due < bottom {
            true => Err(wrong(due)),
            false => Ok(pixels),
        }
    }
}

fn wrong(row: u32) -> Failure {
    let message = format!("what came from the worker is not row {row} of this picture; is it of another version?");
    Failure::new(1, "UNEXPECTED", message)
}
