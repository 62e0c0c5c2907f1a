//! `completions SHELL`.

use clap::Command;
use clap_complete::{Shell, generate};

/// Print what makes a shell complete this command's words.
#[derive(Debug, clap::Args)]
pub struct Completions {
    /// The shell that is to read it.
    shell: Shell,
}

impl Completions {
    /// The script for the shell that was asked for.
    #[must_use]
    pub fn render(&self, mut command: Command) -> String {
        let name = command.get_name().to_owned();
        let mut script = Vec::new();
        generate(self.shell, &mut command, name, &mut script);
        String::from_utf8_lossy(&script).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use clap::{Arg, ValueEnum};

    use super::*;

    #[test]
    fn every_shell_learns_every_word() {
        for &shell in Shell::value_variants() {
            let flag = Arg::new("slots").long("slots");
            let command = Command::new("tool").subcommand(Command::new("run").arg(flag));
            let script = Completions { shell }.render(command);
            for word in ["tool", "run", "slots"] {
                assert!(script.contains(word), "{shell}: {word} is not in {script}");
            }
        }
    }
}
