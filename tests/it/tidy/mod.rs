//! Guards what the layout promises: who may depend on whom, what no file may
//! hold, what the docs must mention. Each check is a plain function over text
//! that returns what is wrong, so that `can_fail` can see it fail.

mod can_fail;
mod proofs;
mod source;

use std::fs;
use std::path::{Path, PathBuf};

use source::*;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// Manifests of the workspace's members, by folder.
fn manifests() -> Vec<String> {
    let workspace = read("Cargo.toml");
    let members = workspace
        .split("members = [")
        .nth(1)
        .and_then(|rest| rest.split(']').next());
    let members: Vec<&str> = members
        .expect("Cargo.toml lists its members")
        .split('"')
        .skip(1)
        .step_by(2)
        .collect();
    assert!(members.len() >= DIRECTIONS.len(), "members not understood: {members:?}");
    members.iter().map(|m| read(&format!("{m}/Cargo.toml"))).collect()
}

/// Every file of ours whose name ends so, relative to the root.
fn files(ending: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![root()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("the tree can be read") {
            let path = entry.expect("the tree can be read").path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if name.starts_with('.') || name == "target" {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
            } else if name.ends_with(ending) {
                found.push(
                    path.strip_prefix(root())
                        .expect("below the root")
                        .to_string_lossy()
                        .into_owned(),
                );
            }
        }
    }
    assert!(!found.is_empty(), "no {ending} files found");
    found.sort();
    found
}

/// Fails with all that is wrong, one line each.
#[track_caller]
fn clean(problems: impl IntoIterator<Item = String>) {
    let problems: Vec<String> = problems.into_iter().collect();
    assert!(problems.is_empty(), "\n  {}\n", problems.join("\n  "));
}

#[test]
fn crates_depend_in_one_direction() {
    clean(manifests().iter().flat_map(|m| wrong_directions(m)));
}

#[test]
fn the_core_is_pure() {
    clean(impure_core(&read("server/core/Cargo.toml")));
    clean(forgotten_bans(&read("clippy.toml"), &read("server/core/clippy.toml")));
}

#[test]
fn every_crate_takes_the_workspace_lints() {
    clean(manifests().iter().flat_map(|m| missing_lints(m)));
}

#[test]
fn no_file_holds_what_is_forbidden() {
    clean(files(".rs").iter().flat_map(|path| forbidden_code(path, &read(path))));
}

#[test]
fn every_file_says_whose_room_it_is_and_is_short() {
    clean(files(".rs").iter().flat_map(|path| bad_shape(path, &read(path))));
}

#[test]
fn the_lock_file_holds_no_second_stack() {
    clean(bad_lock(&read("Cargo.lock")));
}

#[test]
fn every_error_reason_is_documented() {
    let code = ["proto/src/reasons.rs", "server/src/api/status.rs"].map(read).concat();
    clean(undocumented_reasons(&code, &read("docs/errors.md")));
}

#[test]
fn every_state_and_reason_is_explained() {
    let docs = read("docs/lifecycle.md");
    clean(
        ["server/core/src/task.rs", "server/core/src/view.rs"]
            .iter()
            .flat_map(|f| unexplained_words(&read(f), &docs)),
    );
}

#[test]
fn every_guarantee_names_its_tests() {
    let read = |path: &str| fs::read_to_string(root().join(path)).ok();
    clean(proofs::unproven(&read("docs/guarantees.md").unwrap_or_default(), read));
}

#[test]
fn links_lead_somewhere() {
    clean(files(".md").iter().flat_map(|page| {
        let text = read(page);
        let folder = root().join(page).parent().expect("a page lies in a folder").to_owned();
        let dead = relative_links(&text).filter(|t| !folder.join(t).exists());
        dead.map(|t| format!("{page}: {t} does not exist")).collect::<Vec<_>>()
    }));
}
