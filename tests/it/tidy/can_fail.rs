//! Each check of the tree can fail.

use super::clean;
use super::source::*;

#[track_caller]
fn finds(problems: &[String], what: &str) {
    assert!(
        problems.iter().any(|p| p.contains(what)),
        "{what:?} is not in {problems:?}"
    );
}

#[test]
fn a_wrong_direction_is_found() {
    let ok = "[package]\nname = \"asynq-store\"\n[dependencies]\nasynq-core.workspace = true\nbytes = \"1\"\n";
    clean(wrong_directions(ok));
    for wrong in [
        "asynqd.workspace = true",
        "asynqd = { path = \"..\" }",
        "x = { package = \"asynqd\" }",
        "[dev-dependencies.asynqd]",
        "[target.'cfg(unix)'.dependencies]\nasynqd.workspace = true",
        "[build-dependencies]\nasynqd.workspace = true",
    ] {
        finds(
            &wrong_directions(&format!("{ok}{wrong}\n")),
            "must not depend on asynqd",
        );
    }
    finds(&wrong_directions("[package]\nname = \"asynq-new\"\n"), "a new crate");
}

#[test]
fn an_impure_core_is_found() {
    let ok = "[dependencies]\nbytes.workspace = true\n[dev-dependencies]\nproptest.workspace = true\n";
    clean(impure_core(ok));
    finds(
        &impure_core(&format!("{ok}[dependencies]\ntokio.workspace = true\n")),
        "tokio",
    );
    finds(&impure_core("[target.x.dependencies]\nrand = \"1\"\n"), "rand");
    finds(
        &forgotten_bans("{ path = \"a::b\" }, { path = \"c\" }", "{ path = \"c\" }"),
        "a::b",
    );
}

#[test]
fn missing_lints_are_found() {
    clean(missing_lints("name = \"x\"\n[lints]\nworkspace = true\n"));
    finds(&missing_lints("name = \"x\"\n[lints]\nrust.x = 1\n"), "x: [lints]");
    finds(
        &missing_lints("name = \"x\"\n[package]\nworkspace = true\n"),
        "x: [lints]",
    );
}

#[test]
fn forbidden_code_is_found() {
    for (what, _) in FORBIDDEN {
        finds(&forbidden_code("a.rs", &format!("//! A.\n{what}x)")), what);
    }
    for wrong in [
        "mpsc::channel()",
        "mpsc::channel::<Vec<u8>>()",
        "f(mpsc::channel(1), mpsc::channel())",
    ] {
        finds(&forbidden_code("a.rs", wrong), "a.rs:1: mpsc::channel() has no bound");
    }
    clean(forbidden_code(
        "a.rs",
        "mpsc::channel(8); mpsc::channel::<()>(8); mpsc::channel::<Vec<()>>(8)",
    ));
    clean(forbidden_code(
        "a.rs",
        "// todo!\n/* todo! */ let s = (\"todo! \\\" todo!\", r#\"todo! \" todo!\"#, br\"todo!\");",
    ));
    finds(
        &forbidden_code(
            "a.rs",
            "let c = ('\"', '\\'', b'\"');\n/* */ let l: &'static str = \"\n\"; todo!()",
        ),
        "a.rs:3: todo!",
    );
}

#[test]
fn a_bad_shape_is_found() {
    clean(bad_shape("a.rs", "//! The room of a.\n"));
    finds(&bad_shape("a.rs", "use b;\n"), "must begin");
    finds(&bad_shape("a.rs", &"//! Long.\n".repeat(MAX_LINES + 1)), "601 lines");
}

#[test]
fn a_bad_lock_is_found() {
    let one = "name = \"tonic\"\nversion = \"1\"\nname = \"openssl-probe\"\n";
    clean(bad_lock(one));
    finds(&bad_lock(&format!("{one}name = \"openssl\"\n")), "openssl must not");
    finds(&bad_lock(&format!("{one}name = \"tonic\"\n")), "two versions of tonic");
}

#[test]
fn a_gap_in_the_docs_is_found() {
    let code = "pub const A_B: &str = \"A_B\";";
    clean(undocumented_reasons(code, "\n| `A_B` | x |"));
    finds(&undocumented_reasons(code, "see A_B"), "lacks A_B");
    finds(&undocumented_reasons(code, "\n| `A_B` | x |\n| `C` | y |"), "has C");
    finds(&undocumented_reasons("", ""), "no reason found");
    clean(unexplained_words(
        "  Self::Ready => \"ready\",",
        "\n| `ready` | it waits |",
    ));
    finds(&unexplained_words("  Self::Ready => \"ready\",", "ready"), "`ready`");
    finds(&unexplained_words("", ""), "no state or reason");
    assert!(relative_links("[a](b.md#c) [d](https://e) [f](#g)").eq(["b.md"]));
}
