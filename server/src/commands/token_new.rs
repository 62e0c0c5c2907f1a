//! `asynqd token new`: a secret of 256 bits, and the table that knows its hash.

use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::path::PathBuf;

use ring::rand::{SecureRandom, SystemRandom};

use super::{CommandError, print, private, unwritten};
use crate::auth::{DEFAULT_NAMESPACE, Role, check_name, hash};

/// Random bytes of a secret.
const SECRET_BYTES: usize = 32;

/// See the module.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Who it is for, for people and logs
    name: String,
    /// The namespace it is good for; there is only "default" so far
    #[arg(long, value_name = "NAMESPACE", default_value = DEFAULT_NAMESPACE)]
    namespace: String,
    /// What it is good for; may be given more than once
    #[arg(long = "role", value_name = "ROLE", required = true)]
    roles: Vec<Role>,
    /// Add the table to this tokens file, and print the secret alone
    #[arg(long, value_name = "FILE")]
    add_to: Option<PathBuf>,
}

impl Args {
    pub(super) fn run(self) -> Result<(), CommandError> {
        check_name(&self.name).map_err(CommandError::Argument)?;
        if self.namespace != DEFAULT_NAMESPACE {
            let problem = "is not supported yet: only \"default\" is";
            return Err(CommandError::Argument(format!(
                "--namespace {:?} {problem}",
                self.namespace
            )));
        }
        let secret = new_secret()?;
        let table = self.table(&secret);
        match &self.add_to {
            Some(path) => {
                let mut file = private(path, OpenOptions::new().read(true).append(true).create(true))?;
                let mut there = String::new();
                let read = file.read_to_string(&mut there);
                let gap = if there.is_empty() { "" } else { "\n" };
                read.and_then(|_| file.write_all(format!("{gap}{table}").as_bytes()))
                    .map_err(|error| unwritten(path, error))?;
                print(&format!("{secret}\n"))
            }
            None => print(&format!(
                "# Add this to the broker's tokens file, then send asynqd SIGHUP:\n\
                 {table}\n\
                 # The secret, which is shown only now. Who has it is {:?}: --token @FILE or ASYNQ_TOKEN\n\
                 {secret}\n",
                self.name
            )),
        }
    }

    fn table(&self, secret: &str) -> String {
        let roles: Vec<_> = self.roles.iter().map(|role| format!("\"{}\"", role.as_str())).collect();
        format!(
            "[[token]]\nname = \"{}\"\nsha256 = \"{}\"\nnamespace = \"{}\"\nroles = [{}]\n",
            self.name,
            hash(secret),
            self.namespace,
            roles.join(", ")
        )
    }
}

/// The prefix lets scanners of leaked secrets know it.
fn new_secret() -> Result<String, CommandError> {
    let mut bytes = [0; SECRET_BYTES];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| CommandError::NoRandomness)?;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(format!("asynq_{hex}"))
}
