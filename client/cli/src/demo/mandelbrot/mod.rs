//! `asynq demo mandelbrot`: a picture of the Mandelbrot set, computed by all workers together.

mod picture;
mod tiles;
mod view;

use std::{path::PathBuf, pin::pin};

use futures_util::TryStreamExt;

use self::{
    picture::Picture,
    tiles::{TASK, Tiles},
    view::{View, center, zoom},
};
use crate::{
    connect::{Broker, connect},
    failure::Failure,
    output,
    progress::Progress,
    running::{UnderWay, able, warn_without_workers},
};

/// Compute a picture of the Mandelbrot set on all workers.
///
/// The picture is cut into tiles of some rows, each an iterator task; the rows
/// stream back as they are computed and go to the file from top to bottom.
/// Needs workers with `--builtins`. Workers may die, and the broker be started again.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The PNG file to write.
    #[arg(short, long, value_name = "FILE", default_value = "mandelbrot.png")]
    output: PathBuf,
    /// Pixels along the longer side, 16 to 32768; the picture is 3:2.
    #[arg(long, value_name = "N", default_value_t = 1920, value_parser = clap::value_parser!(u32).range(16..=32_768))]
    size: u32,
    /// The point in the middle.
    #[arg(long, value_name = "X,Y", default_value = "-0.65,0", allow_hyphen_values = true, value_parser = center)]
    center: (f64, f64),
    /// How much larger than the whole set, 1 to 1e12.
    #[arg(long, value_name = "F", default_value_t = 1.0, value_parser = zoom)]
    zoom: f64,
    /// Iterations for a point, 1 to 1000000 [default: 1000, and more the larger the zoom].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    max_iter: Option<u32>,
    /// Tiles asked for at a time, 1 to 256 [default: twice the slots of the workers].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    look_ahead: Option<u16>,
}

const EXAMPLES: &str = "\
Examples:
  asynq demo mandelbrot -o set.png
  asynq demo mandelbrot -o seahorses.png --center -0.7436439,0.1318259 --zoom 360
  asynq demo mandelbrot -o elephants.png --center 0.2925,0.0149 --zoom 600 --size 3000";

impl Args {
    pub(crate) async fn run(self, broker: &Broker) -> Result<(), Failure> {
        let view = View::new(self.size, self.center, self.zoom, self.max_iter);
        // A file that cannot be written is worth knowing before the work.
        let mut picture = Picture::create(&self.output, &view)?;
        let client = connect(broker, None).await?.client;
        let workers = able(&client, TASK.name()).await?;
        let slots: usize = workers.iter().map(|worker| worker.slots as usize).sum();
        let look_ahead = self.look_ahead.map_or_else(|| (2 * slots).clamp(4, 64), usize::from);
        let progress = Progress::new(TASK.name().to_owned(), "rows", u64::from(view.height));
        let under_way = UnderWay::default();
        let tiles = Tiles::new(&client, &view, &progress, &under_way);
        let drawn = async {
            tokio::select! {
                drawn = draw(&tiles, look_ahead, &mut picture) => drawn,
                never = warn_without_workers(&client, TASK.name(), &progress) => match never {},
            }
        };
        let stopped = |_| "the tasks are stopped; no picture was written".to_owned();
        under_way.until_done(&client, drawn, stopped).await?;
        let seconds = progress.finish().as_secs_f64();
        picture.finish()?;
        let summary = format!(
            "{}: {} x {} pixels, {} tiles, {seconds:.1} s, {:.2} million pixels/s",
            self.output.display(),
            view.width,
            view.height,
            tiles.count(),
            view.pixels() as f64 / 1e6 / seconds,
        );
        output::line(&summary)
    }
}

/// Writes tile after tile.
async fn draw(tiles: &Tiles<'_>, look_ahead: usize, picture: &mut Picture) -> Result<(), Failure> {
    let mut done = pin!(tiles.stream(look_ahead));
    while let Some(rows) = done.try_next().await? {
        picture.append(&rows)?;
    }
    Ok(())
}
