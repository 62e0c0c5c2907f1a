//! docs/guides/workers-without-rust.md does what it says: its files are written
//! as they stand there, its commands are typed as they stand there, and what is
//! printed is what stands there.

use std::fs;
use std::path::Path;

use asynq_tests::{Cluster, PATIENCE, program, within};
use tokio::process::Command;

const GUIDE: &str = "../docs/guides/workers-without-rust.md";

/// What starts broker and worker; the test has done so by then, on a free port.
const STARTED: [&str; 2] = ["asynqd &", "asynq-worker --config worker.toml &"];

/// A block of code: its language, the file it belongs to, its text.
pub(crate) struct Block {
    pub(crate) language: String,
    pub(crate) file: Option<String>,
    pub(crate) text: String,
}

pub(crate) fn blocks(page: &str) -> Vec<Block> {
    let mut found = Vec::new();
    let mut rest = page;
    while let Some((_, behind)) = rest.split_once("\n```") {
        let (info, behind) = behind.split_once('\n').expect("a block has lines");
        let (text, behind) = behind.split_once("```").expect("a block ends");
        let mut info = info.split(' ').map(str::to_owned);
        found.push(Block {
            language: info.next().unwrap_or_default(),
            file: info.next(),
            text: text.to_owned(),
        });
        rest = behind;
    }
    found
}

/// Commands, each with what it prints.
pub(crate) fn commands(console: &str) -> Vec<(&str, String)> {
    let mut found: Vec<(&str, String)> = Vec::new();
    for line in console.lines() {
        match (line.strip_prefix("$ "), found.last_mut()) {
            (Some(command), _) => found.push((command, String::new())),
            (None, Some((_, printed))) => *printed += &format!("{line}\n"),
            (None, None) => panic!("{line:?} comes before any command"),
        }
    }
    found
}

/// Whether text is as it stands there; an ellipsis stands for what is different
/// each time.
pub(crate) fn fits(text: &str, printed: &str) -> bool {
    let mut parts = printed.split('…');
    let Some(mut rest) = text.strip_prefix(parts.next().unwrap_or_default()) else {
        return false;
    };
    for part in parts {
        let Some(at) = rest.find(part).filter(|&at| !rest[..at].contains('\n')) else {
            return false;
        };
        rest = &rest[at + part.len()..];
    }
    rest.is_empty()
}

#[test]
fn an_ellipsis_stands_for_anything_in_a_line() {
    for (text, printed, so) in [
        ("a\n", "a\n", true),
        ("a\n", "a", false),
        ("a\n", "b\n", false),
        ("(task 7)\nb\n", "(task …)\nb\n", true),
        ("(task 7)\nb\n", "(task …)\n", false),
        ("(task 7\n)\n", "(task …)\n", false),
        ("7 of 8\n", "… of …\n", true),
    ] {
        assert_eq!(fits(text, printed), so, "{text:?} {printed:?}");
    }
}

async fn typed(cluster: &Cluster, command: &str, last: i32) -> (i32, String) {
    let programs = program("asynq").parent().expect("a folder").to_owned();
    let path = std::env::var("PATH").expect("PATH is set");
    let output = Command::new("sh")
        // `$?` is that of the command before, as in a shell that goes on.
        .args(["-c", &format!("(exit {last})\n{command}")])
        .current_dir(cluster.broker.folder())
        .env("PATH", format!("{}:{path}", programs.display()))
        .env("ASYNQ_BROKER", cluster.broker.url())
        .kill_on_drop(true)
        .output();
    let output = within(command, PATIENCE, output).await.expect("a shell starts");
    let printed = [output.stdout, output.stderr].concat();
    let printed = String::from_utf8(printed).expect("it is text");
    (output.status.code().expect("it exits"), printed)
}

#[tokio::test]
async fn the_guide_does_what_it_says() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join(GUIDE);
    let blocks = blocks(&fs::read_to_string(page).expect("the guide is there"));
    let python = Command::new("python3").arg("--version").output().await;
    assert!(
        python.is_ok(),
        "the guide needs python3, which is missing: apt-get install python3"
    );
    let cluster = Cluster::start().await;
    let folder = cluster.broker.folder();
    let mut tasks = String::new();
    for block in &blocks {
        match block.file.as_deref() {
            Some("worker.toml") => tasks += &block.text,
            Some(file) => fs::write(folder.join(file), &block.text).expect("it can be written"),
            None => assert_eq!(block.language, "console", "{}", block.text),
        }
    }
    let _worker = super::worker(&cluster, &tasks).await;
    let (mut run, mut last) = (0, 0);
    for block in blocks.iter().filter(|block| block.language == "console") {
        for (command, printed) in commands(&block.text) {
            if STARTED.contains(&command) {
                continue;
            }
            let (code, got) = typed(&cluster, command, last).await;
            assert!(fits(&got, &printed), "$ {command}\n{got}instead of\n{printed}");
            (run, last) = (run + 1, code);
        }
    }
    assert!(run >= 12, "only {run} commands found: has the guide's form changed?");
}
