//! Where the programs under test are.

use std::path::PathBuf;

/// The path of one of our examples, built with the same profile as this test.
///
/// # Panics
/// When it has not been built, naming the command that does.
#[must_use]
pub fn example(name: &str) -> PathBuf {
    let program = folder().join("examples").join(name);
    assert!(
        program.is_file(),
        "{} is missing; build it first: cargo build --workspace --examples (`make test` does)",
        program.display()
    );
    program
}

/// The path of one of our programs, built with the same profile as this test.
///
/// # Panics
/// When it has not been built, naming the command that does.
#[must_use]
pub fn program(name: &str) -> PathBuf {
    let program = folder().join(name);
    assert!(
        program.is_file(),
        "{} is missing; build it first: cargo build --workspace --bins (`make test` does)",
        program.display()
    );
    program
}

/// Where what is built with this profile goes.
fn folder() -> PathBuf {
    // target/<profile>/deps/it-<hash>
    let test = std::env::current_exe().expect("a running program has a path");
    let folder = test.parent().and_then(|deps| deps.parent());
    folder.expect("tests lie in target/<profile>/deps").to_owned()
}
