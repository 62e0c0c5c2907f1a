//! The plot: a picture of the size it says, with the bars that the rows are.

use std::fs::{self, File};
use std::io::BufReader;

use super::{cluster, demo, nginx_logs, text};

/// Width, height and pixels.
fn png(path: &str) -> (u32, u32, Vec<[u8; 3]>) {
    let file = BufReader::new(File::open(path).expect("there is a picture"));
    let mut reader = png::Decoder::new(file).read_info().expect("a PNG");
    let mut bytes = vec![0; reader.output_buffer_size().expect("it is small")];
    let info = reader.next_frame(&mut bytes).expect("a whole PNG");
    assert_eq!(info.color_type, png::ColorType::Rgb);
    let pixels = bytes.chunks_exact(3).map(|rgb| [rgb[0], rgb[1], rgb[2]]);
    (info.width, info.height, pixels.collect())
}

/// The elements of a picture, and whether each is closed and none is inside a wrong one.
fn elements(svg: &str) -> Vec<&str> {
    let mut open = Vec::new();
    let mut found = Vec::new();
    for tag in svg.split('<').skip(1) {
        let (tag, after) = tag.split_once('>').expect("a tag ends");
        assert!(!after.contains('>'), "a bare > after {tag}");
        let entity = |part: &str| ["amp;", "lt;", "gt;"].iter().any(|entity| part.starts_with(entity));
        assert!(after.split('&').skip(1).all(entity), "a bare & in {after}");
        assert_eq!(tag.matches('"').count() % 2, 0, "{tag}");
        let name = tag.trim_matches('/').split(' ').next().unwrap_or_default();
        match (tag.starts_with('/'), tag.ends_with('/')) {
            (true, _) => assert_eq!(open.pop(), Some(name), "{tag}"),
            (false, closed) => {
                found.push(name);
                if !closed {
                    open.push(name);
                }
            }
        }
    }
    assert!(open.is_empty(), "{open:?} are not closed");
    found
}

#[tokio::test]
async fn rows_over_time_are_drawn() {
    let (cluster, logs, _workers) = cluster(2).await;
    nginx_logs(&logs).await;
    let (access, error) = (logs.join("access.log"), logs.join("error.log"));
    for name in ["plot.svg", "plot.PNG"] {
        let plot = cluster.broker.folder().join(name);
        let ended = demo(&cluster, &[text(&access), text(&error), "-o", text(&plot)]).await;
        assert_eq!(ended.code, Some(0), "{}", ended.err);
        assert!(
            ended.out.ends_with(&format!("\nplotted in {}\n", text(&plot))),
            "{}",
            ended.out
        );
        assert!(!ended.out.contains('█'), "{}", ended.out);
    }
    let svg = fs::read_to_string(cluster.broker.folder().join("plot.svg")).unwrap();
    let found = elements(&svg);
    assert_eq!((found[0], found[1]), ("svg", "title"));
    assert!(
        svg.starts_with("<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"1200\" height=\"600\" "),
        "{svg}"
    );
    for text in [
        ">Requests by status<",
        ">Messages of nginx by level<",
        ">2xx 150<",
        ">5xx 5<",
        ">error 95<",
    ] {
        assert!(svg.contains(text), "no {text}\n{svg}");
    }
    let (width, height, pixels) = png(text(&cluster.broker.folder().join("plot.PNG")));
    assert_eq!((width, height), (1200, 600));
    let drawn = |colour: [u8; 3]| pixels.iter().filter(|pixel| **pixel == colour).count();
    assert!(drawn([255; 3]) > 300_000, "the ground is light");
    // Answers with 200 are more than twice those with 3xx; all are there.
    let (ok, moved) = (drawn([0x00, 0x72, 0xb2]), drawn([0x56, 0xb4, 0xe9]));
    assert!(ok > moved && moved > 100, "{ok} {moved}");
}

#[tokio::test]
async fn what_cannot_be_drawn_is_said_before_the_work() {
    let (cluster, logs, _workers) = cluster(1).await;
    fs::write(logs.join("plain.log"), "no time in here\n").unwrap();
    for (output, code, said) in [
        ("plot.jpg", 2, "plot.jpg must end in .svg or .png"),
        ("no/such/folder.png", 1, "no/such/folder.png cannot be written"),
    ] {
        let ended = demo(&cluster, &["plain.log", "-o", output]).await;
        assert_eq!((ended.code, ended.out.as_str()), (Some(code), ""), "{}", ended.err);
        assert!(ended.err.contains(said), "{}", ended.err);
    }
    let plot = cluster.broker.folder().join("plot.svg");
    let ended = demo(&cluster, &["plain.log", "-o", text(&plot)]).await;
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    assert!(fs::read_to_string(&plot).unwrap().contains("no row has a time"));
}
