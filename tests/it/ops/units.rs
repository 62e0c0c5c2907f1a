//! deploy/systemd: units that systemd accepts, and that are hard to break out of.

use std::fs;
use std::path::{Path, PathBuf};

use asynq_tests::{PATIENCE, program, within};
use tokio::process::Command;

/// Exposure in tenths, 0 to 100.
const THRESHOLD: &str = "--threshold=30";

const UNITS: [&str; 2] = ["asynqd", "asynq-worker"];

fn unit(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/systemd");
    folder.join(format!("{name}.service"))
}

/// What `systemd-analyze` says, and whether it is content.
async fn analyze(args: &[&str]) -> (bool, String) {
    let running = Command::new("systemd-analyze").args(args).output();
    let output = within("systemd-analyze", PATIENCE, running).await;
    let output = output.expect("systemd-analyze is missing: apt-get install --no-install-recommends systemd");
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}

#[tokio::test]
async fn systemd_accepts_the_units() {
    let folder = tempfile::tempdir().unwrap();
    for name in UNITS {
        // As installed, but with the program where it is now.
        let text = fs::read_to_string(unit(name)).unwrap();
        let installed = format!("ExecStart=/usr/bin/{name}\n");
        assert!(text.contains(&installed), "{name}");
        let here = format!("ExecStart={}\n", program(name).display());
        let path = folder.path().join(format!("{name}.service"));
        for (text, so) in [
            (text.replace(&installed, &here), true),
            (text.replace(&installed, &format!("{here}Typo=yes\n")), false),
        ] {
            fs::write(&path, text).unwrap();
            let (_, said) = analyze(&["verify", "--man=no", path.to_str().unwrap()]).await;
            let ours: Vec<_> = said.lines().filter(|line| line.contains(name)).collect();
            assert_eq!(ours.is_empty(), so, "{name}: {said}");
        }
    }
}

#[tokio::test]
async fn the_units_are_hard_to_break_out_of() {
    for name in UNITS {
        let path = unit(name);
        let args = ["security", "--offline=true", THRESHOLD, path.to_str().unwrap()];
        let (content, said) = analyze(&args).await;
        assert!(content, "{name}: {said}");
    }
    // The check can fail.
    let bare = tempfile::Builder::new().suffix(".service").tempfile().unwrap();
    fs::write(bare.path(), "[Service]\nExecStart=/bin/true\n").unwrap();
    let (content, said) = analyze(&["security", "--offline=true", THRESHOLD, bare.path().to_str().unwrap()]).await;
    assert!(!content, "{said}");
}
