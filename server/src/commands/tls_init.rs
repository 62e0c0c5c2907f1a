//! `asynqd tls init`: a CA of one's own, and a certificate for each end.

use std::fs::{DirBuilder, OpenOptions};
use std::io::Write;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};
use rustls::pki_types::ServerName;
use time::{Duration, OffsetDateTime};

use super::{CommandError, print, private, unwritten};
use crate::clock::{Clock, SystemClock};

/// How long the CA is good for, in days: ten years.
const CA_DAYS: u32 = 3650;
/// The rest of a cluster may be behind by this.
const CLOCK_SKEW: Duration = Duration::DAY;

/// See the module.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The folder to write to; it is made if it is not there
    dir: PathBuf,
    /// A name or address the broker is reached by, beside localhost and this
    /// host's name; may be given more than once
    #[arg(long = "name", value_name = "NAME", value_parser = server_name)]
    names: Vec<String>,
    /// How long the certificates are good for, in days; the CA is for ten years
    #[arg(long, value_name = "N", default_value_t = 825, value_parser = clap::value_parser!(u32).range(1..=i64::from(CA_DAYS)))]
    days: u32,
}

/// What a certificate is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Server,
    Client,
}

fn server_name(text: &str) -> Result<String, String> {
    match ServerName::try_from(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(_) => Err("write a host name or an IP address".into()),
    }
}

impl Args {
    pub(super) fn run(self) -> Result<(), CommandError> {
        let now = SystemClock::new().now().as_millis() / 1000;
        let now = i64::try_from(now)
            .ok()
            .and_then(|now| OffsetDateTime::from_unix_timestamp(now).ok());
        let now = now.ok_or_else(|| CommandError::Argument("the clock of this machine is not right".into()))?;

        let names = self.all_names();
        let ca = ca(now)?;
        let mut files = vec![("ca.pem", ca.pem(), false), ("ca.key", ca.key().serialize_pem(), true)];
        for (pem, key, who, names, purpose) in [
            (
                "server.pem",
                "server.key",
                "asynq broker",
                names.clone(),
                Purpose::Server,
            ),
            ("worker.pem", "worker.key", "asynq worker", Vec::new(), Purpose::Client),
            ("caller.pem", "caller.key", "asynq caller", Vec::new(), Purpose::Client),
        ] {
            let own = KeyPair::generate()?;
            let certificate = params(who, names, purpose, (now, self.days))?.signed_by(&own, &ca)?;
            files.extend([(pem, certificate.pem(), false), (key, own.serialize_pem(), true)]);
        }
        self.write(&files)?;
        self.say(now, &names)
    }

    /// Without doubles, in the order they were thought of.
    fn all_names(&self) -> Vec<String> {
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let here = ["localhost".to_owned(), "127.0.0.1".into(), "::1".into(), host];
        let mut names = Vec::new();
        for name in here.into_iter().chain(self.names.iter().cloned()) {
            // A host may have a name no certificate can.
            if server_name(&name).is_ok() && !names.contains(&name) {
                names.push(name);
            }
        }
        names
    }

    fn write(&self, files: &[(&str, String, bool)]) -> Result<(), CommandError> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&self.dir);
        made.map_err(|error| unwritten(&self.dir, error))?;
        let paths = files.iter().map(|(name, ..)| self.dir.join(name));
        if let Some(path) = paths.into_iter().find(|path| path.exists()) {
            return Err(CommandError::Exists(path));
        }
        for (name, content, secret) in files {
            let path = self.dir.join(name);
            let mut new = OpenOptions::new();
            new.create_new(true);
            let mut file = match secret {
                true => private(&path, &mut new)?,
                false => new.write(true).open(&path).map_err(|error| unwritten(&path, error))?,
            };
            file.write_all(content.as_bytes())
                .and_then(|()| file.sync_all())
                .map_err(|error| unwritten(&path, error))?;
        }
        Ok(())
    }

    fn say(&self, now: OffsetDateTime, names: &[String]) -> Result<(), CommandError> {
        let at = |file: &str| shown(&self.dir.join(file));
        let (ca, client) = (at("ca.pem"), |who: &str| {
            let (cert, key) = (at(&format!("{who}.pem")), at(&format!("{who}.key")));
            format!("--ca {} --cert {cert} --tls-key {key}", at("ca.pem"))
        });
        let (until, ca_until) = (until(now, self.days), until(now, CA_DAYS));
        let host = names.last().map_or("localhost", String::as_str);
        let host = if host.contains(':') {
            format!("[{host}]")
        } else {
            host.to_owned()
        };
        print(&format!(
            "Made in {}, good until {until} (the CA until {ca_until}):\n  \
             ca.pem, ca.key          the CA; keep ca.key off the network, who has it can make certificates\n  \
             server.pem, server.key  the broker, as {}\n  \
             worker.pem, worker.key  a worker\n  \
             caller.pem, caller.key  a caller\n\
             \n\
             The broker:\n  \
             asynqd --listen 0.0.0.0:7740 --tls-cert {} --tls-key {} --client-ca {ca}\n\
             A worker, given its files and ca.pem:\n  \
             asynq-worker --broker https://{host}:7740 {} --builtins\n\
             A caller:\n  \
             asynq --broker https://{host}:7740 {} call echo 1\n",
            shown(&self.dir),
            names.join(" "),
            at("server.pem"),
            at("server.key"),
            client("worker"),
            client("caller"),
        ))
    }
}

fn ca(now: OffsetDateTime) -> Result<CertifiedIssuer<'static, KeyPair>, CommandError> {
    let mut params = CertificateParams::new(Vec::new())?;
    // Two CAs of one name would be mistaken for each other.
    name(&mut params, &format!("asynq CA {:08x}", fastrand::u32(..)));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    valid(&mut params, now, CA_DAYS);
    Ok(CertifiedIssuer::self_signed(params, KeyPair::generate()?)?)
}

fn params(
    who: &str,
    names: Vec<String>,
    purpose: Purpose,
    (now, days): (OffsetDateTime, u32),
) -> Result<CertificateParams, CommandError> {
    let mut params = CertificateParams::new(names)?;
    name(&mut params, who);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![match purpose {
        Purpose::Server => ExtendedKeyUsagePurpose::ServerAuth,
        Purpose::Client => ExtendedKeyUsagePurpose::ClientAuth,
    }];
    params.use_authority_key_identifier_extension = true;
    valid(&mut params, now, days);
    Ok(params)
}

fn name(params: &mut CertificateParams, name: &str) {
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
}

fn valid(params: &mut CertificateParams, now: OffsetDateTime, days: u32) {
    params.not_before = now - CLOCK_SKEW;
    params.not_after = now + Duration::days(days.into());
}

fn until(now: OffsetDateTime, days: u32) -> String {
    let end = now + Duration::days(days.into());
    format!("{:04}-{:02}-{:02}", end.year(), u8::from(end.month()), end.day())
}

/// A path as a shell takes it.
fn shown(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
    match text.chars().all(plain) {
        true => text,
        false => format!("'{}'", text.replace('\'', r"'\''")),
    }
}
