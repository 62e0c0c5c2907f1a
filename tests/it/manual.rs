//! Completions and man pages: rendered by the real programs, held against what
//! their `--help` tells, and tried in a real shell.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Stdio;

use asynq_tests::{Ended, program, run};
use tokio::process::Command;

const PROGRAMS: [&str; 3] = ["asynq", "asynqd", "asynq-worker"];
const SHELLS: [&str; 5] = ["bash", "elvish", "fish", "powershell", "zsh"];

async fn prints(name: &str, args: &[&str]) -> String {
    let Ended { code, out, err } = run(name, args).await;
    assert_eq!((code, err.as_str()), (Some(0), ""), "{name} {args:?}");
    out
}

/// Long flags that a help text lists.
fn flags(help: &str) -> BTreeSet<String> {
    let lines = help.lines().map(str::trim_start).filter(|line| line.starts_with('-'));
    let words = lines.flat_map(|line| line.split([' ', ',', '=', '[']).take(4));
    let long = words.filter(|word| word.starts_with("--") && word.len() > 2);
    long.map(str::to_owned).collect()
}

/// A page without the marks of roff.
fn plain(page: &str) -> String {
    page.replace("\\-", "-").replace("\\fB", "").replace("\\fR", "")
}

#[tokio::test]
async fn every_command_has_a_page_that_names_all_its_flags() {
    // All go to one folder, where no page may take another's place.
    let folder = tempfile::tempdir().unwrap();
    let mut pages_in_all = 0;
    for name in PROGRAMS {
        let listed = prints(name, &["man", "--out", folder.path().to_str().unwrap()]).await;
        let mut pages = 0;
        for path in listed.lines().map(Path::new) {
            let title = path.file_stem().unwrap().to_str().unwrap();
            let below = title
                .strip_prefix(name)
                .unwrap()
                .split('-')
                .filter(|word| !word.is_empty());
            let words: Vec<_> = below.collect();
            let page = fs::read_to_string(path).unwrap();
            assert_eq!(prints(name, &[&["man"], &words[..]].concat()).await, page, "{title}");
            let help = prints(name, &[&words[..], &["--help"]].concat()).await;
            let page = plain(&page);
            let known = flags(&help);
            assert!(known.contains("--help"), "{help}");
            for flag in known {
                assert!(page.contains(&flag), "{title}: {flag} is not in\n{page}");
            }
            let has_examples = help.contains("Examples:");
            assert_eq!(page.contains("\n.SH \"EXAMPLES\"\n"), has_examples, "{title}");
            pages += 1;
        }
        assert!(pages >= 3, "{name}: {listed}");
        pages_in_all += pages;
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), pages_in_all);
}

#[tokio::test]
async fn every_shell_gets_every_flag() {
    for name in PROGRAMS {
        let known = flags(&prints(name, &["--help"]).await);
        for shell in SHELLS {
            let script = prints(name, &["completions", shell]).await;
            for flag in &known {
                // fish writes them without the dashes.
                assert!(script.contains(flag.trim_start_matches('-')), "{name}, {shell}: {flag}");
            }
        }
    }
}

/// What bash offers for the last of these words.
async fn offered(words: &[&str]) -> BTreeSet<String> {
    let name = words[0];
    // As clap names it.
    let function = format!("_{}", name.replace('-', "__"));
    let script = format!(
        "source <({} completions bash)\n\
         complete -p {name} | grep -q -- '-F {function} ' || exit 9\n\
         COMP_WORDS=({})\nCOMP_CWORD={}\n{function} {name} '{}' '{}'\n\
         printf '%s\\n' \"${{COMPREPLY[@]}}\"",
        program(name).display(),
        words
            .iter()
            .map(|word| format!("'{word}'"))
            .collect::<Vec<_>>()
            .join(" "),
        words.len() - 1,
        words[words.len() - 1],
        words[words.len() - 2],
    );
    let child = Command::new("bash")
        .args(["--norc", "-c", &script])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let Ended { code, out, err } = Ended::of(child).await;
    assert_eq!((code, err.as_str()), (Some(0), ""), "{words:?}");
    out.lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn bash_completes() {
    let set = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<BTreeSet<_>>();
    assert_eq!(offered(&["asynq", "task", "ls", "--st"]).await, set(&["--state"]));
    assert_eq!(offered(&["asynq", "task", "e"]).await, set(&["explain"]));
    assert_eq!(
        offered(&["asynq", "task", "ls", "-o", ""]).await,
        set(&["json", "text"])
    );
    assert_eq!(offered(&["asynqd", "--store", ""]).await, set(&["memory", "sqlite"]));
    assert_eq!(offered(&["asynqd", "token", "n"]).await, set(&["new"]));
    assert_eq!(offered(&["asynq-worker", "--bui"]).await, set(&["--builtins"]));
}

#[tokio::test]
async fn an_unknown_page_is_refused() {
    for name in PROGRAMS {
        let ended = run(name, &["man", "nonsense"]).await;
        assert!(
            ended.code != Some(0) && ended.err.contains("has no subcommand nonsense; it has: "),
            "{ended:?}"
        );
    }
}
