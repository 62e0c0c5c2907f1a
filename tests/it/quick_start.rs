//! docs/guides/quick-start.md does what it says: its commands are typed as they
//! stand there, and what is printed is what stands there.

use std::fs;
use std::path::{Path, PathBuf};

use asynq_tests::{Cluster, PATIENCE, Process, Signal, eventually, program, within};
use rustix::process::{Pid, kill_process};
use tokio::process::Command;

use crate::exec::guide::{blocks, commands, fits};

const PAGE: &str = "../docs/guides/quick-start.md";

/// What the test has done when it begins.
const BUILD: &str = "cargo build --release\nexport PATH=\"$PWD/target/release:$PATH\"\n";

/// A worker that a command put in the background. It ends with the test.
struct Background {
    number: PathBuf,
    shell: Process,
}

impl Drop for Background {
    fn drop(&mut self) {
        let number = fs::read_to_string(&self.number).unwrap_or_default();
        if let Some(worker) = number.trim().parse().ok().and_then(Pid::from_raw) {
            // One of them has been killed by then.
            let _ = kill_process(worker, Signal::KILL);
        }
    }
}

/// The path of the programs, as `export PATH` makes it.
fn path() -> String {
    let ours = program("asynq").parent().expect("a folder").to_owned();
    format!("{}:{}", ours.display(), std::env::var("PATH").expect("PATH is set"))
}

/// A command in a terminal of its own, which prints a line and goes on.
async fn start(cluster: &Cluster, terminal: &str, command: &str) -> Background {
    let folder = cluster.broker.folder();
    let args = [
        format!("PATH={}", path()),
        format!("ASYNQ_BROKER={}", cluster.broker.url()),
        "sh".to_owned(),
        "-c".to_owned(),
        // On a line of its own: `&&` would go to the background with it.
        format!("cd '{}' || exit\n{command}", folder.display()),
    ];
    let shell = Process::start_at("/usr/bin/env".as_ref(), args, folder.join(format!("{terminal}.log"))).await;
    let number = folder.join(format!("{terminal}.pid"));
    // The shell writes it beside the worker's line.
    let written = || async {
        fs::read_to_string(&number)
            .is_ok_and(|text| text.ends_with('\n'))
            .then_some(())
    };
    eventually("the number of the worker", PATIENCE, written).await;
    Background {
        shell: shell.unwrap_or_else(|said| panic!("{command}: {said}")),
        number,
    }
}

/// Types a command; what it prints, without the lines that tell how far it is.
async fn typed(cluster: &Cluster, command: &str) -> String {
    let output = Command::new("sh")
        .args(["-c", command])
        .current_dir(cluster.broker.folder())
        .env("PATH", path())
        .env("ASYNQ_BROKER", cluster.broker.url())
        .kill_on_drop(true)
        .output();
    let output = within(command, PATIENCE, output).await.expect("a shell starts");
    let printed = String::from_utf8([output.stdout, output.stderr].concat()).expect("it is text");
    let lines = printed.lines().filter(|line| !line.starts_with("mandelbrot: "));
    lines.map(|line| format!("{line}\n")).collect()
}

#[tokio::test]
async fn the_page_does_what_it_says() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join(PAGE);
    let blocks = blocks(&fs::read_to_string(page).expect("the page is there"));
    let cluster = Cluster::start().await;
    let (mut workers, mut run) = (Vec::new(), 0);
    for block in &blocks {
        if block.language == "sh" {
            assert_eq!(block.text, BUILD);
            continue;
        }
        assert_eq!(block.language, "console", "{}", block.text);
        for (command, printed) in commands(&block.text) {
            run += 1;
            match block.file.as_deref() {
                Some("broker") => {
                    // Started above, on a free port and with a folder of its own.
                    assert_eq!(command, "asynqd");
                    assert!(fits("listening on …\n", &printed), "{printed}");
                }
                Some(terminal) => {
                    let worker = start(&cluster, terminal, command).await;
                    let line = format!("{}\n", worker.shell.ready());
                    assert!(fits(&line, &printed), "$ {command}\n{line}instead of\n{printed}");
                    workers.push(worker);
                }
                // These only look, and what they look at may take its time to happen.
                None if command.starts_with("asynq task ") || command == "asynq doctor" => {
                    eventually(&format!("$ {command}\n{printed}"), PATIENCE, || async {
                        let got = typed(&cluster, command).await;
                        let good = fits(&got, &printed);
                        if !good {
                            eprintln!("$ {command}\n{got}");
                        }
                        good.then_some(())
                    })
                    .await;
                }
                None => {
                    let got = typed(&cluster, command).await;
                    assert!(fits(&got, &printed), "$ {command}\n{got}instead of\n{printed}");
                }
            }
        }
    }
    assert!(
        run >= 15 && workers.len() == 2,
        "only {run} commands: has the page's form changed?"
    );
}
