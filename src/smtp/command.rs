//! Command lines to typed commands (RFC 5321 §4.1), strictly: what does not follow the grammar is
//! refused with the reason that says what is wrong.

use std::borrow::Cow;

use super::reason::Reason;
use super::settings::Protocol;
use crate::mail::{
    Address, BodyType, Domain, DsnNotify, DsnReturn, MailParameters, RcptParameters, ReversePath,
    Secret,
};

/// The longest path with its angle brackets (RFC 5321 §4.5.3.1.3), in octets.
const MAX_PATH: usize = 256;
/// The longest encoded `ENVID` (RFC 3461 §4.4).
const MAX_ENVID: usize = 100;
/// The longest encoded `ORCPT` (RFC 3461 §4.2).
const MAX_ORCPT: usize = 500;
/// The longest number (RFC 1870 §4, RFC 3030 §2: twenty digits).
const MAX_DIGITS: usize = 20;

/// A command that can be understood; whether it may come now is the session's affair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    /// EHLO with its argument.
    Ehlo(String),
    /// HELO with its argument.
    Helo(String),
    /// MAIL.
    Mail(ReversePath, MailParameters),
    /// RCPT.
    Rcpt(Rcpt),
    /// DATA.
    Data,
    /// BDAT (RFC 3030).
    Bdat(Chunk),
    /// BDAT whose size cannot be read, so that nobody knows where its chunk ends.
    EndlessBdat,
    /// RSET.
    Rset,
    /// NOOP, whatever its argument.
    Noop,
    /// QUIT.
    Quit,
    /// VRFY, whatever its argument.
    Vrfy,
    /// HELP, whatever its argument.
    Help,
    /// STARTTLS (RFC 3207).
    StartTls,
    /// AUTH (RFC 4954): the mechanism, and the initial response.
    Auth(String, Option<Secret>),
}

/// What RCPT says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rcpt {
    /// To whom.
    pub(crate) path: ForwardPath,
    /// Its parameters.
    pub(crate) parameters: RcptParameters,
    /// What the transaction must allow for it.
    pub(crate) spelling: Spelling,
}

/// Where a message is to go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ForwardPath {
    /// `<postmaster>` without a domain (RFC 5321 §4.5.1).
    Postmaster,
    /// An address.
    Address(Address),
}

/// Whether an address is spelled with SMTPUTF8's characters (RFC 6531).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Spelling {
    /// ASCII alone.
    Ascii,
    /// Other characters too: SMTPUTF8 is needed.
    Utf8,
}

impl Spelling {
    fn of(text: &str) -> Self {
        if text.is_ascii() { Self::Ascii } else { Self::Utf8 }
    }
}

/// What BDAT announces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Chunk {
    /// Octets that follow.
    pub(crate) size: u64,
    /// Whether more chunks are to come.
    pub(crate) place: ChunkPlace,
}

/// Where a chunk stands in its message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ChunkPlace {
    /// Another follows.
    More,
    /// `LAST`: it ends the message.
    Last,
}

/// Reads a command line without its CR LF, as a listener of this protocol understands it.
///
/// # Errors
/// Why it is refused.
pub(crate) fn parse(line: &[u8], protocol: Protocol) -> Result<Command, Reason> {
    let begins = |verb: &[u8]| line.get(..4).is_some_and(|found| found.eq_ignore_ascii_case(verb));
    // A device says its name in whatever character set it has.
    let is_greeting = begins(b"EHLO") || begins(b"HELO");
    let text = match str::from_utf8(line) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) if is_greeting => String::from_utf8_lossy(line),
        Err(_) if begins(b"BDAT") => return Ok(Command::EndlessBdat),
        Err(_) => return Err(Reason::BadSyntax),
    };
    // RFC 5321 §4.1.1: white space before the CR LF is tolerated. Deviation: where a space belongs
    // in these commands, devices and scripts write a tab too; in a quoted string it is no space.
    let has_tabs = is_greeting || begins(b"MAIL") || begins(b"RCPT");
    let text = match text.contains('\t') && !text.contains('"') && has_tabs {
        true => Cow::Owned(text.replace('\t', " ")),
        false => text,
    };
    let text = text.trim_end_matches([' ', '\t']);
    let (verb, argument) = text.split_once(' ').unwrap_or((text, ""));
    let verb = verb.to_ascii_uppercase();
    if !verb.starts_with("BDAT") && argument.chars().any(char::is_control) {
        return Err(Reason::BadSyntax);
    }
    match verb.as_str() {
        "EHLO" => client_name(argument).map(Command::Ehlo),
        "HELO" => client_name(argument).map(Command::Helo),
        "MAIL" => mail(argument, protocol),
        "RCPT" => rcpt(argument).map(Command::Rcpt),
        "BDAT" => Ok(chunk(argument).map_or(Command::EndlessBdat, Command::Bdat)),
        "DATA" => alone(argument, Command::Data),
        "RSET" => alone(argument, Command::Rset),
        "QUIT" => alone(argument, Command::Quit),
        "STARTTLS" => alone(argument, Command::StartTls),
        "NOOP" => Ok(Command::Noop),
        "HELP" => Ok(Command::Help),
        "VRFY" if argument.is_empty() => Err(Reason::BadSyntax),
        "VRFY" => Ok(Command::Vrfy),
        "AUTH" if protocol.is_submission() => auth(argument),
        "EXPN" | "AUTH" | "ETRN" | "TURN" | "SEND" | "SOML" | "SAML" => Err(Reason::NotImplemented),
        verb if verb.starts_with("BDAT") => Ok(Command::EndlessBdat),
        _ => Err(Reason::UnknownCommand),
    }
}

/// RFC 5321 §4.1.1: these commands have no argument.
fn alone(argument: &str, command: Command) -> Result<Command, Reason> {
    if argument.is_empty() { Ok(command) } else { Err(Reason::BadSyntax) }
}

/// The argument of EHLO or HELO.
///
/// Deviation: RFC 5321 §4.1.1.1 asks for a domain or an address literal. Any name is taken, because
/// printers, cameras and desktops say what their owners call them; what the name is worth is judged
/// elsewhere. What could mean something in a header field becomes a question mark.
fn client_name(argument: &str) -> Result<String, Reason> {
    let argument = argument.trim_start();
    if argument.is_empty() || argument.len() > 255 {
        return Err(Reason::BadSyntax);
    }
    let is_harmless = |c: char| c.is_ascii_alphanumeric() || ".-_:[]".contains(c);
    let harmless = |c: char| if is_harmless(c) { c } else { '?' };
    Ok(argument.chars().map(harmless).collect())
}

/// `BDAT SP chunk-size [SP "LAST"]` (RFC 3030 §2).
fn chunk(argument: &str) -> Option<Chunk> {
    let (size, place) = match argument.split_once(' ') {
        None => (argument, ChunkPlace::More),
        Some((size, last)) if last.eq_ignore_ascii_case("LAST") => (size, ChunkPlace::Last),
        Some(_) => return None,
    };
    Some(Chunk { size: digits(size)?.parse().ok()?, place })
}

fn digits(text: &str) -> Option<&str> {
    let number = (1..=MAX_DIGITS).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    number.then_some(text)
}

/// `AUTH SP mechanism [SP initial-response]` (RFC 4954 §4).
fn auth(argument: &str) -> Result<Command, Reason> {
    let (mechanism, initial) = match argument.split_once(' ') {
        None => (argument, None),
        Some((mechanism, response)) => (mechanism, Some(response)),
    };
    if mechanism.is_empty() || initial.is_some_and(|text| text.is_empty() || text.contains(' ')) {
        return Err(Reason::BadSyntax);
    }
    let initial = initial.map(|text| Secret::new(text.to_owned()));
    Ok(Command::Auth(mechanism.to_owned(), initial))
}

/// `MAIL FROM:<reverse-path> [SP parameters]`.
fn mail(argument: &str, protocol: Protocol) -> Result<Command, Reason> {
    let text = after_keyword(argument, "FROM").ok_or(Reason::BadSyntax)?;
    let (path, rest) = path_and_rest(text).ok_or(Reason::BadSender)?;
    let reverse_path = match path {
        "" => ReversePath::Null,
        path => ReversePath::Address(mailbox(path).ok_or(Reason::BadSender)?),
    };
    let mut reader = MailReader::default();
    for parameter in parameters(rest)? {
        reader.read(parameter, protocol)?;
    }
    let parameters = reader.finish();
    // RFC 6531 §3.4: such an address travels in a transaction that said SMTPUTF8 only.
    if Spelling::of(path) == Spelling::Utf8 && !parameters.smtputf8 {
        return Err(Reason::NeedsSmtpUtf8);
    }
    Ok(Command::Mail(reverse_path, parameters))
}

/// `RCPT TO:<forward-path> [SP parameters]`.
fn rcpt(argument: &str) -> Result<Rcpt, Reason> {
    let text = after_keyword(argument, "TO").ok_or(Reason::BadSyntax)?;
    let (path, rest) = path_and_rest(text).ok_or(Reason::BadAddress)?;
    let forward_path = match path {
        path if path.eq_ignore_ascii_case("postmaster") => ForwardPath::Postmaster,
        path => ForwardPath::Address(mailbox(path).ok_or(Reason::BadAddress)?),
    };
    let mut read = RcptParameters::default();
    for parameter in parameters(rest)? {
        read_rcpt_parameter(&mut read, parameter)?;
    }
    Ok(Rcpt { path: forward_path, parameters: read, spelling: Spelling::of(text) })
}

/// Deviation: RFC 5321 §3.3 allows no space around the colon; spaces are tolerated, for printers,
/// scripts and people at a terminal.
fn after_keyword<'a>(argument: &'a str, keyword: &str) -> Option<&'a str> {
    let (head, text) = argument.split_once(':')?;
    head.trim().eq_ignore_ascii_case(keyword).then(|| text.trim_start())
}

/// The path, without its brackets, and what follows it.
///
/// Deviation: RFC 5321 §4.1.2 has brackets around every path. Disk controllers, scanners and alarm
/// systems leave them out; then the path ends where a space is.
fn path_and_rest(text: &str) -> Option<(&str, &str)> {
    if text.starts_with('<') {
        let (path, rest) = bracketed(text)?;
        return Some((path.trim(), rest));
    }
    let (path, rest) = text.split_at_checked(text.find(' ').unwrap_or(text.len()))?;
    let is_bare = !path.is_empty() && path.len() + 2 <= MAX_PATH && !path.contains(['<', '>']);
    is_bare.then_some((path, rest))
}

/// The inside of `<…>` and what follows it; a `>` in a quoted string does not end the path.
fn bracketed(text: &str) -> Option<(&str, &str)> {
    let inner = text.strip_prefix('<')?;
    let mut quoted = false;
    let mut chars = inner.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => quoted = !quoted,
            '\\' if quoted => {
                chars.next();
            }
            '>' if !quoted => {
                let (path, rest) = inner.split_at_checked(at)?;
                return Some((path, rest.strip_prefix('>')?)).filter(|_| at + 2 <= MAX_PATH);
            }
            _ => {}
        }
    }
    None
}

/// A mailbox, after a source route that is read and ignored (RFC 5321 §4.1.1.3, appendix C).
fn mailbox(path: &str) -> Option<Address> {
    let mailbox = match path.strip_prefix('@') {
        None => path,
        Some(route) => {
            let (route, mailbox) = route.split_once(':')?;
            let mut hops = route.split(",@");
            hops.all(|hop| Domain::parse(hop).is_ok()).then_some(mailbox)?
        }
    };
    Address::parse(mailbox).ok()
}

/// An esmtp-param (RFC 5321 §4.1.2).
#[derive(Clone, Copy)]
struct Parameter<'a> {
    keyword: &'a str,
    value: Option<&'a str>,
}

/// What follows a path: nothing, or parameters with a space before each; more are tolerated.
fn parameters(rest: &str) -> Result<Vec<Parameter<'_>>, Reason> {
    if rest.is_empty() {
        return Ok(Vec::new());
    }
    let rest = rest.strip_prefix(' ').ok_or(Reason::BadSyntax)?;
    rest.split(' ').filter(|text| !text.is_empty()).map(parameter).collect()
}

fn parameter(text: &str) -> Result<Parameter<'_>, Reason> {
    let (keyword, value) = match text.split_once('=') {
        None => (text, None),
        Some((keyword, value)) => (keyword, Some(value)),
    };
    let keyword_ok = keyword.starts_with(|c: char| c.is_ascii_alphanumeric())
        && keyword.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    let value_ok = value.is_none_or(|value| !value.is_empty() && !value.contains('='));
    if keyword_ok && value_ok { Ok(Parameter { keyword, value }) } else { Err(Reason::BadSyntax) }
}

/// Parameters of MAIL as they are read; a second one of a kind is an error.
#[derive(Default)]
struct MailReader {
    size: Option<u64>,
    body: Option<BodyType>,
    smtputf8: Option<()>,
    ret: Option<DsnReturn>,
    envid: Option<String>,
    auth: Option<()>,
}

impl MailReader {
    fn read(
        &mut self,
        Parameter { keyword, value }: Parameter<'_>,
        protocol: Protocol,
    ) -> Result<(), Reason> {
        match (keyword.to_ascii_uppercase().as_str(), value) {
            ("SIZE", Some(value)) => set_once(&mut self.size, size(value)?),
            ("BODY", Some(value)) => set_once(&mut self.body, body(value)?),
            ("SMTPUTF8", None) => set_once(&mut self.smtputf8, ()),
            ("RET", Some(value)) => set_once(&mut self.ret, ret(value)?),
            ("ENVID", Some(value)) if value.len() <= MAX_ENVID => {
                set_once(&mut self.envid, xtext(value).ok_or(Reason::BadSyntax)?)
            }
            ("SIZE" | "BODY" | "SMTPUTF8" | "RET" | "ENVID", _) => Err(Reason::BadSyntax),
            // RFC 4954 §5: who offers AUTH must understand it here. Whoever the client says has
            // authenticated to it, nobody is believed but the user who has logged in to us.
            ("AUTH", Some(value)) if protocol.is_submission() => {
                let is_identity = value == "<>" || xtext(value).is_some();
                set_once(&mut self.auth, is_identity.then_some(()).ok_or(Reason::BadSyntax)?)
            }
            ("AUTH", None) if protocol.is_submission() => Err(Reason::BadSyntax),
            _ => Err(Reason::UnknownParameter),
        }
    }

    fn finish(self) -> MailParameters {
        MailParameters {
            declared_size: self.size,
            body: self.body.unwrap_or_default(),
            smtputf8: self.smtputf8.is_some(),
            ret: self.ret,
            envid: self.envid,
        }
    }
}

fn set_once<V>(place: &mut Option<V>, value: V) -> Result<(), Reason> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(Reason::BadSyntax),
    }
}

/// RFC 1870 §4. Twenty digits may be more than a `u64` holds; then it is more than any limit too.
fn size(value: &str) -> Result<u64, Reason> {
    let digits = digits(value).ok_or(Reason::BadSyntax)?;
    Ok(digits.parse().unwrap_or(u64::MAX))
}

/// RFC 6152 §2. BINARYMIME (RFC 3030) is not offered.
fn body(value: &str) -> Result<BodyType, Reason> {
    match value.to_ascii_uppercase().as_str() {
        "7BIT" => Ok(BodyType::SevenBit),
        "8BITMIME" => Ok(BodyType::EightBitMime),
        "BINARYMIME" => Err(Reason::UnknownParameter),
        _ => Err(Reason::BadSyntax),
    }
}

/// RFC 3461 §4.3.
fn ret(value: &str) -> Result<DsnReturn, Reason> {
    match value.to_ascii_uppercase().as_str() {
        "FULL" => Ok(DsnReturn::Full),
        "HDRS" => Ok(DsnReturn::Headers),
        _ => Err(Reason::BadSyntax),
    }
}

fn read_rcpt_parameter(
    read: &mut RcptParameters,
    Parameter { keyword, value }: Parameter<'_>,
) -> Result<(), Reason> {
    match (keyword.to_ascii_uppercase().as_str(), value) {
        ("NOTIFY", Some(value)) => {
            set_once(&mut read.notify, notify(value).ok_or(Reason::BadSyntax)?)
        }
        ("ORCPT", Some(value)) if value.len() <= MAX_ORCPT => {
            set_once(&mut read.orcpt, orcpt(value).ok_or(Reason::BadSyntax)?)
        }
        ("NOTIFY" | "ORCPT", _) => Err(Reason::BadSyntax),
        _ => Err(Reason::UnknownParameter),
    }
}

/// RFC 3461 §4.1: NEVER alone, or each of the others at most once.
fn notify(value: &str) -> Option<DsnNotify> {
    let mut notify = DsnNotify::default();
    if value.eq_ignore_ascii_case("NEVER") {
        notify.never = true;
        return Some(notify);
    }
    for word in value.split(',') {
        let flag = match word.to_ascii_uppercase().as_str() {
            "SUCCESS" => &mut notify.success,
            "FAILURE" => &mut notify.failure,
            "DELAY" => &mut notify.delay,
            _ => return None,
        };
        if std::mem::replace(flag, true) {
            return None;
        }
    }
    Some(notify)
}

/// `addr-type ";" address` (RFC 3461 §4.2, RFC 6533 §3), the address decoded.
fn orcpt(value: &str) -> Option<String> {
    let (kind, address) = value.split_once(';')?;
    let kind_ok = !kind.is_empty() && kind.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    if !kind_ok || address.is_empty() {
        return None;
    }
    let kind = kind.to_ascii_lowercase();
    if kind == "utf-8" {
        return utf8_address(address).map(|address| format!("{kind};{address}"));
    }
    let address = String::from_utf8(xtext_octets(address)?).ok()?;
    if is_printable(&address) {
        return Some(format!("{kind};{address}"));
    }
    // Deviation: RFC 3461 §4.2 has ASCII alone. Postfix says of an address in UTF-8 that it is of
    // the type rfc822; it is noted as what it is.
    let is_utf8 = kind == "rfc822" && !address.is_ascii() && !address.chars().any(char::is_control);
    is_utf8.then(|| format!("utf-8;{address}"))
}

/// Decodes xtext (RFC 3461 §4). What comes out must be printable (§4.2, §4.4), or it could break
/// out of the header or the DSN that it is put in.
fn xtext(text: &str) -> Option<String> {
    String::from_utf8(xtext_octets(text)?).ok().filter(|decoded| is_printable(decoded))
}

fn is_printable(text: &str) -> bool {
    text.chars().all(|c| (' '..='~').contains(&c))
}

fn xtext_octets(text: &str) -> Option<Vec<u8>> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'+' => hex_digit(bytes.next()?.into())? * 16 + hex_digit(bytes.next()?.into())?,
            byte if byte.is_ascii() => byte,
            _ => return None,
        });
    }
    Some(decoded)
}

/// RFC 3461 §4: hexadecimal digits in upper case.
fn hex_digit(c: char) -> Option<u8> {
    match c {
        '0'..='9' | 'A'..='F' => c.to_digit(16).and_then(|digit| u8::try_from(digit).ok()),
        _ => None,
    }
}

/// Decodes utf-8-addr-xtext and utf-8-addr-unitext (RFC 6533 §3): `\x{5BFF}` is one character,
/// and `+`, `=` and `\` never stand for themselves.
fn utf8_address(text: &str) -> Option<String> {
    let mut decoded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let (c, length) = match c {
            '+' => return None,
            '\\' => {
                let (digits, _) = rest.strip_prefix("\\x{")?.split_once('}')?;
                let hex = (2..=6).contains(&digits.len())
                    && digits.chars().all(|c| hex_digit(c).is_some());
                let number = u32::from_str_radix(digits, 16).ok().filter(|_| hex)?;
                (char::from_u32(number)?, digits.len() + 4)
            }
            c => (c, c.len_utf8()),
        };
        decoded.push(c);
        rest = rest.get(length..)?;
    }
    decoded.chars().all(|c| !c.is_control()).then_some(decoded)
}
