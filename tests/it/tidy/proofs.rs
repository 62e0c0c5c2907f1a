//! docs/guarantees.md: every line of its table names tests that there are.

/// What is wrong with the table; `read` gives a file of the tree, if there is one.
pub(super) fn unproven(page: &str, read: impl Fn(&str) -> Option<String>) -> Vec<String> {
    let mut problems = Vec::new();
    let rows: Vec<Vec<&str>> = page
        .lines()
        .map(|line| line.trim_matches(['|', ' ']).split(" | ").collect())
        .filter(|cells: &Vec<&str>| cells[0].bytes().all(|b| b.is_ascii_digit()) && !cells[0].is_empty())
        .collect();
    if rows.is_empty() {
        problems.push("docs/guarantees.md has no numbered line: has its form changed?".to_owned());
    }
    for (cells, number) in rows.iter().zip(1..) {
        if cells[0] != format!("{number}") || cells.len() != 3 {
            problems.push(format!(
                "docs/guarantees.md: line {number} is {cells:?}, not | number | guarantee | proof |"
            ));
            continue;
        }
        problems.extend(without_test(cells[2], &read).map(|problem| format!("docs/guarantees.md {number}: {problem}")));
    }
    problems
}

/// A proof is `file.rs`: `a_test`, `another`; and so on. `make …` is a proof beside them.
fn without_test(proof: &str, read: &impl Fn(&str) -> Option<String>) -> impl Iterator<Item = String> {
    let (mut problems, mut file, mut tests) = (Vec::new(), None, 0);
    for word in proof
        .split('`')
        .skip(1)
        .step_by(2)
        .filter(|word| !word.starts_with("make "))
    {
        if word.contains('/') {
            file = read(word).map(|text| (word, text));
            if file.is_none() {
                problems.push(format!("there is no file {word}"));
            }
        } else if let Some((path, text)) = &file {
            tests += 1;
            if !has_test(text, word) {
                problems.push(format!("{path} has no test {word}"));
            }
        } else {
            problems.push(format!("{word} is in no file"));
        }
    }
    if tests == 0 {
        problems.push("no test is named".to_owned());
    }
    problems.into_iter()
}

/// Whether there is a function of this name with a test's attribute above it.
fn has_test(source: &str, name: &str) -> bool {
    source.match_indices(&format!("fn {name}(")).any(|(at, _)| {
        let line = source[..at].rfind('\n').map_or(0, |end| end + 1);
        let above = source[..line].lines().rev();
        let mut attributes = above.map(str::trim).take_while(|line| line.starts_with(['#', '/']));
        attributes.any(|line| line.starts_with("#[test]") || line.starts_with("#[tokio::test"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_without_its_test_is_found() {
        let source = "#[x]\n#[test]\nfn a() {}\n  #[tokio::test(x)]\n  async fn b() {}\n\nfn c() {}\n";
        let read = |path: &str| (path == "t/x.rs").then(|| source.to_owned());
        let page = |proof: &str| unproven(&format!("| | g | p |\n|---|---|---|\n| 1 | It is. | {proof} |\n"), read);
        for good in [
            "`t/x.rs`: `a`, `b`",
            "`make demo`, step 8; `t/x.rs`: `b`; the [s](s.md)",
        ] {
            assert_eq!(page(good), Vec::<String>::new());
        }
        for (bad, said) in [
            ("`t/x.rs`", "no test is named"),
            ("by hand", "no test is named"),
            ("`t/x.rs`: `c`", "t/x.rs has no test c"),
            ("`t/x.rs`: `d`", "t/x.rs has no test d"),
            ("`t/y.rs`: `a`", "there is no file t/y.rs"),
            ("`a`", "a is in no file"),
        ] {
            let problems = page(bad);
            assert!(
                problems.iter().any(|problem| problem.contains(said)),
                "{bad}: {problems:?}"
            );
        }
        assert!(!unproven("", read).is_empty());
        assert!(!unproven("| 2 | skipped one | `t/x.rs`: `a` |", read).is_empty());
    }
}
