//! The checks of the tree: plain functions over text that return what is wrong.

/// Which crates of ours a crate may depend on, for its tests too.
pub(super) const DIRECTIONS: &[(&str, &[&str])] = &[
    ("asynq-proto", &[]),
    ("asynq-core", &[]),
    ("asynq-store", &["asynq-core"]),
    ("asynq-manual", &[]),
    ("asynqd", &["asynq-core", "asynq-manual", "asynq-store", "asynq-proto"]),
    ("asynq-worker", &["asynq-client", "asynq-manual", "asynq-proto"]),
    ("asynq-client", &["asynq-proto"]),
    ("asynq", &["asynq-client", "asynq-manual", "asynq-proto"]),
    (
        "asynq-tests",
        &[
            "asynq-client",
            "asynq-core",
            "asynq-proto",
            "asynq-store",
            "asynq-worker",
            "asynqd",
        ],
    ),
];

/// All the pure core may stand on: containers, an error macro, a hash.
const CORE_DEPENDENCIES: &[&str] = &["bytes", "hashbrown", "slab", "smallvec", "thiserror", "xxhash-rust"];

/// What no code may hold, and what to do instead.
pub(super) const FORBIDDEN: &[(&str, &str)] = &[
    ("unbounded_channel", "bound the channel"),
    ("unbounded(", "bound the channel"),
    ("UnboundedSender", "bound the channel"),
    ("UnboundedReceiver", "bound the channel"),
    ("todo!", "write it, or leave it out"),
    ("unimplemented!", "write it, or leave it out"),
    ("#[allow", "use #[expect(…, reason = \"…\")]"),
    ("#![allow", "use #![expect(…, reason = \"…\")]"),
    ("#[ignore", "a test that is not run proves nothing"),
    ("thread::sleep", "wait for an event, or poll with a deadline"),
];

/// A second TLS stack, a second crypto provider, or what needs more than a C compiler.
const FOREIGN: &str = "openssl openssl-sys native-tls aws-lc-rs aws-lc-sys cmake protobuf-src protoc-bin-vendored";

/// Crates whose types meet across ours: two versions would not fit together.
const ONE_VERSION: &str = "bytes h2 http hyper prost prost-types rustls tokio tonic";

/// Lines of a file that one can still read in a sitting.
pub(super) const MAX_LINES: usize = 600;

/// What stands between `open` and the next `close`, each time.
fn between<'a>(text: &'a str, open: &'a str, close: &'a str) -> impl Iterator<Item = &'a str> {
    text.split(open)
        .skip(1)
        .filter_map(move |rest| rest.split(close).next())
}

/// What a manifest depends on; `all` counts what its build and its tests need, too.
fn dependencies(manifest: &str, all: bool) -> Vec<&str> {
    let counts = |kind: &str| kind == "dependencies" || all && kind.ends_with("-dependencies");
    let mut found = Vec::new();
    let mut inside = false;
    for line in manifest.lines().map(str::trim).filter(|l| !l.starts_with('#')) {
        if let Some(section) = between(line, "[", "]").next().filter(|_| line.starts_with('[')) {
            let mut parts = section.rsplit('.');
            let (last, before) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
            inside = counts(last);
            found.extend(counts(before).then_some(last.trim_matches('"')));
        } else if let Some((key, value)) = line.split_once('=').filter(|_| inside) {
            let key = key.split('.').next().unwrap_or_default();
            found.push(
                between(value, "package = \"", "\"")
                    .next()
                    .unwrap_or(key.trim().trim_matches('"')),
            );
        }
    }
    found
}

fn package_name(manifest: &str) -> &str {
    between(manifest, "name = \"", "\"").next().unwrap_or_default()
}

pub(super) fn wrong_directions(manifest: &str) -> Vec<String> {
    let name = package_name(manifest);
    let Some((_, allowed)) = DIRECTIONS.iter().find(|(n, _)| *n == name) else {
        return vec![format!("{name}: a new crate; say in DIRECTIONS what it may depend on")];
    };
    let ours = |d: &str| DIRECTIONS.iter().any(|(n, _)| *n == d);
    let all = dependencies(manifest, true).into_iter();
    all.filter(|d| ours(d) && !allowed.contains(d))
        .map(|d| format!("{name} must not depend on {d}: ARCHITECTURE.md says which way data flows"))
        .collect()
}

pub(super) fn impure_core(manifest: &str) -> Vec<String> {
    let all = dependencies(manifest, false).into_iter();
    all.filter(|d| !CORE_DEPENDENCIES.contains(d))
        .map(|d| format!("asynq-core must not depend on {d}: it decides, and does nothing"))
        .collect()
}

/// A crate's own clippy.toml replaces the root's, so it has to repeat it.
pub(super) fn forgotten_bans(root: &str, own: &str) -> Vec<String> {
    let kept: Vec<&str> = between(own, "path = \"", "\"").collect();
    between(root, "path = \"", "\"")
        .filter(|ban| !kept.contains(ban))
        .map(|ban| format!("server/core/clippy.toml must repeat the root's ban of {ban}"))
        .collect()
}

pub(super) fn missing_lints(manifest: &str) -> Vec<String> {
    let opted_in = between(manifest, "[lints]", "[").any(|rest| rest.trim_start().starts_with("workspace = true"));
    let problem = || format!("{}: [lints] workspace = true is missing", package_name(manifest));
    (!opted_in).then(problem).into_iter().collect()
}

pub(super) fn forbidden_code(path: &str, source: &str) -> Vec<String> {
    let mut problems = Vec::new();
    for (line, n) in code_only(source).lines().zip(1..) {
        for (what, instead) in FORBIDDEN.iter().filter(|(what, _)| line.contains(what)) {
            problems.push(format!("{path}:{n}: {what} is not for this tree: {instead}"));
        }
        if line.contains("mpsc::channel()") || line.contains("mpsc::channel::<") && line.contains(">()") {
            problems.push(format!("{path}:{n}: mpsc::channel() has no bound: use sync_channel"));
        }
    }
    problems
}

pub(super) fn bad_shape(path: &str, source: &str) -> Vec<String> {
    let mut problems = Vec::new();
    if !source.starts_with("//! ") {
        problems.push(format!(
            "{path}: must begin with a `//!` line that says whose room it is"
        ));
    }
    let lines = source.lines().count();
    if lines > MAX_LINES {
        problems.push(format!("{path}: {lines} lines, at most {MAX_LINES}: split it"));
    }
    problems
}

pub(super) fn bad_lock(lock: &str) -> Vec<String> {
    let times = |name: &str| between(lock, "name = \"", "\"").filter(|n| *n == name).count();
    let foreign = FOREIGN.split(' ').filter(|name| times(name) > 0);
    let twice = ONE_VERSION.split(' ').filter(|name| times(name) > 1);
    foreign
        .map(|name| format!("Cargo.lock: {name} must not be here"))
        .chain(twice.map(|name| format!("Cargo.lock: two versions of {name} do not fit together")))
        .collect()
}

/// Every reason in the code has its row in docs/errors.md, and every row its reason.
pub(super) fn undocumented_reasons(code: &str, docs: &str) -> Vec<String> {
    let reason = |s: &&str| !s.is_empty() && s.chars().all(|c| c.is_ascii_uppercase() || c == '_');
    let given: Vec<&str> = between(code, "&str = \"", "\"").filter(reason).collect();
    let told: Vec<&str> = between(docs, "\n| `", "`").filter(reason).collect();
    if given.is_empty() {
        return vec!["no reason found in the code: has its form changed?".to_owned()];
    }
    let untold = given.iter().filter(|r| !told.contains(r));
    let ungiven = told.iter().filter(|r| !given.contains(r));
    untold
        .map(|r| format!("docs/errors.md lacks {r}"))
        .chain(ungiven.map(|r| format!("docs/errors.md has {r}, the code has not")))
        .collect()
}

/// Every word an `as_str` of the core gives users is explained.
pub(super) fn unexplained_words(code: &str, docs: &str) -> Vec<String> {
    let mut words = between(code, "=> \"", "\"").peekable();
    if words.peek().is_none() {
        return vec!["no state or reason found in server/core/src: has its form changed?".to_owned()];
    }
    words
        .filter(|w| !docs.contains(&format!("\n| `{w}` | ")))
        .map(|w| format!("docs/lifecycle.md has no row that explains `{w}`"))
        .collect()
}

/// Links to files, relative to the page they stand on.
pub(super) fn relative_links(page: &str) -> impl Iterator<Item = &str> {
    let targets = between(page, "](", ")").filter_map(|link| link.split('#').next());
    targets.filter(|t| !t.is_empty() && !t.contains("://"))
}

/// The source without comments and literals, line for line.
fn code_only(source: &str) -> String {
    let mut code = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(c) = rest.chars().next() {
        // The b or r that ends a word begins no literal.
        let in_word = code.ends_with(|c: char| c.is_alphanumeric() || c == '_') && matches!(c, 'b' | 'r');
        let skipped = if in_word { 0 } else { comment_or_literal(rest) };
        if skipped == 0 {
            code.push(c);
        }
        let (gone, left) = rest.split_at(skipped.max(c.len_utf8()));
        code.extend(gone.chars().filter(|c| skipped > 0 && *c == '\n'));
        rest = left;
    }
    code
}

/// Bytes of the comment or literal that `rest` begins with, or 0.
fn comment_or_literal(rest: &str) -> usize {
    let after = |from: usize, close: &str| rest[from..].find(close).map_or(rest.len(), |n| from + n + close.len());
    let literal = rest.strip_prefix('b').unwrap_or(rest);
    let start = rest.len() - literal.len();
    let raw = literal.strip_prefix('r').unwrap_or_default();
    let hashes = raw.len() - raw.trim_start_matches('#').len();
    if rest.starts_with("//") {
        rest.find('\n').unwrap_or(rest.len())
    } else if rest.starts_with("/*") {
        after(2, "*/")
    } else if raw[hashes..].starts_with('"') {
        after(start + 2 + hashes, &format!("\"{}", "#".repeat(hashes)))
    } else if let Some(inner) = literal.strip_prefix('"') {
        let mut escaped = false;
        let end = inner.char_indices().find(|(_, c)| {
            let closes = *c == '"' && !escaped;
            escaped = *c == '\\' && !escaped;
            closes
        });
        end.map_or(rest.len(), |(n, _)| start + 1 + n + 1)
    } else if literal.starts_with("'\\") {
        after(start + 3, "'")
    } else if literal.starts_with('\'') && literal.chars().nth(2) == Some('\'') {
        after(start + 1 + literal[1..].chars().next().map_or(0, char::len_utf8), "'")
    } else {
        0 // code; a quote here begins a lifetime
    }
}
