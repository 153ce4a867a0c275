//! What an organization's file and the main file say of mail that users send: SMTP gateways,
//! attachments that are not sent, and quotas.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::{ErrorKind, Read};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls_pki_types::CertificateDer;

use super::reader::{Section, relative_to};
use super::stamp::Stamps;
use super::tree::Place;
use super::warnings;
use crate::files::open_regular;
use crate::mail::{Gateway, GatewayHost, GatewayLogin, Secret};
use crate::organization::{
    Authorities, Blocked, Extension, GatewaySaid, LoginSaid, OwnQuotas, SecretAt,
};
use crate::pipeline::RecipientQuotas;
use crate::smtp;

/// The longest password, in octets; RFC 4616 §2 asks for 255.
const MAX_PASSWORD: u64 = 1024;
/// The largest file of certificates, in octets: thrice what all public authorities come to.
const MAX_CERTIFICATES: u64 = 1024 * 1024;
/// The port on which TLS begins with the connection (RFC 8314 §3.3).
pub(super) const SUBMISSIONS_PORT: u16 = 465;
const QUOTA: RangeInclusive<u64> = 0..=1_000_000_000;

/// An organization's SMTP gateways.
#[derive(Debug, Default)]
pub(super) struct Gateways {
    pub(super) read: Vec<Arc<Gateway>>,
    /// The same as they are said: without what stands in other files, but with where it stands.
    pub(super) said: BTreeMap<Arc<str>, GatewaySaid>,
    /// The names, also of those with a problem.
    pub(super) names: HashSet<String>,
}

/// Reads the gateways of the organization's file at `path`.
pub(super) fn gateways(root: &Section<'_>, path: &Path, stamps: &mut Stamps) -> Gateways {
    let mut taken: HashMap<String, String> = HashMap::new();
    let mut read = Vec::new();
    let mut said = BTreeMap::new();
    for section in root.sections("smtp_gateway") {
        let name = section.text("name");
        if let Some(name) = section.required("name", name.as_ref()) {
            if let Some(first) = taken.get(name) {
                section.problem("name", format!("\"{name}\" is taken, at {first}"));
            }
            taken.entry(name.clone()).or_insert_with(|| section.place_of("name"));
        }
        if let Some(gateway) = gateway(&section, name, path, stamps) {
            said.insert(Arc::clone(&gateway.name), said_of(&gateway, &section, path));
            read.push(Arc::new(gateway));
        }
    }
    Gateways { read, said, names: taken.into_keys().collect() }
}

fn said_of(gateway: &Gateway, section: &Section<'_>, path: &Path) -> GatewaySaid {
    let named = |key| section.text(key).map(|file| whole_path(&relative_to(path, file)));
    let login = gateway.login.as_ref().zip(named("password_file"));
    GatewaySaid {
        host: gateway.host.clone(),
        port: gateway.port,
        implicit_tls: gateway.implicit_tls,
        login: login.map(|(login, file)| LoginSaid {
            user_name: login.user_name.clone(),
            password: SecretAt::File(file),
        }),
        authorities: named("ca_file").map(Authorities::File),
    }
}

/// A path that says the same from wherever it is read, as a text: a state is written down.
pub(super) fn whole_path(path: &Path) -> PathBuf {
    // It fails where there is no working folder any more, and then no file was read either.
    let whole = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    whole.to_string_lossy().into_owned().into()
}

fn gateway(
    section: &Section<'_>,
    name: Option<String>,
    path: &Path,
    stamps: &mut Stamps,
) -> Option<Gateway> {
    let host: Option<GatewayHost> = section.parsed("address");
    let host = section.required("address", host);
    let port = section.number("port", 1..=u64::from(u16::MAX));
    let port = section.required("port", port).and_then(|port| u16::try_from(port).ok());
    let implicit_tls = section.word("tls", &[("starttls", false), ("implicit", true)]);
    let login = login(section, path, stamps);
    let authorities = authorities(section, path, stamps);
    section.finish();
    let port = port?;
    Some(Gateway {
        name: name?.into(),
        host: host?,
        port,
        implicit_tls: implicit_tls.unwrap_or(port == SUBMISSIONS_PORT),
        login,
        authorities,
    })
}

/// User name and password: both, or neither.
pub(super) fn login(
    section: &Section<'_>,
    path: &Path,
    stamps: &mut Stamps,
) -> Option<GatewayLogin> {
    let user_name = section.text("user_name");
    if let Some(bad) = user_name.as_ref().filter(|name| !is_one_line(name)) {
        section.problem("user_name", format!("{bad:?} is empty, or has a control character"));
    }
    let password = named_file(section, "password_file", path, stamps, password);
    if let Some(file) = section.text("password_file") {
        warnings::open_secret(section, "password_file", &relative_to(path, file));
    }
    match (section.has("user_name"), section.has("password_file")) {
        (true, false) => section.problem("user_name", "needs a password_file beside it"),
        (false, true) => section.problem("password_file", "needs a user_name beside it"),
        (true, true) | (false, false) => {}
    }
    Some(GatewayLogin { user_name: user_name?, password: password? })
}

/// The authorities that a server's certificate may come from.
pub(super) fn authorities(
    section: &Section<'_>,
    path: &Path,
    stamps: &mut Stamps,
) -> Option<Arc<[CertificateDer<'static>]>> {
    named_file(section, "ca_file", path, stamps, |file| {
        let pem = small_file(file, MAX_CERTIFICATES)?;
        smtp::certificate_authorities(&pem).map(Into::into).map_err(|error| error.to_string())
    })
}

/// What is in a file that a key names. The file becomes part of the organization: when it changes,
/// the organization is read again.
fn named_file<T>(
    section: &Section<'_>,
    key: &'static str,
    path: &Path,
    stamps: &mut Stamps,
    read: impl Fn(&Path) -> Result<T, String>,
) -> Option<T> {
    let file: PathBuf = relative_to(path, section.text(key)?);
    stamps.add(&file);
    read(&file)
        .map_err(|problem| section.problem(key, format!("{} {problem}", file.display())))
        .ok()
}

/// A password alone on its line.
fn password(file: &Path) -> Result<Secret, String> {
    let octets = small_file(file, MAX_PASSWORD)?;
    let mut text = String::from_utf8(octets).map_err(|_| "is not UTF-8".to_owned())?;
    let line = text.strip_suffix('\n').unwrap_or(&text);
    let length = line.strip_suffix('\r').unwrap_or(line).len();
    text.truncate(length);
    let secret = Secret::new(text);
    match secret.expose() {
        "" => Err("is empty".into()),
        line if is_one_line(line) => Ok(secret),
        _ => Err("has more than one line, or a control character".into()),
    }
}

/// Whether a text can be a user name or password: SASL has no place for a NUL (RFC 4616 §2), and
/// any other control character is a mistake.
fn is_one_line(text: &str) -> bool {
    !text.is_empty() && !text.chars().any(char::is_control)
}

/// The octets of a file, at most `max`.
fn small_file(file: &Path, max: u64) -> Result<Vec<u8>, String> {
    let cannot = |error: std::io::Error| match error.kind() {
        ErrorKind::IsADirectory | ErrorKind::InvalidInput => "is not a file".to_owned(),
        _ => format!("cannot be read: {error}"),
    };
    let mut octets = Vec::new();
    open_regular(file)
        .and_then(|file| file.take(max + 1).read_to_end(&mut octets))
        .map_err(cannot)?;
    if octets.len() as u64 > max {
        return Err(format!("is larger than {max} octets"));
    }
    Ok(octets)
}

/// The extensions that the organization says are not sent; if it says nothing, they are the guide's.
pub(super) fn blocked_attachments(root: &Section<'_>) -> Option<Blocked> {
    let listed: Vec<(Extension, Place)> = root.list("blocked_attachments")?;
    Some(Blocked(listed.into_iter().map(|(extension, _)| extension).collect()))
}

/// The daemon's quotas.
pub(super) fn quotas(root: &Section<'_>) -> RecipientQuotas {
    let section = root.section("outbound");
    let own = OwnQuotas {
        per_user: section.number("recipients_per_user_per_day", QUOTA),
        per_organization: section.number("recipients_per_organization_per_day", QUOTA),
        inside_per_user: section.number("inside_recipients_per_user_per_day", QUOTA),
    };
    section.finish();
    RecipientQuotas::default().unless(own)
}

/// An organization's own quotas.
pub(super) fn own_quotas(root: &Section<'_>) -> OwnQuotas {
    OwnQuotas {
        per_user: root.number("recipients_per_user_per_day", QUOTA),
        per_organization: root.number("recipients_per_day", QUOTA),
        inside_per_user: root.number("inside_recipients_per_user_per_day", QUOTA),
    }
}
