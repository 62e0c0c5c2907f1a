//! docs/guides/operating.md does what it says: its commands are typed as they
//! stand there, on a cluster of its own, and what is printed is what stands there.

use std::fs;
use std::path::Path;

use asynq_tests::Cluster;

use crate::exec::guide::{blocks, commands, fits, typed};

const PAGE: &str = "../docs/guides/operating.md";

/// Commands for a machine with systemd: the units they install are tested by
/// themselves.
const INSTALLED: &str = "sh";

#[tokio::test]
async fn the_guide_does_what_it_says() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join(PAGE)).unwrap();
    let (mut cluster, _worker) = Cluster::with_worker(2).await;
    let http = cluster.broker.http().to_string();
    let (mut run, mut last) = (0, 0);
    for block in blocks(&page) {
        if block.language == INSTALLED {
            let files = block.text.split_whitespace().filter(|word| word.starts_with("deploy/"));
            for file in files {
                assert!(root.join("..").join(file).is_file(), "{file} is not there");
            }
            continue;
        }
        assert_eq!(block.language, "console", "{}", block.text);
        for (command, printed) in commands(&block.text) {
            let here = command.replace("127.0.0.1:7741", &http);
            let (code, got) = typed(&cluster, &here, last).await;
            assert!(fits(&got, &printed), "$ {command}\n{got}instead of\n{printed}");
            (run, last) = (run + 1, code);
        }
    }
    assert!(run >= 8, "only {run} commands found: has the guide's form changed?");
    cluster.broker.stop().await;
}
