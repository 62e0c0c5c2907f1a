//! The demo makes its picture, whatever becomes of the workers.

use std::fs::{self, File};
use std::io::BufReader as FileReader;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::Path;

use asynq_tests::{Cluster, Ended, PATIENCE, Signal, eventually, interrupt, within};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Child;

/// A place that takes some work.
const SEAHORSES: [&str; 4] = ["--center", "-0.7436439,0.1318259", "--zoom", "360"];

fn path(cluster: &Cluster, name: &str) -> String {
    let path = cluster.broker.folder().join(name);
    path.to_str().expect("the path is text").to_owned()
}

/// Width, height and pixels.
fn read(path: &str) -> (u32, u32, Vec<[u8; 3]>) {
    let file = File::open(path).expect("there is a picture");
    let mut reader = png::Decoder::new(FileReader::new(file)).read_info().expect("a PNG");
    let mut bytes = vec![0; reader.output_buffer_size().expect("it is small")];
    let info = reader.next_frame(&mut bytes).expect("a whole PNG");
    assert_eq!(info.color_type, png::ColorType::Rgb);
    let pixels = bytes.chunks_exact(3).map(|rgb| [rgb[0], rgb[1], rgb[2]]);
    (info.width, info.height, pixels.collect())
}

/// Waits until the command has told that it is under way.
async fn under_way(demo: &mut Child) {
    let mut lines = BufReader::new(demo.stderr.take().expect("a pipe")).lines();
    let line = within("progress", PATIENCE, lines.next_line()).await;
    let line = line.expect("a pipe can be read").expect("a line");
    assert!(line.starts_with("mandelbrot: ") && line.ends_with(" s left"), "{line}");
}

#[tokio::test]
async fn the_picture_is_of_the_set() {
    let (mut cluster, _worker) = Cluster::with_worker(2).await;
    let _another = cluster.worker(2).await;
    let file = path(&cluster, "set.png");
    let ended = cluster.run(&["demo", "mandelbrot", "-o", &file, "--size", "180"]).await;
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    assert!(
        ended.out.starts_with(&format!("{file}: 180 x 120 pixels, 120 tiles, ")),
        "{}",
        ended.out
    );
    assert!(!ended.out.contains("lost"), "{}", ended.out);
    assert!(
        ended.err.contains("mandelbrot: 100 %, 120 of 120 rows"),
        "{}",
        ended.err
    );

    let (width, height, pixels) = read(&file);
    assert_eq!((width, height), (180, 120));
    // 50 pixels to a unit, the point −0.65 in the middle.
    let at = |x: f64, y: f64| {
        let (column, row) = ((x + 2.45) * 50.0, (1.2 - y) * 50.0);
        pixels[row as usize * 180 + column as usize]
    };
    let dark = |[r, g, b]: [u8; 3]| r < 16 && g < 16 && b < 16;
    for (x, y) in [(0.0, 0.0), (-1.0, 0.1), (-0.12, 0.75), (-0.12, -0.75)] {
        assert!(dark(at(x, y)), "{x} + {y}i is of the set: {:?}", at(x, y));
    }
    for (x, y) in [(0.6, 0.0), (-1.0, 0.5), (-2.2, 0.0), (0.3, 0.9)] {
        assert!(!dark(at(x, y)), "{x} + {y}i is not: {:?}", at(x, y));
    }
    let colours: std::collections::BTreeSet<_> = pixels.iter().collect();
    assert!(colours.len() > 1000, "{} colours", colours.len());
}

#[tokio::test]
async fn tiles_whose_worker_dies_are_drawn_on_by_another() {
    let (mut cluster, mut first) = Cluster::with_worker(2).await;
    let _second = cluster.worker(2).await;
    let (whole, broken) = (path(&cluster, "whole.png"), path(&cluster, "broken.png"));
    let demo = |file| [&["demo", "mandelbrot", "--size", "240", "-o", file], &SEAHORSES[..]].concat();
    let ended = cluster.run(&demo(&whole)).await;
    assert_eq!(ended.code, Some(0), "{}", ended.err);

    let demo = cluster.spawn(&demo(&broken));
    let client = cluster.client().await;
    let has_tiles = async || {
        eventually("the first worker to be given tiles", PATIENCE, || async {
            let workers = client.workers().await.ok()?;
            let first = workers.iter().find(|worker| worker.name == "worker-1")?;
            (first.busy == 2).then_some(())
        })
        .await;
    };
    has_tiles().await;
    // Stopped first, so that it certainly holds tiles when it dies.
    first.signal(Signal::STOP);
    has_tiles().await;
    first.kill9().await;
    let ended = Ended::of(demo).await;
    assert_eq!(ended.code, Some(0), "{}", ended.out);
    let tiles = client.tasks().limit(10_000).await.expect("they are kept").tasks;
    assert!(tiles.iter().any(|tile| tile.losses > 0), "no tile was lost");
    assert!(
        fs::read(&whole).unwrap() == fs::read(&broken).unwrap(),
        "the pictures differ"
    );
}

#[tokio::test]
async fn ctrl_c_leaves_no_task_and_no_file() {
    let (cluster, _worker) = Cluster::with_worker(1).await;
    let folder = path(&cluster, "pictures");
    fs::create_dir(&folder).unwrap();
    let file = format!("{folder}/never.png");
    // More than it can compute while we look.
    let args = [&["demo", "mandelbrot", "--size", "4000", "-o", &file], &SEAHORSES[..]].concat();
    let mut demo = cluster.spawn(&args);
    under_way(&mut demo).await;
    interrupt(&demo);
    assert_eq!(Ended::of(demo).await.code, Some(5));
    assert_eq!(
        fs::read_dir(&folder).unwrap().count(),
        0,
        "something is left in {folder}"
    );
    let client = cluster.client().await;
    eventually("the tasks to end", PATIENCE, || async {
        let queue = client.queues().await.ok()?.pop()?;
        (queue.ready + queue.running + queue.scheduled == 0).then_some(())
    })
    .await;
}

/// It does not end before it knows.
#[tokio::test]
async fn ctrl_c_says_if_the_tasks_may_go_on() {
    let (cluster, _worker) = Cluster::with_worker(1).await;
    let file = path(&cluster, "never.png");
    let args = [&["demo", "mandelbrot", "--size", "4000", "-o", &file], &SEAHORSES[..]].concat();
    let demo = cluster.spawn(&args);
    let client = cluster.client().await;
    eventually("a tile to be under way", PATIENCE, || async {
        let workers = client.workers().await.ok()?;
        workers.iter().any(|worker| worker.busy == 1).then_some(())
    })
    .await;
    cluster.broker.signal(Signal::STOP);
    interrupt(&demo);
    let ended = Ended::of(demo).await;
    cluster.broker.signal(Signal::CONT);
    assert_eq!(ended.code, Some(3), "{}", ended.err);
    let said = "asynq: NO_BROKER: the broker does not answer; ";
    assert!(
        ended.err.contains(said) && ended.err.contains(" tasks may go on"),
        "{}",
        ended.err
    );
}

#[tokio::test]
async fn what_stands_in_the_way_is_said() {
    let cluster = Cluster::start().await;
    let file = path(&cluster, "no/folder.png");
    let ended = cluster.run(&["demo", "mandelbrot", "-o", &file]).await;
    assert_eq!(ended.code, Some(1));
    let said = format!("asynq: OUTPUT: {file} cannot be written: ");
    assert!(ended.err.starts_with(&said), "{}", ended.err);
    assert!(!Path::new(&file).exists());
    assert!(!ended.err.contains(".part"), "{}", ended.err);

    // What is no file stays what it is.
    let socket = path(&cluster, "socket");
    let _listener = UnixListener::bind(&socket).unwrap();
    let ended = cluster.run(&["demo", "mandelbrot", "-o", &socket]).await;
    assert_eq!(ended.code, Some(2), "{}", ended.err);
    assert!(ended.err.contains("is no file"), "{}", ended.err);

    // Nobody there to do it.
    let file = path(&cluster, "later.png");
    let mut demo = cluster.spawn(&["demo", "mandelbrot", "--size", "30", "-o", &file]);
    let mut lines = BufReader::new(demo.stderr.take().expect("a pipe")).lines();
    let line = within("the warning", PATIENCE, lines.next_line()).await;
    let line = line.expect("a pipe can be read").expect("a line");
    assert!(
        line.starts_with("asynq: NO_WORKER: ") && line.contains("asynq-worker --builtins"),
        "{line}"
    );
    interrupt(&demo);
    assert_eq!(Ended::of(demo).await.code, Some(5));
}

#[tokio::test]
async fn a_link_leads_to_its_file() {
    let (cluster, _worker) = Cluster::with_worker(2).await;
    let (real, link) = (path(&cluster, "real.png"), path(&cluster, "link.png"));
    fs::write(&real, "old").unwrap();
    symlink(&real, &link).unwrap();
    let ended = cluster.run(&["demo", "mandelbrot", "--size", "30", "-o", &link]).await;
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(read(&real).0, 30);
}
