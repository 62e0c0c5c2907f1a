//! `man [COMMAND]…`, `man --out DIR`.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::Command;

use crate::extra;

/// How an apostrophe is to be set, for groff and for others.
const PREAMBLE: [&str; 2] = [r".ie \n(.g .ds Aq \(aq", ".el .ds Aq '"];

/// Print a page for man, or write those of all subcommands to a folder.
#[derive(Debug, clap::Args)]
pub struct Man {
    /// The subcommand whose page to print [default: the page of the whole].
    #[arg(value_name = "COMMAND", conflicts_with = "out")]
    command: Vec<String>,
    /// Write all pages to this folder instead, and print their paths.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// The part of the manual a program belongs to. It keeps the page of the daemon
/// `asynq-worker` apart from that of the command `asynq worker`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    /// 1: what users type.
    Commands,
    /// 8: what the system runs.
    Daemons,
}

impl Section {
    const fn number(self) -> &'static str {
        match self {
            Self::Commands => "1",
            Self::Daemons => "8",
        }
    }
}

/// Why there is no page.
#[derive(Debug, thiserror::Error)]
pub enum ManError {
    /// Nothing is called so.
    #[error("{parent} has no subcommand {given}; it has: {known}")]
    UnknownCommand {
        /// What was asked for.
        given: String,
        /// Where it was looked for.
        parent: String,
        /// What there is, with commas.
        known: String,
    },
    /// A file or the folder cannot be written.
    #[error("failed to write {}: {source}", path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl Man {
    /// What to print: the page, or the paths of the pages that were written.
    ///
    /// # Errors
    /// If there is no such subcommand, or a file cannot be written.
    pub fn run(&self, command: Command, section: Section) -> Result<String, ManError> {
        let mut command = command.disable_help_subcommand(true);
        command.build();
        let program = format!("{} {}", command.get_name(), command.get_version().unwrap_or_default());
        let book = Book {
            program,
            section: section.number(),
        };
        match &self.out {
            None => Ok(book.page(find(&command, &self.command)?)),
            Some(folder) => {
                fs::create_dir_all(folder).map_err(|error| unwritten(folder, error))?;
                let mut written = String::new();
                book.write_all(&command, folder, &mut written)?;
                Ok(written)
            }
        }
    }
}

fn find<'a>(root: &'a Command, names: &[String]) -> Result<&'a Command, ManError> {
    names.iter().try_fold(root, |parent, name| {
        parent.find_subcommand(name).ok_or_else(|| ManError::UnknownCommand {
            given: name.clone(),
            parent: title(parent).replace('-', " "),
            known: visible(parent).map(Command::get_name).collect::<Vec<_>>().join(", "),
        })
    })
}

fn visible(command: &Command) -> impl Iterator<Item = &Command> {
    command.get_subcommands().filter(|below| !below.is_hide_set())
}

/// `asynq-task-ls`.
fn title(command: &Command) -> &str {
    command.get_display_name().unwrap_or_else(|| command.get_name())
}

/// All pages of a program.
struct Book {
    /// Its name and version.
    program: String,
    section: &'static str,
}

impl Book {
    fn write_all(&self, command: &Command, folder: &Path, written: &mut String) -> Result<(), ManError> {
        let path = folder.join(format!("{}.{}", title(command), self.section));
        fs::write(&path, self.page(command)).map_err(|error| unwritten(&path, error))?;
        *written += &format!("{}\n", path.display());
        visible(command).try_for_each(|below| self.write_all(below, folder, written))
    }

    /// A page in roff.
    fn page(&self, command: &Command) -> String {
        let Self { program, section } = self;
        let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        let title = title(command);
        let man = clap_mangen::Man::new(command.clone()).section(*section);
        let mut page = Vec::new();
        let rendered = man
            .render_name_section(&mut page)
            .and_then(|()| synopsis(command, &mut page))
            .and_then(|()| man.render_description_section(&mut page))
            .and_then(|()| man.render_options_section(&mut page))
            .and_then(|()| match visible(command).next() {
                Some(_) => man.render_subcommands_section(&mut page),
                None => Ok(()),
            });
        debug_assert!(rendered.is_ok(), "a Vec takes all that is written");
        let rendered = String::from_utf8_lossy(&page);
        // Each section was rendered as if it were a page of its own, with what those begin with.
        let sections = rendered.lines().filter(|line| !PREAMBLE.contains(line));
        // The title is ours: theirs leaves out what is empty, which shifts what follows.
        let mut page = format!(
            "{}\n.TH {title} {section} \"\" \"{program}\" asynq\n",
            PREAMBLE.join("\n")
        );
        // Names and flags are not to be torn apart, nor spread over the line.
        page += ".nh\n.ad l\n";
        sections.for_each(|line| page += &format!("{line}\n"));
        page += &extra::sections(&help);
        if let Some((parent, _)) = title.rsplit_once('-').filter(|_| command.get_name() != title) {
            page += &format!(".SH \"SEE ALSO\"\n\\fB{}\\fR({section})\n", extra::escape(parent));
        }
        extra::ascii(&page)
    }
}

/// As `--help` has it: with all options, of which the global ones are many, nobody would see the words.
fn synopsis(command: &Command, page: &mut Vec<u8>) -> io::Result<()> {
    let usage = command.clone().render_usage().to_string();
    writeln!(page, ".SH SYNOPSIS")?;
    for line in usage.lines().map(|line| line.trim_start_matches("Usage:").trim()) {
        writeln!(page, "\\fB{}\\fR\n.br", extra::escape(line))?;
    }
    Ok(())
}

fn unwritten(path: &Path, source: io::Error) -> ManError {
    ManError::Write {
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use clap::Arg;

    use super::*;

    fn tool() -> Command {
        let ls = Command::new("ls")
            .about("List them")
            .arg(Arg::new("all").long("all"))
            .after_help("Examples:\n  tool task ls --all");
        let task = Command::new("task").about("Look at tasks").subcommand(ls);
        let hidden = Command::new("secret").hide(true);
        Command::new("tool").version("7").subcommands([task, hidden])
    }

    fn man(command: &[&str], out: Option<PathBuf>) -> Result<String, ManError> {
        let command = command.iter().map(|&name| name.to_owned()).collect();
        Man { command, out }.run(tool(), Section::Commands)
    }

    #[test]
    fn one_page_is_printed() {
        let page = man(&["task", "ls"], None).unwrap();
        for part in [
            ".TH tool-task-ls 1 \"\" \"tool 7\" asynq\n.nh\n.ad l\n.SH NAME\n",
            "List them",
            "\\-\\-all",
            ".SH \"EXAMPLES\"\n.nf\n\\&tool task ls \\-\\-all\n.fi\n",
            "\\fBtool\\-task\\fR(1)",
        ] {
            assert!(page.contains(part), "{part} is not in\n{page}");
        }
        let whole = man(&[], None).unwrap();
        assert!(
            whole.contains("tool\\-task(1)") && !whole.contains("SEE ALSO"),
            "{whole}"
        );
    }

    #[test]
    fn an_unknown_page_is_named_with_those_there_are() {
        let error = man(&["task", "lss"], None).unwrap_err().to_string();
        assert_eq!(error, "tool task has no subcommand lss; it has: ls");
    }

    #[test]
    fn all_pages_go_to_a_folder_that_is_made() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("share/man1");
        let written = man(&[], Some(out.clone())).unwrap();
        let paths = ["tool", "tool-task", "tool-task-ls"].map(|name| out.join(format!("{name}.1")));
        assert!(
            written.lines().eq(paths.iter().map(|path| path.to_str().unwrap())),
            "{written}"
        );
        for path in paths {
            assert!(fs::read_to_string(&path).unwrap().contains(".TH"), "{}", path.display());
        }
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = man(&[], Some(file.path().join("x"))).unwrap_err().to_string();
        assert!(error.starts_with("failed to write"), "{error}");
    }
}
