//! What stands below the options in `--help`, as sections of a page.
//!
//! Our commands end their help in blocks: a line that ends in a colon with indented lines below it, which stay as
//! they are (`Examples:`), or a word, a colon and a paragraph (`Exit codes: 0 done, …`).

/// The sections, in roff.
pub(crate) fn sections(help: &str) -> String {
    let mut page = String::new();
    let mut lines = help.lines().peekable();
    while let Some(line) = lines.next() {
        let Some((heading, rest)) = line.split_once(':').filter(|_| !line.starts_with(' ')) else {
            continue;
        };
        page += &format!(".SH \"{}\"\n", escape(&heading.to_uppercase()));
        if rest.is_empty() {
            page += ".nf\n";
            let mut blank = 0;
            while let Some(line) = lines.next_if(|line| line.is_empty() || line.starts_with(' ')) {
                if line.is_empty() {
                    blank += 1;
                    continue;
                }
                // Blank lines count between others, not at the end.
                page += &"\n".repeat(std::mem::take(&mut blank));
                page += &text(line.strip_prefix("  ").unwrap_or(line));
            }
            page += ".fi\n";
        } else {
            page += &text(rest.trim_start());
            while let Some(line) = lines.next_if(|line| !line.is_empty()) {
                page += &text(line);
            }
        }
    }
    page
}

/// A line of text that roff takes for nothing else.
fn text(line: &str) -> String {
    format!("\\&{}\n", escape(line))
}

/// Keeps roff from setting what is to be typed in finer types.
pub(crate) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' => escaped += "\\e",
            '-' => escaped += "\\-",
            '\'' => escaped += "\\(aq",
            '"' => escaped += "\\(dq",
            '`' => escaped += "\\(ga",
            '^' => escaped += "\\(ha",
            '~' => escaped += "\\(ti",
            c => escaped.push(c),
        }
    }
    escaped
}

/// Spells out what not every roff reads as UTF-8.
pub(crate) fn ascii(page: &str) -> String {
    let mut spelt = String::with_capacity(page.len());
    for c in page.chars() {
        match c.is_ascii() {
            true => spelt.push(c),
            false => spelt += &format!("\\[u{:04X}]", u32::from(c)),
        }
    }
    spelt
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_ascii() {
        assert_eq!(ascii("a…é\n"), "a\\[u2026]\\[u00E9]\n");
    }

    #[test]
    fn examples_stay_as_they_are_and_paragraphs_flow() {
        let help = "Examples:\n  a -b 'c'   d\n\n  .e\n\nExit codes: 0 fine,\n1 not.\n";
        let page = ".SH \"EXAMPLES\"\n.nf\n\\&a \\-b \\(aqc\\(aq   d\n\n\\&.e\n.fi\n\
                    .SH \"EXIT CODES\"\n\\&0 fine,\n\\&1 not.\n";
        assert_eq!(sections(help), page);
        assert_eq!(sections(""), "");
    }
}
